"""The messages that a socket was sent and has not confirmed. A slow agent may have 1,000, so each is a few bytes."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

_SPENT = 256
"""Unused places at the front after which the arrays are compacted."""


class InFlight:
    """Message numbers in ascending order, each with its size: 12 bytes a message."""

    def __init__(self) -> None:
        self._seqs = array("q")
        self._sizes = array("I")
        self._start = 0

    def __len__(self) -> int:
        return len(self._seqs) - self._start

    @property
    def first(self) -> int:
        """The lowest number. There must be one."""
        return self._seqs[self._start]

    def append(self, seq: int, size: int) -> None:
        """Add a message. Its number must be higher than all before."""
        self._seqs.append(seq)
        self._sizes.append(size)

    def take_through(self, seq: int) -> tuple[int, int]:
        """Remove the messages up to a number, and return the highest number and their size. There must be one."""
        end = bisect_right(self._seqs, seq, self._start)
        taken = self._seqs[end - 1], sum(self._sizes[self._start : end])
        self._start = end
        if end == len(self._seqs) or end > _SPENT:
            del self._seqs[:end], self._sizes[:end]
            self._start = 0
        return taken

    def __contains__(self, seq: int) -> bool:
        place = bisect_left(self._seqs, seq, self._start)
        return place < len(self._seqs) and self._seqs[place] == seq

    def remove(self, seq: int) -> int:
        """Remove one message, and return its size. It must be there."""
        place = bisect_left(self._seqs, seq, self._start)
        size = self._sizes[place]
        del self._seqs[place], self._sizes[place]
        return size
