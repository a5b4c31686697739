"""Logs refusals at a limited rate: enough to see why, but no flood of lines during an attack."""

from __future__ import annotations

import logging
from typing import Callable, Optional

from ws_manager.protocol.bucket import Bucket

LINES = 5
"""Refusals of one kind that are logged at once before they are only counted."""

SECONDS = 60.0
"""Seconds after which one more line of a kind may be logged."""

_SHOWN = 100
_log = logging.getLogger("ws_manager.gateway")


class _Kind:
    """The state of one kind: the allowance of lines, and the refusals that were only counted."""

    __slots__ = ("last", "lines", "unsaid")

    def __init__(self, now: float) -> None:
        self.lines = Bucket(1 / SECONDS, LINES, now)
        self.unsaid = 0
        self.last = ""


class RefusalLog:
    """Logs the first refusals of each kind in a line each, counts the others, and logs the count once a minute.

    Args:
        now: a monotonic clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._kinds: dict[str, _Kind] = {}

    def note(self, kind: str, what: str, remedy: Optional[str] = None) -> None:
        """Log or count a refusal.

        Args:
            kind: one of a few fixed words; each kind has its own limit.
            what: what was refused and why. It holds no secret; text from a stranger goes through `quoted` first.
            remedy: the option that would accept it; None if there is none.
        """
        now = self._now()
        state = self._kinds.setdefault(kind, _Kind(now))
        line = what if remedy is None else f"{what}. To accept it: {remedy}"
        if not state.unsaid and state.lines.take(1, now):
            _log.warning("refused: %s", line, extra={"fields": {"refused": kind}})
        else:
            state.unsaid += 1
            state.last = line

    def tick(self) -> None:
        """Log the counts that are due. Call it about once a second."""
        now = self._now()
        for kind, state in self._kinds.items():
            if state.unsaid and state.lines.take(1, now):
                count, state.unsaid = state.unsaid, 0
                _log.warning(
                    "refused %d more; the last: %s",
                    count,
                    state.last,
                    extra={"fields": {"refused": kind, "count": count}},
                )


def quoted(text: str) -> str:
    """Return text from a stranger in a form for logs: in quotes, escaped, at most 100 characters."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
