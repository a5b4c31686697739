"""One timer of the event loop for all that waits a short time. Nothing runs while nothing waits."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Callable, Generic, Optional, TypeVar

from ws_manager.gateway.delivery.wheel import Wheel

_LOOK_SECONDS = 0.005

Item = TypeVar("Item", bound=Hashable)


class Alarm(Generic[Item]):
    """Calls for each item once its time has come: never too early, and at most 10 ms too late in an idle loop.

    Args:
        now: a monotonic clock, in seconds.
        ring: called with each item that is due. It may put items in again, and raises nothing.
    """

    def __init__(self, now: Callable[[], float], ring: Callable[[Item], None]) -> None:
        self._now = now
        self._ring = ring
        self._wheel: Wheel[Item] = Wheel(_LOOK_SECONDS)
        self._timer: Optional[asyncio.TimerHandle] = None

    @property
    def runs(self) -> bool:
        """True while the event loop has a timer of it: that is while something waits."""
        return self._timer is not None

    def put(self, item: Item, at: float) -> None:
        """Have an item called for at a time of the clock. If it is due earlier already, that stays."""
        self._wheel.put(item, at)
        if self._timer is None:
            self._look_again()

    def discard(self, item: Item) -> None:
        """Remove an item, if it is there."""
        self._wheel.discard(item)
        if self._timer is not None and not self._wheel:
            self._timer.cancel()
            self._timer = None

    def _look_again(self) -> None:
        # Not at the time of the first item: waits are short, so nearly every look finds something.
        self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        for item in self._wheel.due(self._now()):
            self._ring(item)
        if self._wheel and self._timer is None:
            self._look_again()
