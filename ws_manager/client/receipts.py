"""The receipts of one agent's messages, and the messages as its program gets them."""

from __future__ import annotations

from collections.abc import Awaitable
from types import TracebackType
from typing import Callable, Optional

from ws_manager.protocol.agent_session import AgentSession
from ws_manager.protocol.frames import Received


class Receipts:
    """Confirms and rejects messages.

    Args:
        session: knows which messages were handed out.
        write: writes a frame to the present socket; without one, it does nothing.
        on_dealt: called whenever a message is settled or fails.
    """

    def __init__(
        self, session: AgentSession, write: Callable[[str], Awaitable[None]], on_dealt: Callable[[], None]
    ) -> None:
        self._session = session
        self._write = write
        self._on_dealt = on_dealt

    async def ack(self, message: Received) -> None:
        """Confirm a message: see `AgentSession.ack`."""
        self._session.ack(message)
        self._on_dealt()
        await self.write()

    async def reject(self, message: Received, reason: str) -> None:
        """Reject a message: see `AgentSession.reject`."""
        self._session.reject(message, reason)
        self._on_dealt()
        await self.write()

    def hold(self, message: Received) -> None:
        """Let only a message's own ack confirm it: see `AgentSession.hold`."""
        self._session.hold(message)

    def fail(self, message: Received) -> None:
        """Note that nobody is processing a held message any more: see `AgentSession.fail`."""
        self._session.fail(message)
        self._on_dealt()

    async def write(self) -> None:
        """Write the frames that the session has ready."""
        answers = self._session.take_answers()
        try:
            while answers:
                # If the connection is lost meanwhile: what was not confirmed comes again.
                await self._write(answers.pop(0))
        finally:
            # Left over after a cancellation: they go out with the next.
            self._session.answers[:0] = answers


class AgentMessage(Received):
    """A message that an `AgentClient` has received.

    As an async context manager it confirms itself::

        async with message:
            await process(message.content)

    Leaving the block confirms the message, and every earlier one that is neither in a block of its own nor
    failed. If an exception leaves the block, it is passed on, and the message stays pending: agent protocol v1 has no
    frame that reports the failure, so the gateway is not told. Acks of later messages wait until the failed message
    is acked or rejected. If it comes again after a reconnect, it is handed out again. A message that was acked
    or rejected within the block stays so.
    """

    # Not fields: `as_dict` gives those of the frame.
    __slots__ = ("_receipts",)

    def __init__(self, received: Received, receipts: Receipts) -> None:
        super().__init__(**vars(received))
        self._receipts = receipts

    async def __aenter__(self) -> AgentMessage:
        """Let no ack of a later message confirm this one."""
        self._receipts.hold(self)
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Confirm the message, unless an exception leaves the block."""
        if kind is None:
            await self._receipts.ack(self)
        else:
            self._receipts.fail(self)
