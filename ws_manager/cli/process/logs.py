"""The log of a command that runs for long: for people on a terminal, as lines of JSON for programs."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from ws_manager.cli.output.text import visible, whole_line

LEVELS = ("debug", "info", "warning", "error")
"""What `--log-level` takes."""


def set_up(level: str) -> None:
    """Write the log to stderr from now on.

    Args:
        level: one of `LEVELS`. What is below it is left out, of other packages too.
    """
    handler = logging.StreamHandler(sys.stderr)
    if sys.stderr.isatty():
        handler.setFormatter(TerminalFormatter())
    else:
        handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # That it is ready is what whoever started it waits for.
    READY.setLevel(logging.INFO)


READY = logging.getLogger("ws_manager.ready")
"""Says that the command is ready, whatever the level is."""


class TerminalFormatter(logging.Formatter):
    """A line for people. What an agent has put into it, such as the reason of a close, cannot move their cursor."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Return the line, without the traceback that may follow it."""
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802, ANN401 - logging's own name and type
        """Return a traceback; what it quotes cannot move anybody's cursor either."""
        return "\n".join(map(visible, super().formatException(ei).split("\n")))


class JsonFormatter(logging.Formatter):
    """One JSON object a record: `time` (RFC 3339, UTC), `level`, `logger`, `message`, perhaps `exception`.

    Attributes that are given with `extra={"fields": {…}}` follow.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return whole_line(json.dumps(entry, ensure_ascii=False, separators=(",", ":")))
