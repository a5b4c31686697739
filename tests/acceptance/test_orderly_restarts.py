"""A gateway that is stopped and started again and again, while messages keep coming: each arrives once, in order."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import websockets

from tests.acceptance.processes import COMMAND, PATIENCE, running
from ws_manager import get_db
from ws_manager.client.agent import AgentClient
from ws_manager.client.dialer import HEALTHY_SECONDS

AGENTS = 20
"""Agents made with `websockets`: they answer Pings, and send no acks."""

CLIENTS = 5
"""Agents made with `AgentClient`, which sends acks."""

RESTARTS = 6

SENDER = """
import sys, threading
from pathlib import Path
from ws_manager import ConnectionPool, broadcast, get_db

stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
db = get_db(Path(sys.argv[1]))
pool = ConnectionPool(db)
sent = 0
while not stop.wait(0.01):
    broadcast(pool, db, {"number": sent})
    sent += 1
print(sent)
"""


class Agents:
    """All agents of one gateway, and what each has read."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.received: dict[str, list[str]] = {}
        self.greeted: dict[str, int] = {}
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run them all for the length of a block."""
        names = [f"plain-{number}" for number in range(AGENTS)]
        tasks = [asyncio.ensure_future(self._plain(name)) for name in names]
        tasks += [asyncio.ensure_future(self._client(f"client-{number}")) for number in range(CLIENTS)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended

    async def all_greeted(self, times: int) -> None:
        """Wait until each has been greeted `times` times."""
        everybody = AGENTS + CLIENTS
        await self._until(lambda: sum(count >= times for count in self.greeted.values()) == everybody)

    async def all_have_another(self) -> None:
        """Wait until each has a message that it does not have yet."""
        before = {name: len(ids) for name, ids in self.received.items()}
        await self._until(lambda: all(len(self.received[name]) > count for name, count in before.items()))

    async def all_received(self, counts: dict[str, int]) -> None:
        """Wait until each has as many messages as are in the ledger for it."""
        await self._until(lambda: all(len(self.received[name]) >= count for name, count in counts.items()))

    async def _until(self, condition) -> None:
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(condition), PATIENCE)

    async def _greet(self, name: str) -> None:
        async with self._changed:
            self.received.setdefault(name, [])
            self.greeted[name] = self.greeted.get(name, 0) + 1
            self._changed.notify_all()

    async def _take(self, name: str, msg_id: str) -> None:
        async with self._changed:
            self.received[name].append(msg_id)
            self._changed.notify_all()

    async def _plain(self, name: str) -> None:
        address = f"{self.url.replace('http', 'ws', 1)}/ws?agent={name}&ws_id={name}"
        while True:
            # Between two gateways nobody answers.
            with contextlib.suppress(OSError, websockets.WebSocketException):
                async with websockets.connect(address) as connection:
                    async for text in connection:
                        frame = json.loads(text)
                        if frame["type"] == "connected":
                            await self._greet(name)
                        else:
                            await self._take(name, frame["msg_id"])
            await asyncio.sleep(0.1)

    async def _client(self, name: str) -> None:
        greetings: asyncio.Queue[object] = asyncio.Queue()
        client = AgentClient(
            name,
            url=self.url,
            ws_id=name,
            on_connected=greetings.put_nowait,
            jitter=lambda: 0.0,
            # Every connection has lasted, so that the delays do not grow.
            clock=itertools.count(0, HEALTHY_SECONDS).__next__,
        )
        async with client:
            async for message in client:
                while not greetings.empty():
                    greetings.get_nowait()
                    await self._greet(name)
                await self._take(name, message.msg_id)
                await client.ack(message)


def in_ledger(database: Path) -> dict[str, list[str]]:
    """The ids of everybody's messages, in the order in which they were committed."""
    db = get_db(database)
    found: dict[str, list[str]] = {}
    for recipient, msg_id in db.execute("SELECT recipient_id, msg_id FROM messages ORDER BY id"):
        found.setdefault(recipient, []).append(msg_id)
    db.close()
    return found


async def serve_again_and_again(database: Path) -> Agents:
    """Run gateways one after the other on one port, and send all the time; return what the agents have read."""
    serve = [*COMMAND, "--db", str(database), "serve", "--no-auth", "--drain", "1s", "--port"]
    port = "0"
    async with contextlib.AsyncExitStack() as stack:
        for number in range(RESTARTS + 1):
            with running(*serve, port) as gateway:
                ready = await asyncio.to_thread(gateway.error_line, "Ready: ")
                if not number:
                    agents = Agents(ready.split()[1])
                    port = agents.url.rpartition(":")[2]
                    await stack.enter_async_context(agents.running())
                    sender = stack.enter_context(
                        running(sys.executable, "-c", SENDER, str(database), stdin=subprocess.PIPE)
                    )
                await agents.all_greeted(number + 1)
                await agents.all_have_another()
                if number < RESTARTS:
                    how = signal.SIGTERM if number % 2 else signal.SIGHUP
                    assert await asyncio.to_thread(gateway.end, how) == 0
                else:
                    sender.process.stdin.close()
                    assert await asyncio.to_thread(sender.wait) == 0
                    sent = in_ledger(database)
                    await agents.all_received({name: len(ids) for name, ids in sent.items()})
    return agents


@pytest.mark.long
def test_nothing_is_lost_and_nothing_comes_twice(tmp_path: Path) -> None:
    database = tmp_path / "ledger.db"
    agents = asyncio.run(serve_again_and_again(database))
    sent = in_ledger(database)
    assert len(sent) == AGENTS + CLIENTS
    for name, ids in sent.items():
        assert agents.received[name] == ids
