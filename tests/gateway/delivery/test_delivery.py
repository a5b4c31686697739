"""From the ledger to the wire and back, over real sockets."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from pathlib import Path

import aiohttp
import pytest
import websockets
from aiohttp import web

from tests.support import LIMIT, PING, PONG, TEXT, gateway, until, within
from ws_manager import broadcast
from ws_manager.tokens import Claims


async def test_greeting_has_the_documented_fields(database: Path) -> None:
    async with gateway(database, heartbeat_timeout=30) as running:
        agent = await running.agent("octavia", "ws-001")
        assert agent.greeting == {
            "type": "connected",
            "ws_id": "ws-001",
            "agent": "octavia",
            "resumed": False,
            "pending": 0,
            "seq": 0,
            "heartbeat": 10.0,
        }


async def test_ws_id_is_made_up_where_none_is_given(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent("octavia", None)
        assert running.connection(agent.greeting["ws_id"]).agent == "octavia"


async def test_message_has_the_documented_envelope(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent()
        sent = running.ledger.send("ws-001", {"task": "ü"}, "alert", "ws-001")
        assert sent is not None
        assert await agent.message() == {
            "type": "message",
            "seq": sent.db_id,
            "id": sent.msg_id,
            "msg_type": "alert",
            "sender": "ws-001",
            "sent_at": sent.sent_at,
            "content": {"task": "ü"},
        }


async def test_pong_marks_as_delivered(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent()
        seqs = running.send_many(3)
        assert await agent.messages(3) == seqs
        reading = asyncio.create_task(agent.closed())
        await running.confirmed(*seqs)
        reading.cancel()


async def test_client_that_never_pongs_is_never_delivered(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(pongs=False)
        seq = running.send()
        assert await agent.messages(1) == [seq]
        await agent.ping()
        # What it says itself has been read, and dealt with, when the answer is there.
        await agent.ack(seq)
        assert await agent.error() == "conflict"
        await agent.say_goodbye()
        await running.socket_ended()
        assert running.delivered() == []


async def test_pong_with_another_payload_marks_nothing(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(pongs=False)
        running.send()
        await agent.message()
        payload = await agent.ping()
        for guess in (b"", b"1", payload[:-1] + b"9"):
            await agent.send(PONG, guess)
        await agent.say_goodbye()
        await running.socket_ended()
        assert running.delivered() == []


async def test_explicit_ack_marks_up_to_its_number(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        seqs = running.send_many(3)
        await agent.messages(3)
        await agent.ack(seqs[1])
        await running.confirmed(*seqs[:2])
        assert running.delivered() == seqs[:2]


async def test_rejected_message_is_set_aside_with_its_reason(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        seqs = running.send_many(3)
        await agent.messages(3)
        await agent.say(type="reject", seq=seqs[1], reason="too odd")
        await agent.ack(seqs[2])
        await running.confirmed(seqs[0], seqs[2])
        (row,) = running.db.rows("SELECT delivered, reject_reason FROM messages WHERE id = ?", (seqs[1],))
        assert row == (0, "too odd")


async def test_rejected_message_does_not_come_again(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        seqs = running.send_many(2)
        await agent.messages(2)
        await agent.say(type="reject", seq=seqs[0])
        await agent.say_goodbye(1001)
        again = await running.agent(ack="explicit")
        assert await again.messages(1) == [seqs[1]]


async def test_registration_does_not_overtake_the_receipts_before_it(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        seqs = running.send_many(2)
        await agent.messages(2)
        busy = threading.Event()
        holding = asyncio.ensure_future(running.server._threads.write(lambda _: busy.wait(LIMIT)))
        # The first receipt waits for the writing thread, the second for the first.
        for seq in seqs:
            await agent.ack(seq)
            await agent.send(PING, b"read so far")
            assert await agent.frame() == (PONG, b"read so far")
        await agent.say_goodbye()
        check, arrived = running.server._sockets._access.check, asyncio.Event()

        def note(request: web.Request) -> Claims:
            arrived.set()
            return check(request)

        running.server._sockets._access.check = note  # type: ignore[method-assign]
        coming_back = asyncio.create_task(running.agent(ack="explicit"))
        await within(arrived.wait())
        for _ in range(10):
            await asyncio.sleep(0)
        busy.set()
        assert (await coming_back).greeting["pending"] == 0
        await holding


async def test_resume_gives_what_is_pending_before_anything_newer(database: Path) -> None:
    async with gateway(database) as running:
        running.offline()
        pending = running.send_many(50)
        agent = await running.agent()
        newer = running.send_many(50)
        assert await agent.messages(100) == pending + newer


async def test_resume_of_a_backlog_that_grows_keeps_the_order(database: Path) -> None:
    async with gateway(database) as running:
        running.offline()
        running.offline("cipher", "ws-002")
        seqs = running.send_many(1500)
        agent = await running.agent()
        got = []
        for _ in range(100):
            seqs += running.send_many(5)
            running.send_many(5, "ws-002")
            got += await agent.messages(20)
        assert got == seqs


async def test_resume_says_what_waits_and_what_was_confirmed(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        seqs = running.send_many(3)
        await agent.messages(3)
        await agent.ack(seqs[0])
        await running.confirmed(seqs[0])
        agent.drop()
        greeting = (await running.agent()).greeting
        assert (greeting["resumed"], greeting["pending"], greeting["seq"]) == (True, 2, seqs[0])


async def test_unconfirmed_message_comes_again_with_the_same_id(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        running.send()
        first = await agent.message()
        agent.reset()
        again = await running.agent(ack="explicit")
        assert await again.message() == first


async def test_window_holds_the_1001st_message_back_until_a_receipt(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        seqs = running.send_many(1500)
        assert await agent.messages(1000) == seqs[:1000]
        # An answer overtakes nothing: were the next message on its way, it would come first.
        await agent.say(type="reject", seq=0)
        assert await agent.error() == "conflict"
        await agent.ack(seqs[999])
        assert await agent.messages(500) == seqs[1000:]


async def test_window_counts_bytes(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        seqs = running.send_many(8, content="x" * 200_000)
        await agent.messages(5)
        await agent.say(type="reject", seq=0)
        assert await agent.error() == "conflict"
        await agent.ack(seqs[4])
        assert await agent.messages(3) == seqs[5:]


async def test_slow_reader_with_a_large_backlog_does_not_delay_another_agent(database: Path) -> None:
    async with gateway(database) as running:
        running.offline("cipher", "ws-slow")
        running.send_many(60, "ws-slow", "x" * 200_000)
        slow = await running.agent("cipher", "ws-slow", receive_buffer=4096)
        slow.stop_reading()
        agent = await running.agent()
        seq = running.send()
        assert (await agent.message())["seq"] == seq
        await agent.send(PONG, await agent.ping())
        await running.confirmed(seq)


async def test_broadcast_of_another_connection_reaches_every_agent(database: Path) -> None:
    async with gateway(database) as running:
        agents = [await running.agent("octavia", f"ws-{number}") for number in range(20)]
        broadcast(running.pool, running.db, {"n": 1})
        assert [(await agent.message())["content"] for agent in agents] == [{"n": 1}] * 20


async def test_metadata_of_the_handshake_is_kept_on_resume(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(metadata='{"region":"us-west"}')
        agent.drop()
        await running.agent()
        assert running.connection().metadata == {"region": "us-west"}


async def test_metadata_of_a_later_handshake_replaces_it(database: Path) -> None:
    async with gateway(database) as running:
        await running.agent(metadata='{"region":"us-west"}')
        await running.agent(metadata='{"v":2}')
        assert running.connection().metadata == {"v": 2}


async def test_ping_of_the_peer_is_answered_with_its_payload(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent()
        await agent.send(PING, b"are you there?")
        assert await agent.frame() == (PONG, b"are you there?")


async def test_fragmented_frames_of_the_peer_are_put_together(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        seq = running.send()
        await agent.message()
        text = json.dumps({"type": "ack", "seq": seq}).encode()
        await agent.send(TEXT, text[:5], last=False)
        await agent.send(PING, b"between")
        await agent.send(0, text[5:])
        await running.confirmed(seq)


async def test_agent_of_the_websockets_library_is_delivered_by_pong(database: Path) -> None:
    async with gateway(database) as running:
        url = running.url.replace("http", "ws") + "/ws?agent=octavia&ws_id=ws-001"
        async with websockets.connect(url, proxy=None) as agent:
            await within(agent.recv())
            seq = running.send("hello")
            assert json.loads(await within(agent.recv()))["content"] == "hello"
            await running.confirmed(seq)


async def test_agent_of_aiohttp_is_delivered_by_pong(database: Path) -> None:
    async with gateway(database) as running, aiohttp.ClientSession() as session:
        agent = await session.ws_connect(f"{running.url}/ws?agent=octavia&ws_id=ws-001")
        await agent.receive_json(timeout=10)
        seq = running.send("hello")
        assert (await agent.receive_json(timeout=10))["content"] == "hello"
        reading = asyncio.create_task(agent.receive())
        await running.confirmed(seq)
        reading.cancel()
        await asyncio.wait([reading])
        await agent.close()


async def test_messages_go_out_while_another_process_holds_the_write_lock(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        seqs = running.send_many(1500)
        await agent.messages(1000)
        other = sqlite3.connect(database, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            await agent.ack(seqs[999])
            assert await agent.messages(500) == seqs[1000:]
        finally:
            other.close()


async def test_receipts_survive_another_process_that_holds_the_write_lock(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        seqs = running.send_many(3)
        await agent.messages(3)
        other = sqlite3.connect(database, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            await agent.ack(seqs[2])
            await agent.send(PING, b"read so far")
            assert await agent.frame() == (PONG, b"read so far")
            assert running.delivered() == []
            other.execute("ROLLBACK")
        finally:
            other.close()
        await running.confirmed(*seqs)


async def test_what_is_committed_at_once_goes_out_beyond_the_first_page(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Far more pages than the commits before it make the gateway look.
    monkeypatch.setattr("ws_manager.gateway.delivery.pump._PUMP_ROWS", 10)

    async with gateway(database) as running:
        agent = await running.agent()
        with running.db.transaction():
            seqs = running.send_many(1000)
        # Nothing else can be committed, after which the gateway would look again.
        running.db.execute("BEGIN IMMEDIATE")
        assert await agent.messages(1000) == seqs
        running.db.execute("ROLLBACK")


async def test_what_could_not_be_written_stays_before_what_came_later(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Long enough for the agent to leave while the first attempt still waits.
    monkeypatch.setattr("ws_manager.repository.sqlite.database.BUSY_SECONDS", 1.0)

    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        seq = running.send()
        await agent.messages(1)
        running.db.execute("BEGIN IMMEDIATE")
        receipts, before = running.server._receipts, running.server._receipts._reported_count
        await agent.say(type="reject", seq=seq, reason="not mine")
        await until(lambda: receipts._reported_count > before and not receipts._reports)
        await agent.say_goodbye()
        await until(lambda: not len(running.server._hub))
        await until(lambda: "cannot write receipts" in caplog.text)
        running.db.execute("ROLLBACK")
        await running.socket_ended()
        kinds = [row[0] for row in running.db.rows("SELECT kind FROM events ORDER BY id")]
        assert kinds == ["opened", "set_aside", "closed", "disconnected"]
