"""When an agent that works through its messages is at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Callable, NamedTuple, Optional

ASK_SECONDS = 0.25
"""Seconds between two questions whether anything is pending."""


class Ends(NamedTuple):
    """When `AgentClient.run` ends by itself.

    Attributes:
        most: after how many messages; None for any number.
        idle_timeout: after how many seconds with nothing to do; None for any number.
        pending: returns how many messages are pending, to end at 0; None to go on.
    """

    most: Optional[int] = None
    idle_timeout: Optional[float] = None
    pending: Optional[Callable[[], Awaitable[int]]] = None


class EndWatch:
    """Tells, while no message comes, whether this is the end. Made in the event loop."""

    def __init__(self, ends: Ends) -> None:
        self._ends = ends
        self._loop = asyncio.get_running_loop()
        self.worked()

    def worked(self) -> None:
        """Note that there is or was something to do just now."""
        self._idle_since = self._loop.time()

    def patience(self) -> Optional[float]:
        """Return after how many seconds without a message to ask `is_over`; None for never."""
        if self._ends.pending is not None:
            return ASK_SECONDS
        if self._ends.idle_timeout is None:
            return None
        return max(0.001, self._idle_since + self._ends.idle_timeout - self._loop.time())

    async def is_over(self) -> bool:
        """Return whether it is the end, while there is nothing to do."""
        idle = self._loop.time() - self._idle_since
        if self._ends.idle_timeout is not None and idle >= self._ends.idle_timeout:
            return True
        return self._ends.pending is not None and not await self._ends.pending()
