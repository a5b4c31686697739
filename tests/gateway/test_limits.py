"""What agents may cost the gateway, and what becomes of those who want more."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support import (
    PING,
    PONG,
    TEXT,
    Clock,
    Refused,
    RunningGateway,
    gateway,
    handshake,
    until,
    within,
)
from ws_manager.gateway.limits import Limits
from ws_manager.settings import Sizes


async def connected(running: RunningGateway) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a TCP connection, and say nothing."""
    address = urlsplit(running.url)
    return await within(asyncio.open_connection(address.hostname, address.port))


async def ended(reader: asyncio.StreamReader) -> bool:
    """Read to the end, and say whether nothing had come."""
    try:
        return await within(reader.read()) == b""
    except ConnectionResetError:
        return True


class TestConnections:
    async def test_one_more_is_answered_503_with_retry_after(self, database: Path) -> None:
        async with gateway(database, limits=Limits(connections=2)) as running:
            await running.agent(ws_id="ws-001")
            await running.agent(ws_id="ws-002")
            reader, writer, status = await handshake(running.url, "agent=octavia&ws_id=ws-003")
            body = await within(reader.read(1000))
            writer.close()
            assert status == 503
            assert json.loads(body)["code"] == "unavailable"
            assert running.ledger.find("ws-003") is None

    async def test_one_that_comes_back_takes_its_own_place(self, database: Path) -> None:
        async with gateway(database, limits=Limits(connections=1)) as running:
            older = await running.agent()
            newer = await running.agent()
            assert await older.closed() == 4009
            seq = running.send()
            assert await newer.messages(1) == [seq]

    async def test_one_that_leaves_makes_room(self, database: Path) -> None:
        async with gateway(database, limits=Limits(connections=1)) as running:
            await (await running.agent()).say_goodbye()
            await running.socket_ended()
            assert (await running.agent(ws_id="ws-002")).greeting["ws_id"] == "ws-002"


class TestHandshake:
    @pytest.mark.parametrize("sent", [b"", b"GET /ws?agent=octavia HTTP/1.1\r\nHost: localhost\r\n"])
    async def test_half_open_one_is_dropped_when_its_time_is_over(self, database: Path, sent: bytes) -> None:
        clock = Clock()
        async with gateway(database, now=clock, limits=Limits(handshake_seconds=10)) as running:
            reader, writer = await connected(running)
            writer.write(sent)
            # It is accepted after those before it.
            await running.agent()
            clock.forward(10)
            assert await ended(reader)
            writer.close()

    async def test_sockets_are_not_dropped_with_it(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=300) as running:
            agent = await running.agent()
            reader, writer = await connected(running)
            await running.agent("cipher", "ws-002")
            clock.forward(11)
            assert await ended(reader)
            writer.close()
            await agent.send(PING, b"still here?")
            assert await agent.frame() == (PONG, b"still here?")

    async def test_half_open_tls_is_dropped_too(self, database: Path) -> None:
        # It never comes to the certificate.
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        async with gateway(database, limits=Limits(handshake_seconds=0.2), tls=tls) as running:
            reader, writer = await connected(running)
            assert await ended(reader)
            writer.close()


class TestFrames:
    async def test_too_many_a_second_close_with_4029(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, now=clock, limits=Limits(frames_per_second=20)) as running:
            agent = await running.agent()
            for _ in range(21):
                await agent.send(PING, b"again")
            assert await agent.closed() == 4029
            connection = await running.socket_ended()
            assert (connection.status, connection.close_code) == ("active", 4029)

    async def test_its_size_is_what_was_said(self, database: Path) -> None:
        async with gateway(database, limits=Limits(frame_bytes=1000)) as running:
            agent = await running.agent(ack="explicit")
            frame = b'{"type":"ack","seq":0}'
            await agent.send(TEXT, frame + b" " * (1000 - len(frame)))
            await agent.send(PING, b"still here?")
            assert await agent.frame() == (PONG, b"still here?")
            await agent.send(TEXT, frame + b" " * (1001 - len(frame)))
            assert await agent.closed() == 1009


class TestSizes:
    async def test_larger_content_is_refused(self, database: Path) -> None:
        async with gateway(database, limits=Limits(sizes=Sizes(content=100))) as running:
            agent = await running.agent()
            await agent.say(type="send", ref=1, to="ws-001", content="x" * 99)
            assert (await agent.json())["error"] == {
                "code": "invalid",
                "message": "the message has 101 bytes",
            }
            assert running.ledger.stats()["total_messages"] == 0

    async def test_larger_metadata_is_refused(self, database: Path) -> None:
        async with gateway(database, limits=Limits(sizes=Sizes(metadata=20))) as running:
            with pytest.raises(Refused) as refused:
                await running.agent(metadata='{"region":"us-west-2"}')
            assert refused.value.status == 400

    async def test_content_of_1_mib_is_delivered(self, database: Path) -> None:
        limits = Limits(frame_bytes=2 * 1024 * 1024, sizes=Sizes(content=1024 * 1024))
        async with gateway(database, limits=limits) as running:
            agent = await running.agent(ack="explicit")
            text = "x" * (1024 * 1024 - 2)
            await agent.say(type="send", ref=1, to="ws-001", content=text)
            frames = [await agent.json(), await agent.json()]
            assert {frame["type"] for frame in frames} == {"result", "message"}
            assert next(frame["content"] for frame in frames if frame["type"] == "message") == text


async def test_requests_that_cannot_be_done_at_once_are_answered_busy(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ws_manager.gateway.delivery import agent_socket

    monkeypatch.setattr(agent_socket, "MAX_REQUESTS", 2)

    async with gateway(database) as running:
        agent = await running.agent()
        socket = running.server._hub._sockets["ws-001"]
        running.db.execute("BEGIN IMMEDIATE")
        await agent.say(type="send", ref=0, to="ws-001", content=0)
        # It is being done: those that come with it would wait behind it.
        await until(lambda: socket._performing is not None and not socket._requests)
        for ref in range(1, 4):
            await agent.say(type="send", ref=ref, to="ws-001", content=ref)
        # Two wait.
        refused = await agent.json()
        assert (refused["ref"], refused["error"]["code"]) == (3, "busy")
        running.db.execute("ROLLBACK")
        results = [frame["ref"] for frame in [await agent.json() for _ in range(6)] if "ref" in frame]
        assert results == [0, 1, 2]
