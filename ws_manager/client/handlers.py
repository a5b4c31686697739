"""Handlers of messages: which function takes which, how many run at once, and what is confirmed when."""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
from collections import deque
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from typing import Callable, Optional, TypeVar, Union

from ws_manager.client.attempts import HandlerAttempts, LedgerAttempts
from ws_manager.client.ends import Ends, EndWatch
from ws_manager.client.receipts import AgentMessage, Receipts
from ws_manager.client.worker import failure_line, pause_after
from ws_manager.errors import InvalidInput

DEFAULT_ATTEMPTS = 3
"""Attempts at a message, if neither the handler nor the client says how many."""

HandlerFunction = Callable[[AgentMessage], Awaitable[object]]
Function = TypeVar("Function", bound=HandlerFunction)
Batch = Callable[[int], Awaitable[list[AgentMessage]]]

_log = logging.getLogger("ws_manager.client")


class MessageRejected(Exception):
    """Raised by a handler: the message is rejected at once, with the exception's text as the reason."""


class AttemptFailed(Exception):
    """Raised by a handler: the attempt has failed, with the exception's text as the reason.

    Of other exceptions, the reason is the name of the type: their texts may quote the content.

    Args:
        reason: what the ledger keeps.
        pause: the least number of seconds before the next attempt.
    """

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


@dataclass
class _Handler:
    """A function, what it is for, and its messages that wait for a turn."""

    function: HandlerFunction
    concurrency: int
    attempts: Optional[int]
    running: int = 0
    waiting: deque[AgentMessage] = field(default_factory=deque)


class Handlers:
    """The functions that take an agent's messages, by the types of the messages.

    Args:
        attempts: counts the attempts in the ledger; None to count them here.
    """

    def __init__(self, attempts: Optional[LedgerAttempts]) -> None:
        self._attempts = attempts
        self._handlers: dict[Optional[str], _Handler] = {}
        self._running = False

    def add(
        self, function: Function, *, msg_type: Optional[str], concurrency: int, attempts: Optional[int]
    ) -> Function:
        """Add a handler, and return it: see `AgentClient.on`."""
        if msg_type is not None and not isinstance(msg_type, str):
            raise InvalidInput("on() takes a message type", hint="with @client.on() it is one of every type")
        name = getattr(function, "__name__", type(function).__name__)
        if not any(map(inspect.iscoroutinefunction, (function, getattr(type(function), "__call__", None)))):  # noqa: B004
            raise InvalidInput(
                f"a handler is an async function, and {name} is not",
                hint="write `async def`, and give work that blocks to asyncio.to_thread or an executor",
            )
        if attempts is not None and self._attempts is not None:
            raise InvalidInput(
                "the client has max_attempts", hint="leave out attempts: the ledger counts them"
            )
        for what, number in (("concurrency", concurrency), ("attempts", 1 if attempts is None else attempts)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise InvalidInput(f"{what} is a number from 1 on: {number!r}")
        if msg_type in self._handlers:
            which = "messages of any other type" if msg_type is None else f"messages of type {msg_type!r}"
            raise InvalidInput(f"there is a handler for {which} already")
        self._handlers[msg_type] = _Handler(function, concurrency, attempts)
        return function

    async def run(
        self, batch: Batch, receipts: Receipts, jitter: Callable[[], float], grace: float, ends: Ends
    ) -> None:
        """Handle messages: see `AgentClient.run`."""
        if not self._handlers or self._running:
            raise InvalidInput("run() is running already" if self._running else "there is no handler to run")
        self._running = True
        try:
            await _Dispatcher(self, receipts, jitter).run(batch, grace, ends)
        finally:
            self._running = False

    def __iter__(self) -> Iterator[_Handler]:
        return iter(self._handlers.values())

    def of(self, msg_type: str) -> Optional[_Handler]:
        """Return the handler for messages of a type; None if there is none."""
        return self._handlers.get(msg_type) or self._handlers.get(None)

    def attempts(self, handler: _Handler, receipts: Receipts) -> Union[LedgerAttempts, HandlerAttempts]:
        """Return what counts the attempts of a handler at its next message."""
        return self._attempts or HandlerAttempts(receipts, handler.attempts or DEFAULT_ATTEMPTS)


class _Dispatcher:
    """Gives messages to handlers.

    Every message is held from its arrival on, so that acks are written up to the first unfinished message, whatever
    the order is in which the messages are finished.

    Args:
        handlers: the handlers.
        receipts: of the same agent.
        jitter: a function that returns a number from 0 to 1.
    """

    def __init__(self, handlers: Handlers, receipts: Receipts, jitter: Callable[[], float]) -> None:
        self._handlers = handlers
        self._receipts = receipts
        self._jitter = jitter
        self._tasks: set[asyncio.Task[None]] = set()
        # Ids of the messages that wait or are handled.
        self._taken: set[str] = set()
        loop = asyncio.get_running_loop()
        # Done when nothing new is begun any more.
        self._stopping: asyncio.Future[None] = loop.create_future()
        # Gets the exception of a defect of ours.
        self._broken: asyncio.Future[None] = loop.create_future()
        self._out_of_time = False
        self._watch = EndWatch(Ends())

    async def run(self, batch: Batch, grace: float, ends: Ends) -> None:
        """Handle messages until `batch` raises, or this is cancelled; then let the running handlers finish.

        Args:
            batch: `AgentClient.batch`.
            grace: seconds for which the running handlers may go on. After that, or when this is cancelled again, they
                are cancelled.
            ends: when to end otherwise, once everything that was taken is dealt with.

        Raises:
            WsManagerError: what `batch` raises.
        """
        reading = asyncio.ensure_future(self._read(batch, ends))
        try:
            await asyncio.wait({reading, self._broken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reading.cancel()
            await self._finish(grace)
        for ended in (self._broken, reading):
            if ended.done():
                ended.result()

    async def _read(self, batch: Batch, ends: Ends) -> None:
        taken = 0
        watch = self._watch = EndWatch(ends)
        while taken != ends.most:
            # A cancellation never comes between taking a message and placing it.
            placing = asyncio.ensure_future(self._place(batch))
            over = False
            try:
                while not placing.done() and not over:
                    await asyncio.wait({placing}, timeout=watch.patience())
                    if self._tasks:
                        watch.worked()
                    over = not placing.done() and not self._tasks and await watch.is_over()
            finally:
                placing.cancel()
                await asyncio.wait({placing})
            if placing.cancelled():
                break
            taken += placing.result()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _place(self, batch: Batch) -> int:
        """Give the next message to its handler; return 1, or 0 for one that it has already."""
        (message,) = await batch(1)
        self._receipts.hold(message)
        if message.msg_id in self._taken:
            # A block in its handler has failed, and it came again before the handler has ended.
            return 0
        handler = self._handlers.of(message.msg_type)
        if handler is None:
            await self._receipts.reject(message, f"no handler for messages of type {message.msg_type!r}")
        else:
            # The gateway bounds how many wait: it sends no more than it may have unconfirmed.
            self._taken.add(message.msg_id)
            handler.waiting.append(message)
            self._begin(handler)
        return 1

    def _begin(self, handler: _Handler) -> None:
        while handler.waiting and handler.running < handler.concurrency:
            handler.running += 1
            task = asyncio.ensure_future(self._handle(handler, handler.waiting.popleft()))
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._ended(handler, done))

    def _ended(self, handler: _Handler, task: asyncio.Task[None]) -> None:
        handler.running -= 1
        self._tasks.discard(task)
        self._watch.worked()
        if not task.cancelled():
            error = task.exception()
            if error is not None and not self._broken.done():
                self._broken.set_exception(error)
        self._begin(handler)

    async def _handle(self, handler: _Handler, message: AgentMessage) -> None:
        attempts = self._handlers.attempts(handler, self._receipts)
        try:
            while not self._stopping.done():
                number = await attempts.begin(message)
                if number is None:
                    return
                message.attempt = number
                error = await self._try(handler, message)
                if error is None:
                    await self._receipts.ack(message)
                    return
                if isinstance(error, MessageRejected):
                    await self._receipts.reject(message, str(error))
                    return
                self._tell(message, error, attempts.most)
                reason = str(error) if isinstance(error, AttemptFailed) else type(error).__name__
                if await attempts.fail(message, reason):
                    return
                pause = max(pause_after(number, self._jitter), getattr(error, "pause", 0.0))
                await asyncio.wait({self._stopping}, timeout=pause)
        finally:
            # Pending, unless it is settled.
            self._receipts.fail(message)
            self._taken.discard(message.msg_id)

    async def _try(self, handler: _Handler, message: AgentMessage) -> Optional[BaseException]:
        """Return what the handler has raised; None if it has finished."""
        try:
            await handler.function(message)
        except asyncio.CancelledError as error:
            if self._out_of_time:
                raise
            # Of something that the handler has waited for.
            return error
        except Exception as error:
            return error
        return None

    def _tell(self, message: AgentMessage, error: BaseException, most: int) -> None:
        if isinstance(error, AttemptFailed):
            _log.error("%s", failure_line(message.msg_id, message.attempt or 1, most, str(error)))
            return
        # Neither the exception's text nor a traceback with it: they may quote the content.
        place = traceback.extract_tb(error.__traceback__)[-1]
        _log.error(
            "message %s: attempt %d of %d failed: the handler raised %s at %s:%d",
            message.msg_id,
            message.attempt,
            most,
            type(error).__name__,
            place.filename,
            place.lineno or 0,
        )

    async def _finish(self, grace: float) -> None:
        if not self._stopping.done():
            self._stopping.set_result(None)
        for handler in self._handlers:
            while handler.waiting:
                self._receipts.fail(handler.waiting.popleft())
        try:
            if self._tasks:
                await asyncio.wait(set(self._tasks), timeout=grace)
        finally:
            self._out_of_time = True
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(set(self._tasks))
