"""The application of docs/python.md that owns its agents' sockets, run as it stands there, with WebSocket clients."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import aiohttp
import pytest

from tests.acceptance.applications import documented_application
from tests.acceptance.processes import command
from tests.support import LIMIT, until, within
from ws_manager import get_db

pytest.importorskip("fastapi", reason="needs FastAPI")
pytest.importorskip("uvicorn", reason="needs uvicorn")
pytest.importorskip("websockets", reason="uvicorn needs it for WebSockets")

SECRETS = {"octavia": "first-secret", "cipher": "second-secret"}


class World:
    """A running application.

    Attributes:
        url: its address.
        database: its ledger.
    """

    def __init__(self, url: str, database: Path, http: aiohttp.ClientSession, db: sqlite3.Connection) -> None:
        self.url = url
        self.database = database
        self._http = http
        self._db = db

    async def socket(self, name: str = "octavia", secret: str = "") -> aiohttp.ClientWebSocketResponse:
        """Connect an agent.

        Raises:
            aiohttp.WSServerHandshakeError: it is not let in.
        """
        headers = {"Authorization": f"Bearer {secret or SECRETS[name]}"}
        return await within(self._http.ws_connect(f"{self.url}/agents/{name}", headers=headers))

    async def again(self, name: str = "octavia") -> aiohttp.ClientWebSocketResponse:
        """Connect an agent whose older socket the application may not have noticed yet: until it is let in."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            try:
                return await self.socket(name)
            except aiohttp.WSServerHandshakeError as refused:
                assert refused.status == 403
        raise AssertionError("it was not let in")

    async def command(self, *arguments: str) -> CompletedProcess[str]:
        """Run a command to its end, in a thread."""
        ended = await asyncio.get_running_loop().run_in_executor(
            None, lambda: command(self.database, *arguments)
        )
        assert ended.returncode == 0, ended.stderr
        return ended

    def delivered(self) -> list[int]:
        """Whether each message is confirmed, in the order of the commits."""
        return [row[0] for row in self._db.execute("SELECT delivered FROM messages ORDER BY id")]

    def status(self, name: str = "octavia") -> str:
        """The status of a connection."""
        found = self._db.execute("SELECT status FROM connections WHERE ws_id = ?", [name]).fetchone()
        return str(found[0])


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """Run the application."""
    database = folder / "ledger.db"
    environment = {**os.environ, "BLACKROAD_WS_DB": str(database)}
    with documented_application(folder, "sockets", {}, environment) as (_, url):
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(aiohttp.ClientSession())
            db = get_db(database)
            stack.callback(db.close)
            yield World(url, database, http, db)


async def take(socket: aiohttp.ClientWebSocketResponse, count: int = 1) -> list[Any]:
    """Receive and confirm messages, and return their contents."""
    contents = []
    for _ in range(count):
        frame = await within(socket.receive_json())
        contents.append(frame["content"])
        await socket.send_json({"ack": frame["seq"]})
    return contents


async def close_code(socket: aiohttp.ClientWebSocketResponse) -> int:
    """Wait until the application closes a socket."""
    frame = await within(socket.receive())
    assert frame.type == aiohttp.WSMsgType.CLOSE, frame
    return int(frame.data)


async def test_a_wrong_token_is_not_let_in(tmp_path: Path) -> None:
    async with world(tmp_path) as app:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await app.socket(secret="wrong")
        assert refused.value.status == 403
        assert json.loads((await app.command("list", "--json")).stdout) == []


async def test_what_is_sent_and_broadcast_is_delivered_and_confirmed(tmp_path: Path) -> None:
    async with world(tmp_path) as app:
        octavia, cipher = await app.socket(), await app.socket("cipher")
        listed = json.loads((await app.command("list", "--json")).stdout)
        assert {(row["ws_id"], row["agent"]) for row in listed} == {
            ("octavia", "octavia"),
            ("cipher", "cipher"),
        }
        sending = asyncio.ensure_future(app.command("send", "octavia", '{"n": 1}', "--wait", "30s"))
        assert await take(octavia) == [{"n": 1}]
        assert "confirmed 1 of 1" in (await sending).stderr
        sending = asyncio.ensure_future(app.command("broadcast", '{"n": 2}', "--wait", "30s"))
        assert await take(octavia) == await take(cipher) == [{"n": 2}]
        assert "confirmed 2 of 2" in (await sending).stderr


async def test_a_lost_socket_leaves_messages_pending_and_they_come_after_the_reconnect(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as app:
        lost = await app.socket()
        await app.command("send", "octavia", "before")
        assert await take(lost) == ["before"]
        await app.command("send", "octavia", "not confirmed")
        assert (await within(lost.receive_json()))["content"] == "not confirmed"
        await until(lambda: app.delivered() == [1, 0])
        transport = lost.get_extra_info("socket")
        transport.shutdown(2)
        lines = "".join(json.dumps({"to": "octavia", "content": n}) + "\n" for n in range(250))
        batch = tmp_path / "batch"
        batch.write_text(lines)
        await app.command("send", "--batch", str(batch))
        assert sum(app.delivered()) == 1
        octavia = await app.again()
        assert await take(octavia, 251) == ["not confirmed", *range(250)]
        await until(lambda: all(app.delivered()))
        assert app.status() == "active"


async def test_disconnect_closes_the_socket(tmp_path: Path) -> None:
    async with world(tmp_path) as app:
        octavia = await app.socket()
        await app.command("disconnect", "octavia")
        assert await close_code(octavia) == 4010
        assert app.status() == "disconnected"


async def test_a_newer_socket_replaces_an_older(tmp_path: Path) -> None:
    async with world(tmp_path) as app:
        older = await app.socket()
        newer = await app.again()
        assert await close_code(older) == 4009
        await app.command("send", "octavia", "hello")
        assert await take(newer) == ["hello"]


async def test_an_agent_that_leaves_is_disconnected(tmp_path: Path) -> None:
    async with world(tmp_path) as app:
        octavia = await app.socket()
        await octavia.close(code=1000)
        await until(lambda: app.status() == "disconnected")
