"""What an agent asks: requests whose answers come as messages."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, Callable, Optional

from ws_manager.client.agent_requests import Requests
from ws_manager.client.receipts import AgentMessage, Receipts
from ws_manager.errors import NoAnswer
from ws_manager.protocol.frames import Received, Result
from ws_manager.protocol.request_frames import send_frame


class Asks:
    """The asks of one agent that wait for their answers.

    Args:
        requests: of the agent.
        receipts: of the same agent.
        hand_on: takes a message that is not the answer to one of them.
    """

    def __init__(self, requests: Requests, receipts: Receipts, hand_on: Callable[[Received], None]) -> None:
        self._requests = requests
        self._receipts = receipts
        self._hand_on = hand_on
        # What waits for the answer to an ask, by its msg_id.
        self._waiting: dict[str, list[asyncio.Future[Received]]] = {}
        # How many asks have no msg_id yet, and the answers that have come meanwhile: one may be theirs.
        self._unnamed = 0
        self._early: dict[str, Received] = {}

    async def ask(
        self,
        to: str,
        content: object,
        msg_type: str,
        key: Optional[str],
        traceparent: Optional[str],
        timeout: Optional[float],
    ) -> AgentMessage:
        """Ask, and return the answer, confirmed. The rest is as in `AgentClient.ask`."""
        frame = partial(
            send_frame, to=to, content=content, msg_type=msg_type, traceparent=traceparent, kind="ask"
        )
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        msg_id, answered = await self._commit(self._requests.ask(frame, key, timeout))
        try:
            await asyncio.wait({answered}, timeout=None if until is None else max(0.0, until - loop.time()))
            if not answered.done():
                raise NoAnswer(
                    f"no answer within {timeout:g} s to message {msg_id}",
                    hint="an answer that comes later is handed out as a message",
                )
            answer = answered.result()
        except BaseException:
            self._stop_waiting(msg_id, answered)
            raise
        await self._receipts.confirm(answer)
        return AgentMessage(answer, self._receipts)

    def take(self, message: Received) -> None:
        """Take a message that has come: the answer to an ask that waits for it, or one to hand on."""
        waiting = [] if message.reply_to is None else self._waiting.pop(message.reply_to, [])
        for answered in waiting:
            answered.set_result(message)
        if waiting:
            return
        if message.reply_to is not None and self._unnamed:
            self._early[message.reply_to] = message
        else:
            self._hand_on(message)

    def clear(self) -> None:
        """Forget the messages that nobody has got yet, because there is a new socket: they come again."""
        self._early.clear()

    def end(self, error: Exception) -> None:
        """Let every ask that waits for its answer end with an error."""
        waiting, self._waiting = self._waiting, {}
        for answered in (each for several in waiting.values() for each in several):
            answered.set_exception(error)

    async def _commit(self, asking: Coroutine[Any, Any, Result]) -> tuple[str, asyncio.Future[Received]]:
        """Wait until an ask is committed, and return its msg_id, and what becomes its answer."""
        self._unnamed += 1
        try:
            msg_id = str((await asking).msg_id)
            # The client may have left in the moment after the result came: no answer will come.
            if self._requests.ended is not None:
                raise self._requests.ended
            answered: asyncio.Future[Received] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(msg_id, []).append(answered)
            early = self._early.pop(msg_id, None)
            if early is not None:
                self.take(early)
        finally:
            self._unnamed -= 1
            if not self._unnamed:
                others, self._early = self._early, {}
                for each in others.values():
                    self._hand_on(each)
        return msg_id, answered

    def _stop_waiting(self, msg_id: str, answered: asyncio.Future[Received]) -> None:
        """Wait no more; an answer that has come at this moment is handed on."""
        if not answered.done():
            others = [each for each in self._waiting.pop(msg_id) if each is not answered]
            if others:
                self._waiting[msg_id] = others
        elif answered.exception() is None:
            self._hand_on(answered.result())
