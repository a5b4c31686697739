"""When each unconfirmed message of a socket was written. The ledger stores it, at the latest with the receipt."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import NamedTuple, Optional

_MOST_UNREPORTED = 64
_TIMED_EVERY = 1.0
_NO_SEQ = sys.maxsize


class Writing(NamedTuple):
    """The unconfirmed messages of one write.

    Attributes:
        first: the lowest seq.
        last: the highest seq.
        at: when they were written, as UTC text; None if the ledger knows it already.
        reported: True once the ledger knows the time.
    """

    first: int
    last: int
    at: Optional[str]
    reported: bool


class Writings:
    """The writes of one socket, in order.

    One message at a time is timed, from its writing to its receipt, and a second later at the earliest another one.
    To time each would need memory for each, and take a hundredth of what a message costs.

    Attributes:
        timed: the seq of the message that is timed; above every seq if none is.
    """

    __slots__ = ("_time_from", "_timed_at", "_writings", "timed")

    def __init__(self) -> None:
        # There are few, and an empty list takes a tenth of the memory of an empty deque.
        self._writings: list[Writing] = []
        self.timed = _NO_SEQ
        # When it was written, and from when on the next may be timed, in monotonic seconds.
        self._timed_at = 0.0
        self._time_from = -math.inf

    def add(self, first: int, last: int, at: Optional[str], now: float) -> None:
        """Add what was written at the time `at`, `now` in monotonic seconds. Its seqs are higher than all others."""
        if now >= self._time_from:
            self.timed, self._timed_at, self._time_from = first, now, math.inf
        writings = self._writings
        before = writings[-1] if writings else None
        # From 64 unreported writes on, later ones share the time of the last: this bounds memory.
        if before and (before.at == at or (len(writings) >= _MOST_UNREPORTED and not before.reported)):
            first, at = writings.pop().first, before.at
        writings.append(Writing(first, last, at, reported=at is None))

    def take_unreported(self) -> list[Writing]:
        """Return the writes that are not reported yet, and mark them as reported."""
        writings = self._writings
        if not writings:
            # The usual case of an idle socket.
            return []
        unreported = [writing for writing in writings if not writing.reported]
        if unreported:
            # The ledger knows their times now, so they are kept as one.
            whole = Writing(writings[0].first, writings[-1].last, None, reported=True)
            writings.clear()
            writings.append(whole)
        return unreported

    def take_through(self, seq: int) -> Iterator[Writing]:
        """Remove what was written up to a seq. Yields each write apart, because each has its own time."""
        writings = self._writings
        while writings and writings[0].first <= seq:
            writing = writings.pop(0)
            if writing.last > seq:
                writings.insert(0, writing._replace(first=seq + 1))
                writing = writing._replace(last=seq)
            yield writing

    def take_seconds(self, now: float) -> float:
        """Return the seconds from the writing of the timed message until now, and time it no longer."""
        self.timed, self._time_from = _NO_SEQ, self._timed_at + _TIMED_EVERY
        return now - self._timed_at

    def take_out(self, seq: int, first: Optional[int]) -> Optional[str]:
        """Forget one message, and the writes that end before `first`, the lowest seq in flight then.

        With None, nothing is in flight any more, and all writes are forgotten.

        Returns:
            When the message was written, as UTC text; None if the ledger knows it already.
        """
        at = next((each.at for each in self._writings if each.first <= seq <= each.last), None)
        if seq == self.timed:
            self.timed, self._time_from = _NO_SEQ, -math.inf
        while self._writings and (first is None or self._writings[0].last < first):
            del self._writings[0]
        return at
