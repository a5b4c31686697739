"""Calls between a parent and one of its workers: JSON lines over a pair of sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Mapping
from typing import Any, Callable, Optional, Union

from ws_manager.errors import GatewayUnavailable
from ws_manager.gateway.quotas import OverQuota, TooFast

_log = logging.getLogger("ws_manager.gateway")

_ANSWER_SECONDS = 10.0
_LONGEST_LINE = 256 * 1024
_CANNOT, _HINT = "the gateway cannot answer now", "come back in a moment"

Handler = Callable[..., Union[bool, float, str, list[Any], Awaitable[Any], None]]
"""What a call runs: it takes JSON values. What it returns, or what that awaitable returns, is the answer."""


class Channel:
    """One end of the pair.

    Handlers are called in the order of the other end's calls, and the reading does not wait for their awaitables.

    Args:
        handlers: what the other end may call, by name.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._reader: Optional[asyncio.StreamReader] = None
        self._writer: Optional[asyncio.StreamWriter] = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._calls = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        """Whether the other end is there, as far as this one knows."""
        return self._writer is not None

    async def open(self, connection: socket.socket) -> None:
        """Take this end's socket. Calls can be made from now on."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=connection, limit=_LONGEST_LINE)

    async def run(self) -> None:
        """Take calls and answers until the other end closes, or its process ends; then close this end."""
        assert self._reader is not None and self._writer is not None
        try:
            # What a process that was killed has begun to write has no end.
            while (line := await self._reader.readline()).endswith(b"\n"):
                self._take(json.loads(line))
        except ConnectionError:
            # A process that is killed may leave what it did not read.
            pass
        finally:
            writer, self._writer = self._writer, None
            writer.close()
            for task in self._tasks:
                task.cancel()
            waiting, self._waiting = self._waiting, {}
            for answer in waiting.values():
                _fail(answer, _gone())

    def close(self) -> None:
        """Close this end: `run` returns."""
        if self._writer is not None:
            self._writer.close()

    def call(self, name: str, *arguments: object) -> asyncio.Future[Any]:
        """Call a handler of the other end, and return its answer.

        The answer is an error if it does not come in time or the other end has gone: `NoAnswer`, or what the handler
        raised.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        if self._writer is None:
            _fail(answer, _gone())
            return answer
        self._calls += 1
        number = self._calls
        self._waiting[number] = answer
        timer = loop.call_later(_ANSWER_SECONDS, _fail, answer, _gone())

        def answered(_answer: object) -> None:
            timer.cancel()
            self._waiting.pop(number, None)

        answer.add_done_callback(answered)
        self._send({"call": name, "arguments": arguments, "number": number})
        return answer

    def tell(self, name: str, *arguments: object) -> None:
        """Call a handler of the other end, without an answer. Nothing happens if the other end has gone."""
        self._send({"call": name, "arguments": arguments})

    def _send(self, message: dict[str, Any]) -> None:
        # The transport may have failed without `run` knowing yet. Then uvloop raises.
        if self._writer is not None and not self._writer.transport.is_closing():
            self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def _take(self, message: dict[str, Any]) -> None:
        number = message.get("number")
        if "call" in message:
            try:
                answer = self._handlers[message["call"]](*message["arguments"])
            except Exception as error:
                self._answer(number, error=error)
                return
            if isinstance(answer, Awaitable):
                task = asyncio.ensure_future(self._answer_later(number, answer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self._answer(number, answer)
            return
        waiting = self._waiting.get(number) if number is not None else None
        if waiting is None or waiting.done():
            return
        if "error" in message:
            waiting.set_exception(_error(message["error"]))
        else:
            waiting.set_result(message["answer"])

    async def _answer_later(self, number: Optional[int], answer: Awaitable[Any]) -> None:
        try:
            value = await answer
        except Exception as error:
            self._answer(number, error=error)
        else:
            self._answer(number, value)

    def _answer(
        self, number: Optional[int], value: object = None, *, error: Optional[Exception] = None
    ) -> None:
        if error is not None and not isinstance(error, GatewayUnavailable):
            _log.error("a call between the processes of this gateway failed", exc_info=error)
        if number is None:
            return
        if error is None:
            self._send({"number": number, "answer": value})
        else:
            self._send({"number": number, "error": _described(error)})


class NoAnswer(GatewayUnavailable):
    """The other end has gone, or does not answer in time. Another `GatewayUnavailable` is its answer."""


def _gone() -> NoAnswer:
    return NoAnswer(_CANNOT, hint=_HINT)


def _fail(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        # Whoever called may have gone.
        answer.exception()


def _described(error: Exception) -> dict[str, Any]:
    if not isinstance(error, OverQuota):
        return {}
    seconds = error.seconds if isinstance(error, TooFast) else None
    return {"message": error.message, "option": error.option, "seconds": seconds, "hint": error.hint}


def _error(described: dict[str, Any]) -> GatewayUnavailable:
    if not described:
        return GatewayUnavailable(_CANNOT, hint=_HINT)
    message, option, hint = described["message"], described["option"], described["hint"]
    if described["seconds"] is None:
        return OverQuota(message, option, hint=hint)
    return TooFast(message, option, described["seconds"], hint=hint)
