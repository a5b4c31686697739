"""`listen` as a printer: it writes messages to stdout, and confirms them itself or when stdin says so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine
from typing import Any, Callable, Optional, TypeVar

from ws_manager.cli.exit_codes import PartlyDone
from ws_manager.cli.output.messages import message_line
from ws_manager.cli.process.signals import stop_on_signals
from ws_manager.cli.process.stdin import stdin_lines
from ws_manager.cli.process.stream import Stop, Stream
from ws_manager.client.agent import AgentClient
from ws_manager.client.ends import Ends, EndWatch
from ws_manager.client.receipts import AgentMessage
from ws_manager.errors import InvalidInput
from ws_manager.strict_json import decode_json

_BATCH = 100
_LONGEST_LINE = 64 * 1024
Result = TypeVar("Result")


async def print_messages(
    client: AgentClient, form: str, ends: Ends, grace: float, *, confirms_from_stdin: bool
) -> None:
    """Print messages until it is to end, a signal comes, or the reader closes the pipe.

    Args:
        client: of the agent, not entered yet.
        form: what `stream_format` returned.
        ends: when to end without a signal.
        grace: seconds to wait for confirmations on stdin after the end.
        confirms_from_stdin: confirm what stdin names, and not what is printed.

    Raises:
        BrokenPipeError: the reader of the output has closed the pipe.
        WsManagerError: the gateway has closed, and the agent must not come back.
    """
    loop = asyncio.get_running_loop()
    with contextlib.closing(Stop()) as stop:
        stop_on_signals(stop.set)
        stream = Stream(stop)
        # A thread waits for the end, so that an idle agent uses no CPU.
        ended = loop.run_in_executor(None, stream.wait, None)
        try:
            if await _unless(ended, client.__aenter__()) is not None:
                printer = _Printer(client, stream, form, ends, ended)
                await (printer.confirmed_by_stdin(grace) if confirms_from_stdin else printer.run())
        finally:
            # Also while it was connecting: the connection may have been made in the last moment.
            await client.__aexit__(None, None, None)
            stop.set()
            await asyncio.gather(ended, return_exceptions=True)


class _Printer:
    """Prints messages. Each is flushed before it counts as printed."""

    def __init__(
        self, client: AgentClient, stream: Stream, form: str, ends: Ends, ended: asyncio.Future[None]
    ) -> None:
        self._client = client
        self._stream = stream
        self._form = form
        self._ends = ends
        self._ended = ended
        self._watch = EndWatch(ends)
        self._open = _Open(client)
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Print and confirm messages to the end."""
        await self._print_all(lambda message: None, self._client.ack)

    async def confirmed_by_stdin(self, grace: float) -> None:
        """Print messages to the end, and confirm those that stdin names.

        Raises:
            InvalidInput: a line is no confirmation.
            PartlyDone: not all that was printed is confirmed.
        """
        reading = asyncio.ensure_future(self._open.read_stdin())
        # Noted before it is written: stdin may confirm it at once.
        printing = asyncio.ensure_future(
            self._print_all(
                lambda message: self._loop.call_soon_threadsafe(self._open.add, message), self._open.keep
            )
        )
        try:
            await asyncio.wait({printing, reading}, return_when=asyncio.FIRST_COMPLETED)
            if printing.done():
                printing.result()
                confirmed = asyncio.ensure_future(self._open.until_none())
                waiting: set[asyncio.Future[Any]] = {reading, confirmed}
                await asyncio.wait({*waiting, self._ended}, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait(waiting, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
                confirmed.cancel()
            if reading.done():
                reading.result()
        finally:
            for task in (reading, printing):
                task.cancel()
            await asyncio.wait({reading, printing})
        if self._open:
            raise PartlyDone(
                f"{len(self._open)} printed message(s) are not confirmed",
                hint="they are pending, and come again to the next one that listens",
            )

    async def _print_all(
        self, before: Callable[[AgentMessage], object], after: Callable[[AgentMessage], Awaitable[None]]
    ) -> None:
        """Print to the end.

        Args:
            before: called in another thread before each message is written.
            after: called with the last message that was written, of each batch.
        """
        left = self._ends.most
        while left != 0:
            messages = await self._next(_BATCH if left is None else min(left, _BATCH))
            if messages is None:
                return
            written: list[AgentMessage] = []
            try:
                # In a thread: the reader of the pipe may be slow, and the event loop has to answer Pings.
                await self._loop.run_in_executor(None, self._print, messages, before, written)
            finally:
                if written:
                    await after(written[-1])
            if self._stream.stopped:
                return
            left = None if left is None else left - len(messages)
            self._watch.worked()

    async def _next(self, limit: int) -> Optional[list[AgentMessage]]:
        """Wait for messages; return None at the end."""
        coming = asyncio.ensure_future(self._client.batch(limit))
        both: set[asyncio.Future[Any]] = {coming, self._ended}
        try:
            while True:
                await asyncio.wait(both, timeout=self._watch.patience(), return_when=asyncio.FIRST_COMPLETED)
                if self._ended.done():
                    self._ended.result()
                    return None
                if coming.done():
                    return coming.result()
                if self._open:
                    self._watch.worked()
                elif await self._watch.is_over():
                    return None
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)

    def _print(
        self,
        messages: list[AgentMessage],
        before: Callable[[AgentMessage], object],
        written: list[AgentMessage],
    ) -> None:
        """Print messages until a signal comes, and add to `written` those that were."""
        for message in messages:
            before(message)
            fields = message.form()
            line = message_line(fields, self._form) + "\n"
            if self._stream.stopped or not self._stream.write(line):
                return
            written.append(message)


class _Open:
    """Messages that are printed and that stdin has not confirmed yet."""

    def __init__(self, client: AgentClient) -> None:
        self._client = client
        self._messages: dict[int, AgentMessage] = {}
        self._last_seq = -1
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: AgentMessage) -> None:
        """Note that a message is about to be printed."""
        self._messages[message.seq] = message
        self._last_seq = message.seq

    async def keep(self, last: AgentMessage) -> None:
        """Forget what was not printed after all, behind the last that was."""
        for seq in [seq for seq in self._messages if seq > last.seq]:
            del self._messages[seq]

    async def until_none(self) -> None:
        """Wait until all are confirmed."""
        while self._messages:
            self._changed.clear()
            await self._changed.wait()

    async def read_stdin(self) -> None:
        """Confirm what stdin names, to its end.

        Raises:
            InvalidInput: a line is no confirmation.
        """
        async for line in stdin_lines(_LONGEST_LINE):
            if line.strip():
                await self._take(line)

    async def _take(self, line: bytes) -> None:
        try:
            form = decode_json(line.decode("utf-8"), "confirmation")
        except UnicodeDecodeError:
            raise _unusable("not UTF-8") from None
        known = isinstance(form, dict) and set(form) in ({"ack"}, {"reject"}, {"reject", "reason"})
        seq = form.get("ack", form.get("reject")) if known else None
        reason = form.get("reason", "") if known else None
        if isinstance(seq, bool) or not isinstance(seq, int) or not isinstance(reason, str):
            raise _unusable("neither of the two forms")
        if seq > self._last_seq:
            raise _unusable(f"no message {seq} was printed")
        message = self._messages.get(seq)
        if message is None:
            # It is confirmed already, by a later ack for example.
            return
        if "reject" in form:
            del self._messages[seq]
            await self._client.reject(message, reason)
        else:
            for each in [each for each in self._messages if each <= seq]:
                del self._messages[each]
            await self._client.ack(message)
        self._changed.set()


def _unusable(why: str) -> InvalidInput:
    return InvalidInput(
        f"a line of stdin is no confirmation: {why}",
        hint='write {"ack":<seq>} or {"reject":<seq>,"reason":"…"}, one per line',
    )


async def _unless(ended: asyncio.Future[None], work: Coroutine[Any, Any, Result]) -> Optional[Result]:
    """Return the result of `work`, or None if `ended` is done first; raise the exception of either."""
    working = asyncio.ensure_future(work)
    both: set[asyncio.Future[Any]] = {working, ended}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()
            return None
        return working.result()
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
