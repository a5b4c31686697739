"""When each unconfirmed message of a socket was written: for its receipt, and for a report before that."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, Optional

_MOST_UNREPORTED = 64


class Writing(NamedTuple):
    """The messages of one write that are not confirmed yet.

    Attributes:
        first: the lowest message number.
        last: the highest message number.
        at: UTC text; None if it is not known here.
        reported: True once it was reported to the ledger.
    """

    first: int
    last: int
    at: Optional[str]
    reported: bool


class Writings:
    """The writes of one socket, in order."""

    __slots__ = ("_writings",)

    def __init__(self) -> None:
        self._writings: deque[Writing] = deque()

    def add(self, first: int, last: int, at: Optional[str]) -> None:
        """Add a write. Its numbers must be higher than all before."""
        writings = self._writings
        before = writings[-1] if writings else None
        # Beyond a number of unconfirmed writes, later ones share a time: memory is bounded.
        if before and (before.at == at or (len(writings) >= _MOST_UNREPORTED and not before.reported)):
            first, at = writings.pop().first, before.at
        writings.append(Writing(first, last, at, reported=at is None))

    def take_unreported(self) -> list[Writing]:
        """Return the writes that were not reported yet, and mark them as reported."""
        writings = self._writings
        if not writings:
            # True for most sockets, most of the time.
            return []
        unreported = [writing for writing in writings if not writing.reported]
        if unreported:
            # Their times are reported now, so they need not be kept apart.
            whole = Writing(writings[0].first, writings[-1].last, None, reported=True)
            writings.clear()
            writings.append(whole)
        return unreported

    def take_through(self, seq: int) -> Iterator[Writing]:
        """Remove the writes up to a message number. Each is returned, because each has its own time."""
        writings = self._writings
        while writings and writings[0].first <= seq:
            writing = writings.popleft()
            if writing.last > seq:
                writings.appendleft(writing._replace(first=seq + 1))
                writing = writing._replace(last=seq)
            yield writing

    def drop_before(self, seq: Optional[int]) -> None:
        """Drop the writes that end before a message number; None for all."""
        while self._writings and (seq is None or self._writings[0].last < seq):
            self._writings.popleft()
