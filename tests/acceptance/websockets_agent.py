"""An agent made with the `websockets` library, run as a program: `websockets_agent.py URL`. It prints frames."""

from __future__ import annotations

import asyncio
import sys

import websockets


async def main(url: str) -> None:
    async with websockets.connect(url) as connection:
        async for frame in connection:
            print(frame, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
