"""Wakes those who wait for what is new in the ledger."""

from __future__ import annotations

import asyncio
import contextlib


class Bell:
    """Rings for everybody who waits.

    Take `next` before you look at the ledger, and wait for it afterwards: what comes between the two is not missed.
    """

    def __init__(self) -> None:
        self.next = asyncio.Event()

    def ring(self) -> None:
        """Wake everybody who waits."""
        rung, self.next = self.next, asyncio.Event()
        rung.set()


async def heard(ringing: asyncio.Event, seconds: float) -> None:
    """Wait for the ringing, at most for `seconds`."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(ringing.wait(), seconds)
