"""The quotas of all workers together, as a worker sees them: it asks its parent."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Awaitable
from typing import Any, Callable, Optional

from ws_manager.errors import GatewayUnavailable
from ws_manager.gateway.trouble import Trouble
from ws_manager.gateway.workers.channel import Channel, NoAnswer

_CHARGE_SECONDS = 1.0
"""How long the writing thread waits for an answer: it may hold the ledger's write lock."""

_MOST_REFUSED = 10_000


class ParentQuotas:
    """Asks the parent; see `Quotas`.

    Args:
        channel: to the parent.
        settle: waits until every receipt so far is written.
    """

    def __init__(self, channel: Channel, settle: Callable[[], Awaitable[None]]) -> None:
        self._channel = channel
        self._settle = settle
        self._loop = asyncio.get_running_loop()
        self._trouble = Trouble("ask the parent process")
        self._settling: set[asyncio.Task[None]] = set()
        # Until when what a key sends would be refused. Only the writing thread uses it.
        self._refused: dict[str, float] = {}

    def arrive(self, address: str) -> asyncio.Future[bool]:
        return self._channel.call("arrive", address)

    def depart(self, address: str) -> None:
        self._channel.tell("depart", address)

    async def check_address(self, address: str) -> None:
        await self._ask("check_address", address)

    async def enter(self, number: int, token: Optional[str], ws_id: Optional[str]) -> None:
        await self._ask("enter", number, token, ws_id)

    def name(self, number: int, ws_id: str) -> None:
        self._channel.tell("name", number, ws_id)

    def leave(self, number: int) -> None:
        self._channel.tell("leave", number)
        task = asyncio.ensure_future(self._forget(number))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    def count(self, token: Optional[str], address: Optional[str]) -> None:
        self._channel.tell("count", token, address)

    async def request(self, key: str) -> int:
        return int(await self._ask("request", key))

    def charge(self, key: str, cost: int) -> float:
        left = self._refused.get(key, 0.0) - time.monotonic()
        if left > 0:
            return left
        if not cost:
            # Whether anything may be sent, the charge itself will show.
            return 0.0
        # The writing thread waits; the loop that it asks never waits for the writing thread.
        asking = asyncio.run_coroutine_threadsafe(self._ask("charge", key, cost), self._loop)
        try:
            seconds = float(asking.result(_CHARGE_SECONDS))
        except concurrent.futures.TimeoutError:
            asking.cancel()
            raise GatewayUnavailable("the gateway cannot answer now", hint="try again") from None
        if seconds:
            if len(self._refused) >= _MOST_REFUSED:
                self._refused.clear()
            self._refused[key] = time.monotonic() + seconds
        return seconds

    async def _ask(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - a JSON value
        try:
            answer = await self._channel.call(name, *arguments)
        except NoAnswer as error:
            if self._channel.is_open:
                self._trouble.began(error)
            # Otherwise the parent has ended, and so does this worker, which says so.
            raise
        except GatewayUnavailable:
            self._trouble.ended()
            raise
        self._trouble.ended()
        return answer

    async def _forget(self, number: int) -> None:
        # Until then, a handshake in another worker waits for these receipts.
        await self._settle()
        self._channel.tell("forget", number)
