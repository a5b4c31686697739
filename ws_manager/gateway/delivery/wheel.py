"""A timer wheel: things by when they are due. It costs what is due, however many things there are."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class Wheel(Generic[Item]):
    """Holds each item in the slot of the time when it is due. No IO: the caller passes the time in.

    Args:
        slot: the length of a slot in seconds. An item is given out at most this much too late, and never too early.
    """

    def __init__(self, slot: float) -> None:
        self._slot = slot
        self._slots: dict[int, set[Item]] = {}
        self._places: dict[Item, int] = {}

    def __len__(self) -> int:
        """Return how many items there are."""
        return len(self._places)

    def put(self, item: Item, at: float) -> None:
        """Have an item given out at a time, in seconds. If it is due earlier already, that stays."""
        place = math.ceil(at / self._slot)
        known = self._places.get(item)
        if known is not None:
            if known <= place:
                return
            self._slots[known].discard(item)
        self._places[item] = place
        self._slots.setdefault(place, set()).add(item)

    def discard(self, item: Item) -> None:
        """Remove an item, if it is there."""
        place = self._places.pop(item, None)
        if place is not None:
            self._slots[place].discard(item)

    def due(self, now: float) -> list[Item]:
        """Remove and return the items that are due at a time, the longest due first."""
        reached = math.floor(now / self._slot)
        found: list[Item] = []
        for place in sorted(place for place in self._slots if place <= reached):
            found += self._slots.pop(place)
        for item in found:
            del self._places[item]
        return found
