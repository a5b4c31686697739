"""Requests of an agent, each done once: against the real gateway, and against one that a test tells what to say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.support import RunningGateway, gateway, within
from ws_manager.client import agent_requests, dialer
from ws_manager.client.agent import AgentClient
from ws_manager.errors import Conflict, GatewayUnavailable, InvalidInput, KeyReused, NotFound
from ws_manager.gateway.limits import Limits


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a backoff here."""
    monkeypatch.setattr(dialer, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(dialer, "LONGEST_DELAY", 0.008)
    monkeypatch.setattr(agent_requests, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(agent_requests, "LONGEST_PAUSE", 0.008)


class Scripted:
    """A gateway that greets, notes each request, and does only what the test tells it to."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.socket = web.WebSocketResponse()

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one socket."""
        self.socket = socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json(
            {
                "type": "connected",
                "ws_id": "ws-001",
                "agent": "octavia",
                "resumed": False,
                "pending": 0,
                "seq": 0,
                "heartbeat": 60,
            }
        )
        async for frame in socket:
            assert frame.type == aiohttp.WSMsgType.TEXT
            self.requests.put_nowait(json.loads(frame.data))
        return socket

    async def request(self) -> dict[str, Any]:
        """Wait for the next request."""
        return await within(self.requests.get())

    async def done(self, request: dict[str, Any], **result: object) -> None:
        """Answer that it was done."""
        await self.socket.send_json({"type": "result", "ref": request["ref"], "ok": True, **result})

    async def refuse(self, request: dict[str, Any], code: str) -> None:
        """Answer that it was not done."""
        error = {"code": code, "message": "no"}
        await self.socket.send_json({"type": "result", "ref": request["ref"], "ok": False, "error": error})

    def cut(self) -> None:
        """Lose the connection."""
        transport = self.socket._req.transport
        assert transport is not None
        transport.abort()


@contextlib.asynccontextmanager
async def scripted() -> AsyncIterator[tuple[Scripted, AgentClient]]:
    """A scripted gateway, and a client that is connected to it."""
    script = Scripted()
    application = web.Application()
    application.router.add_get("/ws", script.serve)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    script.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with AgentClient("octavia", url=script.url, ws_id="ws-001") as client:
            yield script, client
    finally:
        await runner.cleanup()


def sent(running: RunningGateway) -> list[Any]:
    """The content of every message in the ledger, in order."""
    return [json.loads(row[0]) for row in running.db.rows("SELECT content FROM messages ORDER BY id")]


class TestKey:
    async def test_each_request_has_a_key_of_128_bits(self) -> None:
        async with scripted() as (script, client):
            keys = set()
            for _ in range(3):
                sending = asyncio.ensure_future(client.send("ws-002", 1))
                request = await script.request()
                keys.add(request["key"])
                await script.done(request, msg_id="m-1")
                await within(sending)
            assert len(keys) == 3
            assert all(re.fullmatch("[0-9a-f]{32}", key) for key in keys)

    async def test_own_key_is_done_once(self, database: Path) -> None:
        async with (
            gateway(database) as running,
            AgentClient("octavia", url=running.url, ws_id="ws-001") as client,
        ):
            first = await within(client.send("ws-001", {"n": 1}, key="order-7"))
            assert await within(client.send("ws-001", {"n": 1}, key="order-7")) == first
            assert sent(running) == [{"n": 1}]

    async def test_own_key_of_a_broadcast_is_done_once(self, database: Path) -> None:
        async with (
            gateway(database) as running,
            AgentClient("octavia", url=running.url, ws_id="ws-001") as client,
        ):
            for _ in range(2):
                assert await within(client.broadcast("all", key="alarm")) == 1
            assert sent(running) == ["all"]

    async def test_own_key_for_something_else_is_refused(self, database: Path) -> None:
        async with (
            gateway(database) as running,
            AgentClient("octavia", url=running.url, ws_id="ws-001") as client,
        ):
            await within(client.send("ws-001", 1, key="order-7"))
            with pytest.raises(KeyReused):
                await within(client.send("ws-001", 2, key="order-7"))

    async def test_own_key_that_is_none_is_refused(self, database: Path) -> None:
        async with (
            gateway(database) as running,
            AgentClient("octavia", url=running.url, ws_id="ws-001") as client,
        ):
            with pytest.raises(InvalidInput, match="idempotency key"):
                await within(client.send("ws-001", 1, key=""))


class TestLostSocket:
    async def test_unanswered_request_is_written_again_as_it_was(self) -> None:
        async with scripted() as (script, client):
            sending = asyncio.ensure_future(client.send("ws-002", {"n": 1}))
            first = await script.request()
            script.cut()
            second = await script.request()
            assert second == first
            await script.done(second, msg_id="m-1")
            assert await within(sending) == "m-1"

    async def test_answered_request_is_not_written_again(self) -> None:
        async with scripted() as (script, client):
            sending = asyncio.ensure_future(client.send("ws-002", 1))
            await script.done(await script.request(), msg_id="m-1")
            await within(sending)
            script.cut()
            sending = asyncio.ensure_future(client.send("ws-002", 2))
            request = await script.request()
            assert request["content"] == 2
            await script.done(request, msg_id="m-2")
            await within(sending)

    async def test_request_that_is_made_meanwhile_waits_for_the_next_socket(self, database: Path) -> None:
        lost = asyncio.Event()
        urls: list[str] = []
        first = gateway(database)
        urls.append((await first.__aenter__()).url)
        client = AgentClient(
            "octavia", url=lambda: urls[-1], ws_id="ws-001", on_lost=lambda cause, delay: lost.set()
        )
        async with client:
            await first.__aexit__(None, None, None)
            await within(lost.wait())
            sending = asyncio.ensure_future(client.send("ws-001", "meanwhile"))
            async with gateway(database) as second:
                urls.append(second.url)
                await within(sending)
                assert sent(second) == ["meanwhile"]
                await client.__aexit__(None, None, None)

    async def test_request_that_was_done_before_the_loss_is_not_done_twice(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with (
            gateway(database) as running,
            AgentClient("octavia", url=running.url, ws_id="ws-001") as client,
        ):
            lost = asyncio.Event()
            with monkeypatch.context() as patched:
                # Its answer does not arrive.
                patched.setattr(client._requests, "answer", lambda result: lost.set())
                sending = asyncio.ensure_future(client.broadcast({"n": 1}))
                await within(lost.wait())
            assert sent(running) == [{"n": 1}]
            assert client._websocket is not None
            client._websocket._response.close()
            assert await within(sending) == 1
            assert sent(running) == [{"n": 1}]


class TestEnd:
    async def test_terminal_close_ends_what_waits_and_what_comes(self) -> None:
        async with scripted() as (script, client):
            sending = asyncio.ensure_future(client.send("ws-002", 1))
            await script.request()
            await script.socket.close(code=4009, message=b"replaced")
            for waiting in (sending, client.send("ws-002", 2)):
                with pytest.raises(Conflict, match=r"replaced \(4009\)"):
                    await within(waiting)

    async def test_client_that_leaves_ends_what_waits(self) -> None:
        async with scripted() as (script, client):
            sending = asyncio.ensure_future(client.send("ws-002", 1))
            await script.request()
            await client.__aexit__(None, None, None)
            with pytest.raises(GatewayUnavailable, match="has left"):
                await within(sending)

    async def test_timeout_ends_it_while_there_is_a_socket(self) -> None:
        async with scripted() as (_, client):
            with pytest.raises(GatewayUnavailable, match=r"no answer within 0\.01 s: .* done or not"):
                await within(client.send("ws-002", 1, timeout=0.01))
            assert not client._requests._waiting

    async def test_timeout_ends_it_while_there_is_none(self, database: Path) -> None:
        lost = asyncio.Event()
        async with gateway(database) as running:
            client = AgentClient("octavia", url=running.url, on_lost=lambda cause, delay: lost.set())
            await client.__aenter__()
        await within(lost.wait())
        with pytest.raises(GatewayUnavailable, match="no answer within"):
            await within(client.broadcast(1, timeout=0.01))
        await client.__aexit__(None, None, None)

    @pytest.mark.parametrize("timeout", [0, -1, float("nan")])
    async def test_timeout_that_is_none_is_refused(self, timeout: float) -> None:
        async with scripted() as (_, client):
            with pytest.raises(InvalidInput, match="seconds"):
                await client.send("ws-002", 1, timeout=timeout)

    async def test_cancelled_request_is_not_written_again(self) -> None:
        async with scripted() as (script, client):
            sending = asyncio.ensure_future(client.send("ws-002", "cancelled"))
            await script.request()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await within(sending)
            script.cut()
            sending = asyncio.ensure_future(client.send("ws-002", "another"))
            request = await script.request()
            assert request["content"] == "another"
            await script.done(request, msg_id="m-1")
            await within(sending)

    async def test_content_that_is_not_json_is_refused_at_once(self) -> None:
        async with scripted() as (script, client):
            with pytest.raises(InvalidInput):
                await client.send("ws-002", float("nan"))
            assert script.requests.empty()


class TestBusy:
    async def test_request_is_written_again_later(self) -> None:
        async with scripted() as (script, client):
            sending = asyncio.ensure_future(client.send("ws-002", 1))
            first = await script.request()
            for _ in range(3):
                await script.refuse(first, "busy")
                assert await script.request() == first
            await script.done(first, msg_id="m-1")
            assert await within(sending) == "m-1"

    async def test_another_failure_is_the_gateways_verdict(self) -> None:
        async with scripted() as (script, client):
            sending = asyncio.ensure_future(client.send("ws-002", 1))
            await script.refuse(await script.request(), "not_found")
            with pytest.raises(NotFound):
                await within(sending)

    async def test_terminal_close_ends_the_pause(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(agent_requests, "FIRST_PAUSE", 3600)
        async with scripted() as (script, client):
            sending = asyncio.ensure_future(client.send("ws-002", 1))
            await script.refuse(await script.request(), "busy")
            await script.socket.close(code=4010)
            with pytest.raises(Conflict, match="4010"):
                await within(sending)

    async def test_timeout_ends_it(self) -> None:
        async with scripted() as (script, client):
            sending = asyncio.ensure_future(client.send("ws-002", 1, timeout=0.05))
            with pytest.raises(GatewayUnavailable, match="no answer within"):
                while not sending.done():
                    with contextlib.suppress(asyncio.TimeoutError):
                        await script.refuse(await asyncio.wait_for(script.requests.get(), 0.1), "busy")
                await sending


class TestMany:
    async def test_only_so_many_wait_at_the_gateway(self) -> None:
        async with scripted() as (script, client):
            count = agent_requests.AT_ONCE + 4
            sending = [asyncio.ensure_future(client.send("ws-002", n)) for n in range(count)]
            written = [await script.request() for _ in range(agent_requests.AT_ONCE)]
            script.cut()
            again = [await script.request() for _ in range(agent_requests.AT_ONCE)]
            assert again == written
            assert script.requests.empty()
            for request in again:
                await script.done(request, msg_id=f"m-{request['content']}")
            for _ in range(4):
                request = await script.request()
                await script.done(request, msg_id=f"m-{request['content']}")
            assert await within(asyncio.gather(*sending)) == [f"m-{n}" for n in range(count)]

    async def test_after_4029_they_leave_time_between_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(agent_requests, "FIRST_GAP", 3600)
        async with scripted() as (script, client):
            sending = asyncio.ensure_future(client.send("ws-002", 1))
            await script.request()
            await script.socket.close(code=4029)
            await script.done(await script.request(), msg_id="m-1")
            await within(sending)
            with pytest.raises(GatewayUnavailable, match="no answer"):
                await within(client.send("ws-002", 2, timeout=0.1))
            assert script.requests.empty()

    async def test_more_than_the_gateway_takes_in_a_second_all_arrive_once(self, database: Path) -> None:
        causes: list[str] = []
        async with (
            gateway(database, limits=Limits(frames_per_second=15)) as running,
            AgentClient(
                "octavia",
                url=running.url,
                ws_id="ws-001",
                on_lost=lambda cause, delay: causes.append(cause),
            ) as client,
        ):
            await within(asyncio.gather(*(client.send("ws-001", n) for n in range(60))))
            assert causes
            assert all(cause.endswith("(4029)") for cause in causes)
            assert sorted(sent(running)) == list(range(60))
