"""Refusals in the log: enough to see why, and never one line for each of many."""

from __future__ import annotations

import logging
from typing import Callable, Optional

from ws_manager.protocol.bucket import Bucket

LINES = 5
"""Refusals of one kind that may each have a line in a burst."""

SECONDS = 60.0
"""Seconds after which a kind may have one more line."""

_SHOWN = 100
_log = logging.getLogger("ws_manager.gateway")


class _Kind:
    """Refusals of one kind: how many lines may still be written, and how many refusals had none."""

    __slots__ = ("last", "lines", "unsaid")

    def __init__(self, now: float) -> None:
        self.lines = Bucket(1 / SECONDS, LINES, now)
        self.unsaid = 0
        self.last = ""


class Refusals:
    """The first refusals of each kind have a line each. More are counted, and the count is logged once a minute.

    Args:
        now: a monotonic clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._kinds: dict[str, _Kind] = {}

    def note(self, kind: str, what: str, remedy: Optional[str] = None) -> None:
        """Note a refusal.

        Args:
            kind: one of a few. Each has a limit of its own.
            what: what was refused, and why. It holds no secret; what a stranger sent goes through `quoted`.
            remedy: what would let it in.
        """
        now = self._now()
        state = self._kinds.setdefault(kind, _Kind(now))
        told = what if remedy is None else f"{what}. If it is to be let in: {remedy}"
        if not state.unsaid and state.lines.take(1, now):
            _log.warning("refused: %s", told, extra={"fields": {"refused": kind}})
        else:
            state.unsaid += 1
            state.last = told

    def tick(self) -> None:
        """Log the counts that are due."""
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
    """Return what a stranger sent, ready for a log: quoted, escaped, and cut off."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
