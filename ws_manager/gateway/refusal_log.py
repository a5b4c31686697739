"""What was refused, in the log: enough to see why, and never a line for each of many."""

from __future__ import annotations

import logging
from typing import Callable, Optional

from ws_manager.protocol.bucket import Bucket

LINES = 5
"""How many refusals of one kind have a line of their own at once."""

SECONDS = 60.0
"""After which a kind may have one line more."""

_SHOWN = 100
_log = logging.getLogger("ws_manager.gateway")


class _Kind:
    """Refusals for one cause: what may be written, and what was not."""

    __slots__ = ("last", "lines", "unsaid")

    def __init__(self, now: float) -> None:
        self.lines = Bucket(1 / SECONDS, LINES, now)
        self.unsaid = 0
        self.last = ""


class RefusalLog:
    """The first refusals of each kind have a line each; more are counted, and the count has a line in a minute.

    Args:
        now: a monotonic clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._kinds: dict[str, _Kind] = {}

    def note(self, kind: str, what: str, remedy: Optional[str] = None) -> None:
        """Take note of a refusal.

        Args:
            kind: one of a few: each is limited by itself.
            what: was refused, and why. Nothing secret; what a stranger sent goes through `quoted`.
            remedy: what lets it in.
        """
        now = self._now()
        state = self._kinds.setdefault(kind, _Kind(now))
        line = what if remedy is None else f"{what}. If it is to be let in: {remedy}"
        if not state.unsaid and state.lines.take(1, now):
            _log.warning("refused: %s", line, extra={"fields": {"refused": kind}})
        else:
            state.unsaid += 1
            state.last = line

    def tick(self) -> None:
        """Write the counts whose time has come."""
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
    """Return what a stranger sent for a log: in quotes, escaped, and cut off."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
