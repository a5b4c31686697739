"""What stands between the transport and aiohttp: a budget of bytes, the first frame's mask, and who has gone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import ssl
import struct
import weakref
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, Callable
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from tests.acceptance.processes import made_certificate
from tests.gateway.test_limits import connected, ended
from tests.support import LIMIT, PING, PONG, TEXT, RawAgent, RunningGateway, gateway, within
from ws_manager.gateway.limits import Limits
from ws_manager.gateway.net import listener


def unmasked(opcode: int, payload: bytes) -> bytes:
    return bytes([0x80 | opcode, len(payload)]) + payload


class TestMask:
    @pytest.mark.parametrize("pieces", [1, 2], ids=["whole", "byte by byte"])
    async def test_first_frame_without_one_closes_with_1002(self, database: Path, pieces: int) -> None:
        async with gateway(database) as running:
            agent = await running.agent()
            frame = unmasked(PING, b"hello")
            for piece in [frame] if pieces == 1 else [frame[:1], frame[1:]]:
                agent._writer.write(piece)
                await agent._writer.drain()
                await asyncio.sleep(0)
            assert await agent.closed() == 1002
            connection = await running.socket_ended()
            assert (connection.status, connection.close_code) == ("active", 1002)

    async def test_masked_frames_go_on(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent()
            for text in (b"one", b"two"):
                await agent.send(PING, text)
                assert await agent.frame() == (PONG, text)


class TestBytes:
    async def test_too_many_a_second_are_left_in_the_system_and_read_later(self, database: Path) -> None:
        limits = Limits(frame_bytes=64 * 1024, frames_per_second=100)

        async with gateway(database, limits=limits) as running:
            agent = await running.agent(ack="explicit")
            transport = running.server._hub._sockets["ws-001"]._transport
            # 3 MiB in frames that are allowed, and confirm nothing.
            for _ in range(50):
                await agent.send(TEXT, b'{"type":"ack","seq":0,"padding":"%b"}' % (b"x" * 60_000))
            await running.until(lambda: not transport.is_reading())
            # They are paid for by and by, and then what comes behind them is read.
            await agent.send(PING, b"after all that")
            assert await agent.frame() == (PONG, b"after all that")


async def test_message_in_very_many_fragments_is_not_read_on(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent()
        # They end no message, and cost nothing but time.
        empty = bytes([0x00, 0x80]) + os.urandom(4)
        writing = asyncio.ensure_future(_flood(agent, bytes([TEXT, 0x80]) + os.urandom(4) + empty * 100_000))
        assert await agent.closed() == 1009
        await asyncio.wait_for(writing, LIMIT)


class TestCount:
    async def test_for_one_half_open_too_many_the_oldest_is_dropped(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(listener, "MOST_WAITING", 3)

        async with gateway(database) as running:
            waiting = [await connected(running) for _ in range(3)]
            agent = await running.agent()
            assert await ended(waiting[0][0])
            await agent.send(PING, b"in")
            assert await agent.frame() == (PONG, b"in")
            for _, writer in waiting:
                writer.close()

    async def test_those_who_have_gone_are_forgotten(self, database: Path) -> None:
        async with gateway(database) as running:
            for _ in range(10):
                reader, writer = await connected(running)
                writer.write_eof()
                assert await ended(reader)
                writer.close()
            await running.until(lambda: not running.server._listener._waiting)


@pytest.mark.parametrize("code", [1005, 1006, 5000, 65535])
async def test_close_code_that_no_frame_may_have_is_not_taken_for_one(database: Path, code: int) -> None:
    async with gateway(database) as running:
        agent = await running.agent()
        await agent.send(8, struct.pack("!H", code))
        await agent.closed()
        connection = await running.socket_ended()
        assert (connection.status, connection.close_code) == ("active", 1002)


async def test_flood_is_not_read_on_once_it_is_turned_away(database: Path) -> None:
    async with gateway(database, limits=Limits(frames_per_second=10)) as running:
        agent = await running.agent()
        frame = bytes([0x80 | PING, 0x80]) + os.urandom(4)
        writing = asyncio.ensure_future(_flood(agent, frame * 1000))
        # The code comes, although the peer goes on writing.
        assert await agent.closed() == 4029
        await asyncio.wait_for(writing, LIMIT)


async def _flood(agent, data: bytes) -> None:
    try:
        while True:
            agent._writer.write(data)
            await agent.drain()
    except ConnectionError:
        pass


async def says_goodbye(running: RunningGateway, agent: RawAgent) -> None:
    await agent.say_goodbye()


async def vanishes(running: RunningGateway, agent: RawAgent) -> None:
    agent.drop()


async def is_disconnected_by_an_operator(running: RunningGateway, agent: RawAgent) -> None:
    running.ledger.disconnect("ws-001")
    await agent.closed()


async def is_replaced(running: RunningGateway, agent: RawAgent) -> None:
    other = await running.agent()
    await agent.closed()
    other.drop()


HANDSHAKE = (
    b"GET /ws?agent=octavia&ws_id=ws-001 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class TestUpgrade:
    async def test_frame_that_comes_with_the_handshake_is_read(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await opened(*await connected(running))
            assert await agent.frame() == (PONG, b"early")
            agent.drop()

    async def test_connection_no_longer_waits_for_a_request(self, database: Path) -> None:
        earlier = of_aiohttp()
        async with gateway(database) as running:
            agent = await running.agent()
            await running.until(lambda: not of_aiohttp(since=earlier))
            assert not running.server._listener._waiting
            await agent.send(PING, b"open")
            assert await agent.frame() == (PONG, b"open")

    async def test_nothing_of_its_request_is_kept(self, database: Path, alive: weakref.WeakSet[Any]) -> None:
        earlier = of_aiohttp()
        async with gateway(database) as running:
            await running.agent()
            await running.until(lambda: not of_aiohttp(since=earlier))
            assert len(alive) == 2


async def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> RawAgent:
    """Open a socket, and send a Ping together with the handshake. Read the greeting."""
    writer.write(HANDSHAKE + masked(PING, b"early"))
    await within(reader.readuntil(b"\r\n\r\n"))
    agent = RawAgent(reader, writer)
    agent.greeting = await agent.json()
    return agent


def masked(opcode: int, payload: bytes) -> bytes:
    """A frame of a client, with a mask that changes nothing."""
    return bytes([0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def of_aiohttp(since: Sequence[object] = ()) -> list[object]:
    """What aiohttp has made for connections and has not freed. Earlier tests may have left some to the collector."""
    known = {id(each) for each in since}
    found = [each for each in gc.get_objects() if type(each) in (web.RequestHandler, web.Request)]
    return [each for each in found if id(each) not in known]


class TestNothingIsKept:
    @pytest.mark.parametrize("end", [says_goodbye, vanishes, is_disconnected_by_an_operator, is_replaced])
    async def test_of_a_socket_that_ends(
        self,
        database: Path,
        alive: weakref.WeakSet[Any],
        end: Callable[[RunningGateway, RawAgent], Awaitable[None]],
    ) -> None:
        async with gateway(database) as running:
            await end(running, await running.agent())
            await running.until(lambda: not alive)

    async def test_of_a_handshake_for_tls_that_fails(
        self, database: Path, alive: weakref.WeakSet[Any]
    ) -> None:
        async with gateway(database, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as running:
            _, writer = await connected(running)
            writer.write(b"\x16\x03\x01")
            await running.until(lambda: alive)
            writer.close()
            await running.until(lambda: not alive)


class TestTls:
    async def test_what_the_kernel_has_taken_holds_nothing_up(
        self, database: Path, tmp_path: Path, pytestconfig: pytest.Config
    ) -> None:
        if pytestconfig.getoption("--loop") == "uvloop":
            pytest.skip(
                "serve runs TLS on asyncio's loop: uvloop may drop bytes that come before it has started"
            )
        folder = made_certificate(tmp_path / "tls", "DNS:localhost")
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        client = ssl.create_default_context(cafile=str(folder / "cert.pem"))
        async with gateway(database, tls=server) as running:
            port = urlsplit(running.url).port
            agent = await opened(*await within(asyncio.open_connection("localhost", port, ssl=client)))
            assert await agent.frame() == (PONG, b"early")
            running.send("late")
            assert (await agent.message())["content"] == "late"
            agent.drop()

    async def test_for_one_handshake_too_many_the_oldest_is_dropped(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(listener, "MOST_WAITING_TLS", 3)

        # None of them comes as far as the certificate.
        async with gateway(database, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as running:
            waiting = [await connected(running) for _ in range(5)]
            for reader, _ in waiting[:2]:
                assert await ended(reader)
            assert len(running.server._listener._waiting) == 3
            for _, writer in waiting:
                writer.close()

    async def test_what_is_no_tls_is_dropped(self, database: Path) -> None:
        async with gateway(database, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as running:
            reader, writer = await connected(running)
            writer.write(b"GET /ws?agent=octavia HTTP/1.1\r\n\r\n")
            # An alert may come before the end (RFC 8446 section 6).
            with contextlib.suppress(ConnectionResetError):
                await within(reader.read())
            writer.close()
            await running.until(lambda: not running.server._listener._waiting)
