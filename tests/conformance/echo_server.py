"""An echo server that reads and writes frames with the gateway's code, for a conformance suite: `echo_server.py`.

It prints its address once it accepts connections, and runs until it is ended.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from aiohttp import web

from ws_manager.gateway.http.handshake import switched
from ws_manager.protocol.frame_reader import FrameReader
from ws_manager.protocol.wire import BINARY, CLOSE, PING, TEXT, close_frame, frame, pong_frame, text_frame

LARGEST_MESSAGE = 32 * 1024 * 1024
"""Bytes: the suite sends up to 16 MiB, and an agent's limit is not what it is about."""


class Echo:
    """One socket. It takes received bytes from aiohttp as a parser of aiohttp's would."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self._transport = transport
        self._reader = FrameReader(LARGEST_MESSAGE)

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        for received in self._reader.read(data):
            if received.opcode == TEXT:
                self._transport.write(text_frame(received.text.encode()))
            elif received.opcode == BINARY:
                self._transport.write(frame(BINARY, received.payload))
            elif received.opcode == PING:
                self._transport.write(pong_frame(received.payload))
            elif received.opcode == CLOSE:
                self._end(close_frame(received.code))
        if self._reader.violation is not None:
            self._end(close_frame(*self._reader.violation))
        return False, b""

    def feed_eof(self) -> None:
        self._end(b"")

    def _end(self, last: bytes) -> None:
        if not self.ended.done():
            self._transport.write(last)
            self.ended.set_result(None)


async def echo(request: web.Request) -> web.StreamResponse:
    answer = switched(request)
    await answer.prepare(request)
    assert request.transport is not None
    socket = Echo(request.transport)
    request.protocol.set_parser(cast(Any, socket))
    await socket.ended
    return answer


async def main() -> None:
    application = web.Application()
    application.router.add_get("/", echo)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    print(f"ws://{host}:{port}/", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
