"""python-socketio: says on stdout where it listens, and sends each line of stdin to all of its clients."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from importlib.metadata import version

import socketio
import uvicorn
import uvloop


async def main() -> None:
    server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"])
    config = uvicorn.Config(socketio.ASGIApp(server), log_level="warning", lifespan="off")
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    name = f"python-socketio {version('python-socketio')} on uvicorn and uvloop"
    print(json.dumps({"port": listening.getsockname()[1], "name": name}), flush=True)
    serving = asyncio.create_task(uvicorn.Server(config).serve([listening]))
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        await server.emit("message", json.loads(line))
        print("sent", flush=True)
    serving.cancel()


if __name__ == "__main__":
    uvloop.run(main())
