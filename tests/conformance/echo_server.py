"""An echo server with the gateway's own socket settings, for a conformance suite: `echo_server.py`.

It prints its address once it accepts connections, and runs until it is ended.
"""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import WSMsgType, web

from ws_manager.gateway.http.handshake import new_websocket
from ws_manager.protocol.wire import pong_frame, text_frame

LARGEST_MESSAGE = 32 * 1024 * 1024
"""Bytes: the suite sends up to 16 MiB, and an agent's limit is not what it is about."""


async def echo(request: web.Request) -> web.StreamResponse:
    # aiohttp is told to read up to four times the argument.
    websocket = new_websocket(LARGEST_MESSAGE // 4)
    await websocket.prepare(request)
    transport = request.transport
    assert transport is not None
    while True:
        message = await websocket.receive()
        # Written as an agent's socket is: whole frames, by our own code where there is some.
        if message.type == WSMsgType.TEXT:
            transport.write(text_frame(message.data))
        elif message.type == WSMsgType.PING:
            transport.write(pong_frame(message.data))
        elif message.type == WSMsgType.BINARY:
            with contextlib.suppress(ConnectionError):
                await websocket.send_bytes(message.data)
        elif message.type != WSMsgType.PONG:
            # aiohttp has answered a close, or closed for an error, within `receive`.
            return websocket
        with contextlib.suppress(ConnectionError):
            await request.writer.drain()


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
