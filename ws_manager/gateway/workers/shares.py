"""What each worker uses of the quotas that its parent counts."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Awaitable
from typing import Optional

from ws_manager.errors import GatewayUnavailable
from ws_manager.gateway.own_quotas import OwnQuotas, subtract
from ws_manager.gateway.workers.channel import Channel, Handler


class Share:
    """What one worker process uses. It is released when the process ends.

    Args:
        quotas: of all workers together.
        holders: which worker has the socket of a ws_id or receipts of it that are not written yet, and by which
            handshake. All shares have the same.

    Attributes:
        channel: to the process; None while it does not run.
    """

    def __init__(self, quotas: OwnQuotas, holders: dict[str, tuple[Share, int]]) -> None:
        self.channel: Optional[Channel] = None
        self._quotas = quotas
        self._holders = holders
        self._connections: Counter[str] = Counter()
        self._entered: set[int] = set()
        self._held: dict[int, str] = {}

    def handlers(self) -> dict[str, Handler]:
        """Return what the worker may call: `Quotas`, and `forget`."""
        return {
            "arrive": self._arrive,
            "depart": self._depart,
            "check_address": functools.partial(self._quotas.check_rate, "address"),
            "enter": self._enter,
            "name": self._name,
            "leave": self._leave,
            "forget": self._forget,
            "count": self._quotas.count,
            "charge": self._quotas.charge,
            "request": self._quotas.take_request,
        }

    def release(self) -> None:
        """Stop counting all of it."""
        for address in list(self._connections.elements()):
            self._depart(address)
        for number in list(self._entered):
            self._leave(number)
        for number in list(self._held):
            self._forget(number)

    def _arrive(self, address: str) -> Awaitable[bool]:
        self._connections[address] += 1
        return self._quotas.arrive(address)

    def _depart(self, address: str) -> None:
        subtract(self._connections, address)
        self._quotas.depart(address)

    def _enter(self, number: int, token: Optional[str], ws_id: Optional[str]) -> Optional[Awaitable[None]]:
        self._quotas.admit((self, number), token, ws_id)
        self._entered.add(number)
        holder, _ = self._holders.get(ws_id or "", (self, number))
        # A registration voids the receipts of the one before it. In the same worker they are written first anyway.
        return None if holder is self else holder._settled()

    def _name(self, number: int, ws_id: str) -> None:
        self._quotas.name((self, number), ws_id)
        self._held[number] = ws_id
        self._holders[ws_id] = self, number

    def _leave(self, number: int) -> None:
        self._entered.discard(number)
        self._quotas.leave((self, number))

    def _forget(self, number: int) -> None:
        """Take note that the receipts of a handshake's socket, which has left, are all written."""
        ws_id = self._held.pop(number, None)
        if ws_id is not None and self._holders.get(ws_id) == (self, number):
            del self._holders[ws_id]

    async def _settled(self) -> None:
        """Wait until the worker has written the receipts that it has. A dead one has none.

        Raises:
            GatewayUnavailable: it does not answer.
        """
        channel = self.channel
        try:
            if channel is not None:
                await channel.call("settle")
        except GatewayUnavailable:
            if self.channel is channel:
                raise
