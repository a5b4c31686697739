"""The messages that an agent has received and not yet handed to its program."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import Callable, Optional

from ws_manager.client.attempts import LedgerAttempts
from ws_manager.client.receipts import AgentMessage, Receipts
from ws_manager.client.worker import pause_after
from ws_manager.protocol.agent_session import AgentSession
from ws_manager.protocol.frames import Received


class Inbox:
    """Received messages, in order, until the program takes them.

    Args:
        session: knows which messages were handed out.
        receipts: of the same agent.
        attempts: tells the gateway of each attempt; None if attempts are not counted.
        jitter: a function that returns a number from 0 to 1.
        clock: seconds that only grow.
        unready: with what waiting ends before `open` is called.
    """

    def __init__(
        self,
        session: AgentSession,
        receipts: Receipts,
        attempts: Optional[LedgerAttempts],
        jitter: Callable[[], float],
        clock: Callable[[], float],
        unready: Exception,
    ) -> None:
        self._session = session
        self._receipts = receipts
        self._attempts = attempts
        self._jitter = jitter
        self._clock = clock
        self._messages: deque[Received] = deque()
        # Those that have failed, each with the time from which on it is handed out again.
        self._failed: deque[tuple[float, AgentMessage]] = deque()
        self._ended: Optional[Exception] = unready

    def open(self) -> None:
        """Let the program wait for messages from now on."""
        # Before Python 3.10 an Event belongs to the loop in which it is made.
        self._arrived = asyncio.Event()
        self._ended = None

    def end(self, error: Exception) -> None:
        """Let whoever waits for a message get an error, once everything received is taken. The first one counts."""
        self._ended = self._ended or error
        self._arrived.set()

    def put(self, message: Received) -> None:
        """Add a message."""
        self._messages.append(message)
        self._arrived.set()

    def clear(self) -> None:
        """Remove all messages, because there is a new socket: everything that is not settled comes again."""
        self._messages.clear()
        self._failed.clear()

    async def begun(self, limit: int) -> list[AgentMessage]:
        """Wait for messages, and return at most `limit`; if attempts are counted, one at each of them has begun.

        Raises:
            WsManagerError: the client has ended.
        """
        if self._attempts is None:
            return await self.take(limit)
        given: list[AgentMessage] = []
        while not given:
            given = [each for each in await self._next(limit) if await self._begin(self._attempts, each)]
        return given

    async def take(self, limit: int) -> list[AgentMessage]:
        """Wait for messages, and return at most `limit`, without an attempt at them. Errors are those of `begun`."""
        given: list[AgentMessage] = []
        while not given:
            await self._arrival(lambda: self._messages)
            given = self._hand_out(limit)
        return given

    async def _next(self, limit: int) -> list[AgentMessage]:
        """Wait for messages to begin. One that has failed comes before those that were sent after it."""
        while True:
            await self._arrival(lambda: self._messages or self._failed)
            if not self._failed:
                return self._hand_out(limit)
            await asyncio.sleep(self._failed[0][0] - self._clock())
            if self._failed:
                return [self._failed.popleft()[1]]

    async def _arrival(self, condition: Callable[[], object]) -> None:
        # Yield to other tasks: if messages keep coming, nothing below waits.
        await asyncio.sleep(0)
        while not condition():
            if self._ended is not None:
                raise self._ended
            self._arrived.clear()
            await self._arrived.wait()

    def _hand_out(self, limit: int) -> list[AgentMessage]:
        taken = [self._messages.popleft() for _ in range(min(limit, len(self._messages)))]
        return [AgentMessage(each, self._receipts) for each in taken if self._session.handed_out(each)]

    async def _begin(self, attempts: LedgerAttempts, message: AgentMessage) -> bool:
        """Begin an attempt; return False if the message is settled already."""
        self._receipts.hold(message)
        try:
            attempt = await attempts.begin(message)
        except BaseException:
            self._receipts.fail(message)
            raise
        if attempt is not None:
            message.begun(attempt, partial(self._report, attempts, message, attempt))
        return attempt is not None

    async def _report(
        self, attempts: LedgerAttempts, message: AgentMessage, attempt: int, reason: str
    ) -> None:
        if not await attempts.fail(message, reason):
            self._failed.append((self._clock() + pause_after(attempt, self._jitter), message))
            self._arrived.set()
