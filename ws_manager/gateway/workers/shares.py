"""What each worker uses of the quotas that its parent counts."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import Awaitable
from typing import Optional

from ws_manager.errors import GatewayUnavailable
from ws_manager.gateway.own_quotas import OwnQuotas
from ws_manager.gateway.workers.channel import Channel, Handler

_SETTLE_SECONDS = 1.0
"""How long a handshake waits for the receipts of the socket that it replaces."""


class Share:
    """What one worker process uses. It is released when the process ends.

    Args:
        quotas: of all workers together.
        holders: which worker holds a ws_id, and by which handshake; all shares have the same.
    """

    def __init__(self, quotas: OwnQuotas, holders: dict[str, tuple[Share, int]]) -> None:
        self._quotas = quotas
        self._holders = holders
        self._connections: Counter[str] = Counter()
        self._entered: dict[int, Optional[str]] = {}
        self.channel: Optional[Channel] = None

    def handlers(self) -> dict[str, Handler]:
        """Return what the worker may call; see `Quotas`."""
        return {
            "arrive": self._arrive,
            "depart": self._depart,
            "check_address": functools.partial(self._quotas.check_rate, "address"),
            "enter": self._enter,
            "name": self._name,
            "leave": self._leave,
            "count": self._quotas.count,
            "charge": self._quotas.charge,
        }

    def release(self) -> None:
        """Stop counting all of it."""
        for address in list(self._connections.elements()):
            self._depart(address)
        for number in list(self._entered):
            self._leave(number)

    def _arrive(self, address: str) -> Awaitable[bool]:
        self._connections[address] += 1
        return self._quotas.arrive(address)

    def _depart(self, address: str) -> None:
        self._connections[address] -= 1
        self._quotas.depart(address)

    def _enter(self, number: int, token: Optional[str], ws_id: Optional[str]) -> Optional[Awaitable[None]]:
        self._quotas.admit((self, number), token, ws_id)
        self._entered[number] = None
        if ws_id is None:
            return None
        before, _ = self._holders.get(ws_id, (self, number))
        self._take(number, ws_id)
        # A registration voids the receipts of the one before it. In the same worker they are written first anyway.
        return None if before is self else before._settled()

    def _name(self, number: int, ws_id: str) -> None:
        self._quotas.name((self, number), ws_id)
        self._take(number, ws_id)

    def _take(self, number: int, ws_id: str) -> None:
        self._entered[number] = ws_id
        self._holders[ws_id] = self, number

    def _leave(self, number: int) -> None:
        ws_id = self._entered.pop(number, None)
        self._quotas.leave((self, number))
        if ws_id is not None and self._holders.get(ws_id) == (self, number):
            del self._holders[ws_id]

    async def _settled(self) -> None:
        """Wait until the worker has written the receipts that it has."""
        if self.channel is not None:
            with contextlib.suppress(GatewayUnavailable, asyncio.TimeoutError):
                await asyncio.wait_for(self.channel.call("settle"), _SETTLE_SECONDS)
