"""The log of `serve`: readable lines on a terminal, JSON lines elsewhere."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Optional

from ws_manager.cli.output.text import visible, whole_line

LEVELS = ("debug", "info", "warning", "error")
"""The values of `--log-level`."""


def configure_logging(level: str, worker: Optional[int] = None) -> None:
    """Write the log to stderr from now on.

    Args:
        level: the lowest level that is written, one of `LEVELS`; it applies to other packages too.
        worker: the number of this worker, for every record; None if the process is not one of several.
    """
    handler = logging.StreamHandler(sys.stderr)
    if sys.stderr.isatty():
        handler.setFormatter(TerminalFormatter(worker))
    else:
        handler.setFormatter(JsonFormatter(worker))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # Whoever started the command waits for this line, whatever the level is.
    READY.setLevel(logging.INFO)


READY = logging.getLogger("ws_manager.ready")
"""The logger of the line that says that the command is ready; it ignores the level."""


class TerminalFormatter(logging.Formatter):
    """A readable line. It is escaped, because text from agents, such as the reason of a close, is part of it."""

    def __init__(self, worker: Optional[int] = None) -> None:
        whose = "" if worker is None else f"[{worker}] "
        super().__init__(f"%(asctime)s %(levelname)-7s {whose}%(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Return the line, without the traceback that may follow it."""
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802, ANN401 - logging's own name and type
        """Return a traceback, escaped like the line."""
        return "\n".join(map(visible, super().formatException(ei).split("\n")))


class JsonFormatter(logging.Formatter):
    """One JSON object per record: `time` (RFC 3339, UTC), `level`, `logger`, `message`, then any extra fields.

    The records of one of several workers have the field `worker`.
    A caller adds fields with `extra={"fields": {…}}`. A traceback is the field `exception`, at the end.
    """

    def __init__(self, worker: Optional[int] = None) -> None:
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._worker,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return whole_line(json.dumps(entry, ensure_ascii=False, separators=(",", ":")))
