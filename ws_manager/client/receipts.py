"""The receipts of one agent's messages, and the messages as its program gets them."""

from __future__ import annotations

from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Callable, Optional

from ws_manager.client.agent_requests import Requests
from ws_manager.protocol.agent_session import AgentSession
from ws_manager.protocol.ask_frames import reply_frame
from ws_manager.protocol.frames import Received


class Receipts:
    """Confirms and rejects messages.

    Args:
        session: knows which messages were handed out.
        write: writes a frame to the present socket; without one, it does nothing.
        on_dealt: called whenever a message is settled or fails.
        requests: of the same agent.
    """

    def __init__(
        self,
        session: AgentSession,
        write: Callable[[str], Awaitable[None]],
        on_dealt: Callable[[], None],
        requests: Requests,
    ) -> None:
        self._session = session
        self._requests = requests
        self._write = write
        self._on_dealt = on_dealt

    async def ack(self, message: Received) -> None:
        """Confirm a message: see `AgentSession.ack`."""
        self._session.ack(message)
        await self._dealt()

    async def reject(self, message: Received, reason: str) -> None:
        """Reject a message: see `AgentSession.reject`."""
        self._session.reject(message, reason)
        await self._dealt()

    async def reply(self, message: Received, content: object, timeout: Optional[float]) -> str:
        """Answer a message, and return the msg_id of the answer; see `AgentMessage.reply`."""
        self._session.hold(message)
        seq = self._session.seq(message)
        result = await self._requests.ask(lambda ref, *, key: reply_frame(ref, seq, content), None, timeout)
        self._session.replied(message)
        await self._dealt()
        return str(result.msg_id)

    async def confirm(self, message: Received) -> None:
        """Confirm a message alone: see `AgentSession.confirm`."""
        self._session.confirm(message)
        await self._dealt()

    async def drop(self, message: Received) -> None:
        """Let a message go that is settled without a receipt: see `AgentSession.drop`."""
        self._session.drop(message)
        await self._dealt()

    def seq(self, message: Received) -> int:
        """Return the present `seq` of a message: see `AgentSession.seq`."""
        return self._session.seq(message)

    def hold(self, message: Received) -> None:
        """Let only a message's own ack confirm it: see `AgentSession.hold`."""
        self._session.hold(message)

    def fail(self, message: Received) -> None:
        """Note that nobody is processing a held message any more: see `AgentSession.fail`."""
        self._session.fail(message)
        self._on_dealt()

    async def _dealt(self) -> None:
        self._on_dealt()
        await self.write()

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
    failed. If an exception leaves the block, it is passed on, and the message stays pending. Acks of later messages
    wait until the failed message is acked or rejected. A client with `max_attempts` reports the failure, and hands
    the message out again after a pause; another one hands it out again if it comes again after a reconnect. A message
    that was acked, rejected or answered within the block stays so.

    Attributes:
        attempt: the number of the attempt that has begun; None if the client does not count attempts.
    """

    # Not fields: `as_dict` gives those of the frame.
    __slots__ = ("_receipts", "_report", "attempt")

    def __init__(self, received: Received, receipts: Receipts) -> None:
        super().__init__(**vars(received))
        self.attempt: Optional[int] = None
        self._receipts = receipts
        self._report: Optional[Callable[[str], Awaitable[None]]] = None

    def form(self) -> dict[str, Any]:
        """Return the message by `ws_manager.forms.WIRE_FIELDS`; its content is `Json`, as it was received."""
        return {**self.as_dict(), "content": self.content_json}

    def begun(self, attempt: int, report: Callable[[str], Awaitable[None]]) -> None:
        """Note the number of an attempt that has begun, and what reports that its block has failed."""
        self.attempt, self._report = attempt, report

    async def reply(self, content: object, *, timeout: Optional[float] = None) -> str:
        """Answer a message that `wants_reply`, once, and return the msg_id of the answer once it is committed.

        This confirms the message, in the same transaction, and no other message. The request is written again after
        a reconnect until it is answered. Until then acks of later messages wait, also if this raises: then ack or
        reject the message.

        Args:
            content: any JSON value, or its text as `Json`.
            timeout: seconds after which to give up; None to wait for as long as the client stays.

        Raises:
            InvalidInput: the content cannot be accepted, or the message wants no answer.
            Conflict: it was answered otherwise, or set aside, or asked more than 24 hours ago.
            GatewayUnavailable: there was no result in time, or the client left before it: the answer may have been
                committed or not.
        """
        return await self._receipts.reply(self, content, timeout)

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
            return
        try:
            if self._report is not None:
                await self._report(kind.__name__)
        finally:
            self._receipts.fail(self)
