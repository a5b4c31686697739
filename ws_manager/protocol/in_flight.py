"""The messages that are written to a socket and not confirmed, in 12 bytes each: a slow agent may have 1,000."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Optional

_SPENT = 256
"""Used items at the front of the arrays after which they are removed."""

_BEGUN, _REPLIED = "begun", "replied"


@dataclass(frozen=True)
class Window:
    """How much may be unconfirmed at a time. One message always may, whatever its size."""

    messages: int = 1000
    bytes: int = 1024 * 1024


USUAL = Window()
"""The window of a socket that has refused nothing."""


class InFlight:
    """Seqs in ascending order, each with its size in bytes."""

    __slots__ = ("_said", "_seqs", "_sizes", "_start")

    def __init__(self) -> None:
        self._seqs = array("q")
        self._sizes = array("I")
        self._start = 0
        # What the agent's requests have said of messages in flight. Most sockets are no worker's.
        self._said: Optional[set[tuple[str, int]]] = None

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
        if self._said:
            self._said = {(what, each) for what, each in self._said if each > seq}
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
        if self._said:
            self._said -= {(_BEGUN, seq), (_REPLIED, seq)}
        del self._seqs[place], self._sizes[place]
        return size

    def reaches(self, seq: int) -> bool:
        """Return whether anything up to a seq is in flight."""
        return len(self) > 0 and self.first <= seq

    def reply(self, seq: int) -> bool:
        """Note that a message is being answered. False if it is not in flight, or is being answered already."""
        return self._say(_REPLIED, seq)

    def begin(self, seq: int) -> bool:
        """Note that a worker begins a message. False if it is not in flight, or has begun already."""
        return self._say(_BEGUN, seq)

    def end(self, seq: int) -> bool:
        """Note that an attempt at a message has ended. False if none has begun."""
        if not self._said or (_BEGUN, seq) not in self._said:
            return False
        self._said.remove((_BEGUN, seq))
        return True

    def _say(self, what: str, seq: int) -> bool:
        if seq not in self or (self._said and (what, seq) in self._said):
            return False
        self._said = self._said or set()
        self._said.add((what, seq))
        return True
