"""When each unconfirmed message of a socket was written: a receipt says it, and the ledger should know it before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, Optional

_MOST_UNREPORTED = 64


class Writing(NamedTuple):
    """What one writing has put on the wire and is not confirmed yet.

    Attributes:
        first: the lowest message number.
        last: the highest message number.
        at: UTC text; None if it is not known here.
        reported: True once the ledger knows of it.
    """

    first: int
    last: int
    at: Optional[str]
    reported: bool


class Writings:
    """The writings of one socket, in order."""

    __slots__ = ("_writings",)

    def __init__(self) -> None:
        self._writings: deque[Writing] = deque()

    def add(self, first: int, last: int, at: Optional[str]) -> None:
        """Add what was written at the time `at`; its numbers are higher than all before."""
        writings = self._writings
        before = writings[-1] if writings else None
        # Many that nobody has confirmed within a second share the time of one of them: memory is bounded.
        if before and (before.at == at or (len(writings) >= _MOST_UNREPORTED and not before.reported)):
            first, at = writings.pop().first, before.at
        writings.append(Writing(first, last, at, reported=at is None))

    def take_unreported(self) -> list[Writing]:
        """Return the writings that the ledger does not know, which are told with that."""
        writings = self._writings
        if not writings:
            # Of very many sockets, most of the time.
            return []
        unreported = [writing for writing in writings if not writing.reported]
        if unreported:
            # The ledger knows their times now, so that they need not be kept apart.
            whole = Writing(writings[0].first, writings[-1].last, None, reported=True)
            writings.clear()
            writings.append(whole)
        return unreported

    def take_through(self, seq: int) -> Iterator[Writing]:
        """Take out what was written up to a message number, each writing apart, because each has its own time."""
        writings = self._writings
        while writings and writings[0].first <= seq:
            writing = writings.popleft()
            if writing.last > seq:
                writings.appendleft(writing._replace(first=seq + 1))
                writing = writing._replace(last=seq)
            yield writing

    def drop_before(self, seq: Optional[int]) -> None:
        """Forget the writings that end before a message number; None for all."""
        while self._writings and (seq is None or self._writings[0].last < seq):
            self._writings.popleft()
