"""A worker's tie to its parent: where to listen, what the quotas of all workers allow, and what role it has."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from typing import Any, Callable, Optional

from ws_manager.errors import GatewayUnavailable
from ws_manager.gateway.workers.channel import Channel
from ws_manager.gateway.workers.parent_quotas import ParentQuotas


class Worker:
    """One worker of a set.

    Attributes:
        number: of this worker, from 1.
        port: to listen on; the other workers listen on it too.
        parent: the parent's process id.
        leads: True if this worker does what one does for all: checkpoints, deleting old rows, and sweeping what
            workers held that have ended.
        quotas: of all workers together.
        settle: set it to what waits until every receipt so far is written.
        give_time: set it to what keeps lost connections for one more timeout.
        trouble: set it to what returns why this worker cannot serve; None if it can.
        counters: set it to what returns the counters of this process.
    """

    number: int
    port: int
    parent: int

    def __init__(self) -> None:
        self.leads = False
        self.settle: Callable[[], Awaitable[None]] = _nothing
        self.give_time: Callable[[], None] = lambda: None
        self.trouble: Callable[[], Optional[str]] = lambda: "it starts"
        self.counters: Callable[[], list[Any]] = list
        self._joined = asyncio.Event()
        self._channel = Channel(
            {
                "join": self._join,
                "lead": self._lead,
                "settle": lambda: self.settle(),
                "give_time": lambda: self.give_time(),
                "answer": lambda: True,
                "trouble": lambda: self.trouble(),
                "counters": lambda: self.counters(),
            }
        )
        self._running: Optional[asyncio.Task[None]] = None
        self.quotas = ParentQuotas(self._channel, lambda: self.settle())

    async def join(self, descriptor: int, ended: Callable[[], None]) -> None:
        """Meet the parent.

        Args:
            descriptor: of this worker's end of the socket pair.
            ended: called when the parent has ended.
        """
        await self._channel.open(socket.socket(fileno=descriptor))
        self._running = asyncio.ensure_future(self._channel.run())
        self._running.add_done_callback(lambda _running: ended())
        joined = asyncio.ensure_future(self._joined.wait())
        await asyncio.wait({joined, self._running}, return_when=asyncio.FIRST_COMPLETED)
        joined.cancel()

    def ready(self, urls: list[str]) -> None:
        """Tell the parent that connections are accepted, at these base addresses."""
        self._channel.tell("ready", urls)

    def waits(self, why: str) -> None:
        """Tell the parent that the start has to wait, and why."""
        self._channel.tell("waits", why)

    async def troubles(self) -> list[str]:
        """Return why workers cannot serve; nothing if all can."""
        try:
            return list(await self._channel.call("troubles"))
        except GatewayUnavailable as error:
            return [error.message]

    async def families(self) -> list[Any]:
        """Return the counters of each worker."""
        try:
            return list(await self._channel.call("families"))
        except GatewayUnavailable:
            return [self.counters()]

    def _join(self, number: int, port: int, parent: int) -> None:
        self.number, self.port, self.parent = number, port, parent
        self._joined.set()

    def _lead(self) -> None:
        self.leads = True


async def _nothing() -> None:
    pass
