"""The life of a socket: takeover, disconnect, the ways in which it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Callable, Optional

import pytest

from tests.support import BINARY, CLOSE, PING, PONG, TEXT, Refused, gateway, within
from ws_manager import add_connection
from ws_manager.gateway.delivery.hub import Hub
from ws_manager.gateway.net.tcp import TcpPeer


class TestTakeover:
    async def test_older_socket_is_closed_with_4009(self, database: Path) -> None:
        async with gateway(database) as running:
            older = await running.agent()
            await running.agent()
            assert await older.closed() == 4009

    async def test_newer_socket_gets_what_the_older_did_not_confirm(self, database: Path) -> None:
        async with gateway(database) as running:
            older = await running.agent(ack="explicit")
            seqs = running.send_many(3)
            await older.messages(3)
            newer = await running.agent(ack="explicit")
            assert await newer.messages(3) == seqs

    async def test_receipt_of_the_older_socket_is_void(self, database: Path) -> None:
        async with gateway(database) as running:
            older = await running.agent(pongs=False)
            running.send()
            await older.message()
            payload = await older.ping()
            newer = await running.agent(pongs=False)
            await older.send(PONG, payload)
            assert await older.closed() == 4009
            await newer.say_goodbye()
            await running.socket_ended()
            assert running.delivered() == []

    async def test_older_socket_that_ends_later_does_not_disconnect(self, database: Path) -> None:
        async with gateway(database) as running:
            older = await running.agent()
            newer = await running.agent()
            await older.closed()
            seq = running.send()
            await newer.message()
            connection = running.connection()
            assert (connection.status, connection.close_code) == ("active", None)
            await newer.send(PONG, await newer.ping())
            await running.confirmed(seq)

    async def test_of_many_at_once_one_stays(self, database: Path) -> None:
        async with gateway(database) as running:
            agents = await asyncio.gather(*(running.agent() for _ in range(20)))
            endings = [asyncio.create_task(agent.closed()) for agent in agents]
            await running.until(lambda: sum(ending.done() for ending in endings) == 19)
            seq = running.send()
            await running.confirmed(seq)
            for ending in endings:
                ending.cancel()

    async def test_another_agents_ws_id_is_refused_with_409(self, database: Path) -> None:
        async with gateway(database) as running:
            await running.agent("octavia", "ws-001")
            with pytest.raises(Refused) as refused:
                await running.agent("cipher", "ws-001")
            assert refused.value.status == 409

    async def test_another_agents_ws_id_is_refused_when_it_is_disconnected_too(self, database: Path) -> None:
        async with gateway(database) as running:
            running.offline("octavia", "ws-001")
            running.ledger.disconnect("ws-001")
            with pytest.raises(Refused) as refused:
                await running.agent("cipher", "ws-001")
            assert refused.value.status == 409

    async def test_refused_agent_does_not_disturb_the_one_that_has_it(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent("octavia", "ws-001")
            with pytest.raises(Refused):
                await running.agent("cipher", "ws-001")
            seq = running.send()
            assert (await agent.message())["seq"] == seq


class TestCommands:
    async def test_disconnect_closes_with_4010(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent()
            running.ledger.disconnect("ws-001")
            assert await agent.closed() == 4010

    async def test_disconnect_in_another_process_closes_with_4010(
        self, database: Path, run_python: Callable[..., str]
    ) -> None:
        async with gateway(database) as running:
            agent = await running.agent()
            await asyncio.get_running_loop().run_in_executor(
                None,
                run_python,
                "import sys; from ws_manager import *; ledger = open_ledger(sys.argv[1])\n"
                "remove_connection(ConnectionPool(ledger), 'ws-001'); ledger.close()",
                database,
            )
            assert await agent.closed() == 4010

    async def test_disconnected_connection_stays_disconnected(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent()
            running.ledger.disconnect("ws-001")
            await agent.closed()
            assert (await running.socket_ended()).status == "disconnected"

    async def test_pending_survives_a_disconnect(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent(pongs=False)
            seq = running.send()
            running.ledger.disconnect("ws-001")
            await agent.closed()
            assert await (await running.agent()).messages(1) == [seq]

    async def test_disconnect_between_registration_and_the_opened_socket_is_not_missed(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usual, checked = Hub.check, asyncio.Event()

        def noted(hub: Hub, ws_ids: Iterable[str]) -> None:
            usual(hub, ws_ids)
            if running.connection().status == "disconnected":
                checked.set()

        monkeypatch.setattr(Hub, "check", noted)
        async with gateway(database) as running:
            hub = running.server._hub
            add = hub.add

            def late(socket: object) -> None:
                # The event was read and dealt with before the hub knows of the socket.
                running.ledger.disconnect("ws-001")
                asyncio.get_running_loop().create_task(seen_before(socket))

            async def seen_before(socket: object) -> None:
                await checked.wait()
                add(socket)  # type: ignore[arg-type]

            hub.add = late  # type: ignore[method-assign]
            agent = await running.agent()
            assert await agent.closed() == 4010

    async def test_connect_for_another_agent_closes_with_4010(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent("octavia", "ws-001")
            add_connection(running.pool, "ws-001", "cipher")
            assert await agent.closed() == 4010

    async def test_connect_for_another_agent_sets_aside_what_is_pending(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent("octavia", "ws-001", pongs=False)
            running.send()
            await agent.message()
            add_connection(running.pool, "ws-001", "cipher")
            await agent.closed()
            assert running.db.rows("SELECT delivered, reject_reason FROM messages") == [(0, "agent changed")]

    async def test_connect_for_the_same_agent_closes_with_1012(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent()
            running.offline()
            assert await agent.closed() == 1012

    async def test_agent_that_comes_back_after_it_gets_everything(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent(pongs=False)
            seqs = running.send_many(3)
            running.offline()
            await agent.closed()
            seqs += running.send_many(2)
            assert await (await running.agent()).messages(5) == seqs


class TestGoodbye:
    @pytest.mark.parametrize("code", [1000, 1001, None])
    async def test_of_the_peer_disconnects(self, database: Path, code: Optional[int]) -> None:
        async with gateway(database) as running:
            await (await running.agent()).say_goodbye(code)
            connection = await running.socket_ended()
            assert (connection.status, connection.close_code) == ("disconnected", code or 1005)

    async def test_is_answered_with_its_code(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent()
            await agent.send(CLOSE, b"\x03\xe8")
            opcode, payload = await agent.frame()
            assert (opcode, payload[:2]) == (CLOSE, b"\x03\xe8")

    async def test_reason_of_the_peer_is_kept(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent()
            await agent.send(CLOSE, b"\x03\xe8shift is over")
            assert (await running.socket_ended()).close_reason == "shift is over"

    @pytest.mark.parametrize("code", [1002, 1009, 1011, 3000, 4000])
    async def test_with_another_code_leaves_it_active(self, database: Path, code: int) -> None:
        async with gateway(database) as running:
            await (await running.agent()).say_goodbye(code)
            connection = await running.socket_ended()
            assert (connection.status, connection.close_code) == ("active", code)


class TestLostSocket:
    async def test_reset_leaves_it_active_with_1006(self, database: Path) -> None:
        async with gateway(database) as running:
            (await running.agent()).reset()
            connection = await running.socket_ended()
            assert (connection.status, connection.close_code) == ("active", 1006)

    async def test_end_of_the_stream_leaves_it_active_with_1006(self, database: Path) -> None:
        async with gateway(database) as running:
            (await running.agent()).drop()
            connection = await running.socket_ended()
            assert (connection.status, connection.close_code) == ("active", 1006)

    async def test_in_the_middle_of_a_frame_leaves_it_active_with_1006(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent()
            agent._writer.write(b"\x81\xfe")
            agent.drop()
            connection = await running.socket_ended()
            assert (connection.status, connection.close_code) == ("active", 1006)

    async def test_what_is_sent_meanwhile_comes_when_it_is_back(self, database: Path) -> None:
        async with gateway(database) as running:
            (await running.agent()).reset()
            await running.socket_ended()
            seqs = running.send_many(3)
            assert await (await running.agent()).messages(3) == seqs

    @pytest.mark.parametrize("known", [False, True])
    async def test_before_its_registration_takes_nothing_over(
        self, known: bool, database: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usual, lost = TcpPeer.connection_lost, asyncio.Event()

        def noted(peer: TcpPeer, error: Optional[BaseException]) -> None:
            usual(peer, error)
            lost.set()

        monkeypatch.setattr(TcpPeer, "connection_lost", noted)
        async with gateway(database) as running:
            agent = await running.agent() if known else None
            other = running.db
            other.execute("BEGIN IMMEDIATE")
            before = len(running.quotas._entered)
            connection = socket.create_connection(("127.0.0.1", int(running.url.rsplit(":", 1)[1])))
            connection.sendall(
                b"GET /ws?agent=octavia&ws_id=ws-001 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            await running.until(lambda: len(running.quotas._entered) > before)
            connection.close()
            # The gateway knows that the peer has gone when it could register it.
            await within(lost.wait())
            other.execute("ROLLBACK")
            await running.until(lambda: len(running.quotas._entered) == before)
            if agent is None:
                assert running.ledger.find("ws-001") is None
            else:
                assert running.connection().epoch == 1
                running.send()
                await agent.message()
        assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


class TestNotThisProtocol:
    @pytest.mark.parametrize(
        "text",
        [b"hello", b"[]", b"{}", b'{"type":"hello"}', b'{"type":"ack","seq":true}', b"[" * 60_000],
        ids=["text", "list", "empty", "unknown", "bool", "deep"],
    )
    async def test_text_closes_with_4000(self, database: Path, text: bytes) -> None:
        async with gateway(database) as running:
            agent = await running.agent(ack="explicit")
            await agent.send(TEXT, text)
            assert await agent.closed() == 4000

    async def test_binary_frame_closes_with_4000(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent()
            await agent.send(BINARY, b"{}")
            assert await agent.closed() == 4000

    async def test_frame_over_64_kib_closes_with_1009(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent()
            await agent.send(TEXT, b"x" * (64 * 1024 + 1))
            assert await agent.closed() == 1009

    async def test_frame_of_64_kib_is_read(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent(ack="explicit")
            frame = b'{"type":"ack","seq":0}'
            await agent.send(TEXT, frame + b" " * (64 * 1024 - len(frame)))
            await agent.send(PING, b"still here?")
            assert await agent.frame() == (PONG, b"still here?")

    async def test_not_utf_8_closes_with_1007(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent()
            await agent.send(TEXT, b"\xff\xfe")
            assert await agent.closed() == 1007

    @pytest.mark.parametrize(
        ("opcode", "payload", "code"),
        [(TEXT, b"hello", 4000), (BINARY, b"", 4000), (TEXT, b"x" * 70_000, 1009), (TEXT, b"\xff", 1007)],
        ids=["text", "binary", "large", "not UTF-8"],
    )
    async def test_the_ledger_has_the_code_and_the_connection_stays_active(
        self, database: Path, opcode: int, payload: bytes, code: int
    ) -> None:
        async with gateway(database) as running:
            agent = await running.agent()
            await agent.send(opcode, payload)
            await agent.closed()
            connection = await running.socket_ended()
            assert (connection.status, connection.close_code) == ("active", code)

    async def test_reserved_bits_close(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent()
            await agent.send(TEXT | 0x70, b"{}")
            assert await agent.closed() == 1002


async def test_no_file_descriptors_are_left_behind(database: Path) -> None:
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("needs /proc")

    def open_sockets() -> int:
        # Of sockets alone: the threads of a gateway may open the ledger later.
        found = 0
        for each in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                found += os.readlink(each).startswith("socket:")  # noqa: PTH115
        return found

    async with gateway(database) as running:

        async def once(end: str) -> None:
            agent = await running.agent()
            if end == "goodbye":
                await agent.say_goodbye()
            elif end == "reset":
                agent.reset()
            else:
                agent.drop()
            await running.socket_ended()

        await once("goodbye")
        before = open_sockets()
        for end in ("goodbye", "reset", "drop") * 10:
            await once(end)
        await running.until(lambda: open_sockets() <= before)
