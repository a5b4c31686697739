"""Attempts at messages: counted in the ledger for a client with `max_attempts`, otherwise by its handlers alone."""

from __future__ import annotations

from typing import Optional

from ws_manager.client.agent_requests import Requests
from ws_manager.client.receipts import Receipts
from ws_manager.errors import Conflict
from ws_manager.protocol.attempt_frames import failed_frame, started_frame
from ws_manager.protocol.frames import Received


class LedgerAttempts:
    """Tells the gateway of each attempt: see `ws_manager.core.attempts`.

    Args:
        requests: of the agent.
        receipts: of the same agent.
        most: the client's `max_attempts`.
    """

    def __init__(self, requests: Requests, receipts: Receipts, most: int) -> None:
        self.most = most
        self._requests = requests
        self._receipts = receipts

    async def begin(self, message: Received) -> Optional[int]:
        """Return the number of the attempt once it is committed; None if the message is settled already.

        Raises:
            WsManagerError: the client has ended.
        """
        seq = self._receipts.seq(message)
        try:
            result = await self._requests.ask(lambda ref, *, key: started_frame(ref, seq), None, None)
        except Conflict:
            await self._receipts.drop(message)
            return None
        return result.attempt

    async def fail(self, message: Received, reason: str) -> bool:
        """Report that the attempt has failed, and return whether it was the last: the message is set aside then.

        Raises:
            WsManagerError: the client has ended.
        """
        seq = self._receipts.seq(message)
        try:
            result = await self._requests.ask(lambda ref, *, key: failed_frame(ref, seq, reason), None, None)
        except Conflict:
            # It is counted, and the result was lost. Whether it was the last shows when the next one begins.
            return False
        if result.set_aside:
            await self._receipts.drop(message)
        return result.set_aside


class HandlerAttempts:
    """Counts the attempts of one handler at one message, and rejects the message after the last.

    Args:
        receipts: of the agent.
        most: the number of attempts.
    """

    def __init__(self, receipts: Receipts, most: int) -> None:
        self.most = most
        self._receipts = receipts
        self._number = 0

    async def begin(self, message: Received) -> Optional[int]:
        """Return the number of the attempt."""
        self._number += 1
        return self._number

    async def fail(self, message: Received, reason: str) -> bool:
        """Return whether the attempt was the last: the message is rejected then."""
        if self._number < self.most:
            return False
        await self._receipts.reject(message, reason)
        return True
