"""The messages that are written to a socket and not confirmed, in 12 bytes each: a slow agent may have 1,000."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Optional

_SPENT = 256
"""Used items at the front of the arrays after which they are removed."""


@dataclass(frozen=True)
class Window:
    """How much may be unconfirmed at a time. One message always may, whatever its size."""

    messages: int = 1000
    bytes: int = 1024 * 1024


USUAL = Window()
"""The window of a socket that has refused nothing."""


class InFlight:
    """Seqs in ascending order, each with its size in bytes."""

    __slots__ = ("_begun", "_replied", "_seqs", "_sizes", "_start")

    def __init__(self) -> None:
        self._seqs = array("q")
        self._sizes = array("I")
        self._start = 0
        # Most sockets are no worker's.
        self._begun: Optional[set[int]] = None
        self._replied: Optional[set[int]] = None

    def __len__(self) -> int:
        return len(self._seqs) - self._start

    @property
    def first(self) -> int:
        """The lowest seq. There must be one."""
        return self._seqs[self._start]

    def append(self, seq: int, size: int) -> None:
        """Add a message. Its seq is higher than all others."""
        self._seqs.append(seq)
        self._sizes.append(size)

    def take_through(self, seq: int) -> tuple[list[int], int]:
        """Remove the messages up to a seq. Return their seqs and their total size. There must be one."""
        end = bisect_right(self._seqs, seq, self._start)
        taken = self._seqs[self._start : end].tolist(), sum(self._sizes[self._start : end])
        self._start = end
        for noted in (self._begun, self._replied):
            if noted:
                noted.difference_update(taken[0])
        if end == len(self._seqs) or end > _SPENT:
            del self._seqs[:end], self._sizes[:end]
            self._start = 0
        return taken

    def __contains__(self, seq: int) -> bool:
        place = bisect_left(self._seqs, seq, self._start)
        return place < len(self._seqs) and self._seqs[place] == seq

    def remove(self, seq: int) -> int:
        """Remove one message, and return its size. It must be in flight."""
        place = bisect_left(self._seqs, seq, self._start)
        size = self._sizes[place]
        self.end(seq)
        if self._replied is not None:
            self._replied.discard(seq)
        del self._seqs[place], self._sizes[place]
        return size

    def reaches(self, seq: int) -> bool:
        """Return whether anything up to a seq is in flight."""
        return len(self) > 0 and self.first <= seq

    def reply(self, seq: int) -> bool:
        """Note that a message is being answered. False if it is not in flight, or is being answered already."""
        if seq not in self or (self._replied is not None and seq in self._replied):
            return False
        self._replied = self._replied or set()
        self._replied.add(seq)
        return True

    def begin(self, seq: int) -> bool:
        """Note that a worker begins a message. False if it is not in flight, or has begun already."""
        if seq not in self or (self._begun is not None and seq in self._begun):
            return False
        self._begun = self._begun or set()
        self._begun.add(seq)
        return True

    def end(self, seq: int) -> bool:
        """Note that an attempt at a message has ended. False if none has begun."""
        if self._begun is None or seq not in self._begun:
            return False
        self._begun.remove(seq)
        return True
