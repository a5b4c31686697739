"""Wakes those who wait for what is new in the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from typing import Callable

_LINGER_SECONDS = 5.0


class Bell:
    """Rings for everybody who waits.

    Take `next` before you look at the ledger, and wait for it afterwards: what comes between the two is not missed.

    Args:
        now: a monotonic clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.next = asyncio.Event()
        self._now = now
        self._wanted_until = -math.inf

    @property
    def wanted(self) -> bool:
        """Whether somebody waits, or may do so again soon. Another thread may ask."""
        return self._now() < self._wanted_until

    def ring(self) -> None:
        """Wake everybody who waits."""
        rung, self.next = self.next, asyncio.Event()
        rung.set()

    async def heard(self, ringing: asyncio.Event, seconds: float) -> None:
        """Wait for a ringing, at most for `seconds`."""
        self._wanted_until = max(self._wanted_until, self._now() + seconds + _LINGER_SECONDS)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(ringing.wait(), seconds)
