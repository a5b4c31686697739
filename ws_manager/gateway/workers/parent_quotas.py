"""The quotas of all workers together, as a worker sees them: it asks its parent."""

from __future__ import annotations

import asyncio
from typing import Any, Optional

from ws_manager.gateway.workers.channel import Channel


class ParentQuotas:
    """Asks the parent; see `Quotas`.

    Args:
        channel: to the parent.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()

    def arrive(self, address: str) -> asyncio.Future[bool]:
        allowed: asyncio.Future[bool] = self._loop.create_future()

        def answered(answer: asyncio.Future[Any]) -> None:
            if not allowed.done():
                allowed.set_result(answer.exception() is None and answer.result())

        self._channel.call("arrive", address).add_done_callback(answered)
        return allowed

    def depart(self, address: str) -> None:
        self._channel.tell("depart", address)

    async def check_address(self, address: str) -> None:
        await self._channel.call("check_address", address)

    async def enter(self, number: int, token: Optional[str], ws_id: Optional[str]) -> None:
        await self._channel.call("enter", number, token, ws_id)

    def name(self, number: int, ws_id: str) -> None:
        self._channel.tell("name", number, ws_id)

    def leave(self, number: int) -> None:
        self._channel.tell("leave", number)

    def count(self, token: Optional[str], address: Optional[str]) -> None:
        self._channel.tell("count", token, address)

    def charge(self, key: str, cost: int) -> float:
        async def ask() -> float:
            return float(await self._channel.call("charge", key, cost))

        # The writing thread waits; the loop that it asks never waits for the writing thread.
        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result()
