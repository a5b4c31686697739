"""How a gateway stops: it accepts nobody, closes every socket, and writes what agents confirm meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from tests.support import BINARY, CLOSE, LIMIT, PONG, TEXT, Clock, Closed, RawAgent, Refused, gateway, until
from ws_manager import get_db, get_message_history
from ws_manager.gateway.delivery import hub
from ws_manager.gateway.http.sockets import SocketRoute
from ws_manager.gateway.limits import Limits
from ws_manager.models import seconds_before, utc_now
from ws_manager.protocol.close_codes import CloseCode
from ws_manager.repository.sqlite.locks import gateway_lock


class Stoppable:
    """A gateway that the test can stop while it goes on."""

    def __init__(self, database: Path, **options: object) -> None:
        self._context = gateway(database, **options)  # type: ignore[arg-type]

    async def __aenter__(self) -> Stoppable:
        self.running = await self._context.__aenter__()
        self._stopping: Optional[asyncio.Future[Any]] = None
        return self

    def stop(self) -> None:
        self._stopping = asyncio.ensure_future(self._context.__aexit__(None, None, None))

    async def stopped(self) -> None:
        """Wait until it has ended."""
        assert self._stopping is not None
        await asyncio.wait_for(asyncio.shield(self._stopping), LIMIT)

    async def __aexit__(self, *_: object) -> None:
        if self._stopping is None:
            self.stop()
        await self.stopped()


def history(database: Path) -> dict[int, tuple[int, Optional[str]]]:
    """What is in the ledger in the end: by number, whether it is confirmed, and why it was set aside."""
    with contextlib.closing(get_db(database)) as db:
        rows = get_message_history(db)
        return {row["id"]: (row["delivered"], row["reject_reason"]) for row in rows}


@pytest.mark.parametrize("code", [CloseCode.GOING_AWAY, CloseCode.RESTARTING])
async def test_sockets_are_closed_with_the_code_that_was_given(database: Path, code: CloseCode) -> None:
    async with Stoppable(database, stop_code=code) as gate:
        agent = await gate.running.agent()
        gate.stop()
        assert await agent.closed() == code


async def test_many_sockets_are_closed_in_batches(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_LEAST_BATCH", 2)
    monkeypatch.setattr(hub, "_BATCH_SECONDS", 0.05)

    order: asyncio.Queue[str] = asyncio.Queue()

    async def close(agent: RawAgent, ws_id: str) -> None:
        await agent.closed()
        await order.put(ws_id)

    async with Stoppable(database, drain_seconds=0.2) as gate:
        agents = {f"ws-{n}": await gate.running.agent(ws_id=f"ws-{n}") for n in range(6)}
        closing = [asyncio.create_task(close(agent, ws_id)) for ws_id, agent in agents.items()]
        gate.stop()
        await order.get()
        # The last batch has not had its turn yet.
        assert sum(task.done() for task in closing) < 6
        await asyncio.gather(*closing)


async def test_handshake_meanwhile_is_answered_503(database: Path) -> None:
    async with Stoppable(database) as gate:
        gate.running.server._sockets.stopping = True
        with pytest.raises(Refused) as refused:
            await gate.running.agent()
        assert refused.value.status == 503
        assert gate.running.ledger.find("ws-001") is None


async def test_whoever_was_sent_away_is_not_swept_meanwhile(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(hub, "_TICK_SECONDS", 0.005)
    async with Stoppable(database, now=clock, heartbeat_timeout=30) as gate:
        # It does not answer the Close frame, so the gateway waits for it, and its hub goes on.
        await gate.running.agent("cipher", "ws-002", pongs=False)
        agent = await gate.running.agent()
        gate.stop()
        assert await agent.closed() == CloseCode.GOING_AWAY
        agent.drop()
        await gate.running.socket_ended()
        gate.running.db.execute("UPDATE connections SET last_heartbeat = ?", (seconds_before(utc_now(), 31),))
        clock.forward(31)
        await gate.stopped()
    with contextlib.closing(get_db(database)) as db:
        assert dict(db.execute("SELECT ws_id, status FROM connections"))["ws-001"] == "active"


async def test_request_that_ends_when_the_gateway_waits_no_longer_is_no_defect(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun = asyncio.Event()

    async def until_given_up(_route: SocketRoute, request: web.Request) -> web.Response:
        begun.set()
        # No event tells of this: aiohttp gives up within one turn of the loop.
        while (waiter := request.protocol._handler_waiter) is None or not waiter.cancelled():  # noqa: ASYNC110
            await asyncio.sleep(0)
        return web.Response()

    monkeypatch.setattr(SocketRoute, "open", until_given_up)
    async with Stoppable(database) as gate:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(gate.running.server.url).port)
        writer.write(b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await asyncio.wait_for(begun.wait(), LIMIT)
        gate.stop()
        assert await asyncio.wait_for(reader.read(), LIMIT) == b""
        await gate.stopped()
        writer.close()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


class TestBetweenTheCloseFrames:
    """What is confirmed after our close frame and before the peer's."""

    async def test_a_last_ping_comes_before_the_close_frame(self, database: Path) -> None:
        async with Stoppable(database, close_seconds=LIMIT) as gate:
            agent = await gate.running.agent(pongs=False)
            first = gate.running.send()
            await agent.messages(1)
            await agent.ping()
            second = gate.running.send()
            await agent.messages(1)
            # The first Ping is not answered, so no other has gone out for the second message.
            gate.stop()
            last = await agent.ping()
            opcode, payload = await agent.frame()
            assert (opcode, payload[:2]) == (CLOSE, struct.pack("!H", 1001))
            await agent.send(PONG, last)
            await gate.running.confirmed(first, second)
            await agent.send(CLOSE, payload[:2])

    async def test_no_second_ping_where_one_is_under_way(self, database: Path) -> None:
        async with Stoppable(database, close_seconds=LIMIT) as gate:
            agent = await gate.running.agent(pongs=False)
            seq = gate.running.send()
            await agent.messages(1)
            ping = await agent.ping()
            gate.stop()
            opcode, payload = await agent.frame()
            assert opcode == CLOSE
            await agent.send(PONG, ping)
            await gate.running.confirmed(seq)
            await agent.send(CLOSE, payload[:2])

    async def test_an_ack_counts(self, database: Path) -> None:
        async with Stoppable(database, close_seconds=LIMIT) as gate:
            agent = await gate.running.agent(ack="explicit")
            seqs = gate.running.send_many(2)
            await agent.messages(2)
            gate.stop()
            opcode, payload = await agent.frame()
            assert opcode == CLOSE
            await agent.ack(seqs[0])
            await agent.say(type="reject", seq=seqs[1], reason="not mine")
            await agent.send(CLOSE, payload[:2])
            await gate.stopped()
        assert history(database) == {seqs[0]: (1, None), seqs[1]: (0, "not mine")}

    async def test_what_comes_after_the_peers_close_frame_does_not_count(self, database: Path) -> None:
        async with Stoppable(database, close_seconds=LIMIT) as gate:
            agent = await gate.running.agent(ack="explicit")
            seq = gate.running.send()
            await agent.messages(1)
            gate.stop()
            _, payload = await agent.frame()
            await agent.send(CLOSE, payload[:2])
            with contextlib.suppress(ConnectionError):
                await agent.ack(seq)
            await gate.stopped()
        assert history(database) == {seq: (0, None)}

    async def test_requests_are_not_done_any_more(self, database: Path) -> None:
        async with Stoppable(database, close_seconds=LIMIT) as gate:
            agent = await gate.running.agent()
            gate.stop()
            _, payload = await agent.frame()
            await agent.say(type="send", ref=1, to="ws-001", content=1)
            await agent.send(CLOSE, payload[:2])
            await gate.stopped()
        assert history(database) == {}

    async def test_a_peer_that_does_not_answer_is_dropped_after_the_close_time_out(
        self, database: Path
    ) -> None:
        async with Stoppable(database, close_seconds=0.1) as gate:
            agent = await gate.running.agent()
            gate.stop()
            assert (await agent.frame())[0] == CLOSE
            await gate.stopped()
            with pytest.raises(Closed):
                await agent.frame()

    @pytest.mark.parametrize("pongs", [True, False])
    async def test_a_flood_after_the_close_frame_is_not_read_to_its_end(
        self, database: Path, pongs: bool
    ) -> None:
        limits = Limits(frames_per_second=10)
        async with Stoppable(database, close_seconds=2 * LIMIT, limits=limits) as gate:
            agent = await gate.running.agent()
            gate.stop()
            assert (await agent.frame())[0] == CLOSE
            with contextlib.suppress(ConnectionError):
                for _ in range(1000):
                    await agent.send(PONG if pongs else TEXT, b"{}")
            await gate.stopped()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ((TEXT, b"nonsense"), 4000),
        ((TEXT, b"\xff"), 1007),
        ((TEXT, b"x" * 70_000), 1009),
        ((3, b""), 1002),
    ],
)
async def test_after_misbehaviour_nothing_counts(database: Path, sent: tuple[int, bytes], code: int) -> None:
    async with gateway(database, close_seconds=LIMIT) as running:
        agent = await running.agent(pongs=False)
        seq = running.send()
        await agent.messages(1)
        ping = await agent.ping()
        await agent.send(*sent)
        opcode, payload = await agent.frame()
        assert (opcode, struct.unpack("!H", payload[:2])[0]) == (CLOSE, code)
        with contextlib.suppress(ConnectionError):
            await agent.send(PONG, ping)
        await running.socket_ended()
        assert running.delivered() == []
        assert running.connection().close_code == code
        assert seq


@pytest.mark.parametrize("how", ["replaced", "disconnected"])
async def test_of_an_older_registration_nothing_counts(database: Path, how: str) -> None:
    async with gateway(database, close_seconds=2) as running:
        agent = await running.agent(ack="explicit")
        seq = running.send()
        await agent.messages(1)
        if how == "replaced":
            newer = await running.agent(ack="explicit")
            await newer.messages(1)
        else:
            running.ledger.disconnect("ws-001")
        opcode, payload = await agent.frame()
        assert opcode == CLOSE
        await agent.ack(seq)
        await agent.send(CLOSE, payload[:2])
        await until(lambda: len(running.server._hub) == (how == "replaced"))
        await running.server._receipts.settled()
        assert running.delivered() == []


async def test_the_last_receipts_are_written_although_another_process_keeps_the_write_lock(
    database: Path,
) -> None:
    async with Stoppable(database, close_seconds=LIMIT) as gate:
        running = gate.running
        agent = await running.agent(ack="explicit")
        seqs = running.send_many(3)
        await agent.messages(3)
        held = get_db(database)
        held.execute("BEGIN IMMEDIATE")
        gate.stop()
        _, payload = await agent.frame()
        for seq in seqs:
            await agent.ack(seq)
        await agent.send(CLOSE, payload[:2])
        await until(lambda: not len(running.server._hub))
        # The gateway holds its lock until they are written.
        assert gateway_lock(database).holder() is True
        held.execute("ROLLBACK")
        held.close()
        await gate.stopped()
    assert set(history(database).values()) == {(1, None)}


async def test_the_last_receipts_are_written_although_the_first_attempt_fails(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Long enough for the gateway to begin its last wait while the first attempt goes on.
    monkeypatch.setattr("ws_manager.repository.sqlite.database.BUSY_SECONDS", 1.0)

    async with Stoppable(database, close_seconds=LIMIT) as gate:
        running = gate.running
        agent = await running.agent(ack="explicit")
        seq = running.send()
        await agent.messages(1)
        held = get_db(database)
        held.execute("BEGIN IMMEDIATE")
        gate.stop()
        _, payload = await agent.frame()
        await agent.ack(seq)
        await agent.send(CLOSE, payload[:2])
        await until(lambda: "cannot write receipts" in caplog.text)
        held.execute("ROLLBACK")
        held.close()
        await gate.stopped()
    assert set(history(database).values()) == {(1, None)}


async def test_sockets_close_beside_each_other(database: Path) -> None:
    async with Stoppable(database, close_seconds=LIMIT) as gate:
        agents = [await gate.running.agent(ws_id=f"ws-{number}") for number in range(20)]
        gate.stop()
        # All have their close frame before the first of them answers.
        payloads = [(await agent.frame())[1] for agent in agents]
        for agent, payload in zip(agents, payloads):
            await agent.send(CLOSE, payload[:2])
        await gate.stopped()


async def test_a_handshake_that_ends_while_the_gateway_stops_is_closed_with_the_code(database: Path) -> None:
    async with Stoppable(database, close_seconds=LIMIT) as gate:
        first = await gate.running.agent()
        gate.running.db.execute("BEGIN IMMEDIATE")
        # Its registration waits for the write lock.
        late = asyncio.ensure_future(gate.running.agent(ws_id="ws-late"))
        await until(lambda: len(gate.running.quotas._entered) == 2)
        gate.stop()
        assert (await first.frame())[0] == CLOSE
        gate.running.db.execute("ROLLBACK")
        agent = await late
        assert await agent.closed() == 1001
        await first.send(CLOSE, struct.pack("!H", 1001))
        await gate.stopped()


class TestPeerThatMisbehaved:
    """It has a second to read why its socket was closed, and keeps its connection open."""

    async def test_has_read_its_code_when_the_gateway_has_stopped(self, database: Path) -> None:
        async with Stoppable(database) as gate:
            agent = await gate.running.agent()
            await agent.send(BINARY, b"")
            await gate.running.socket_ended()
            gate.stop()
            assert await agent.closed() == 4000
            await gate.stopped()

    async def test_does_not_keep_the_gateway_from_stopping(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ws_manager.gateway.delivery.agent_socket.TURN_AWAY_SECONDS", 10 * LIMIT)
        monkeypatch.setattr("ws_manager.gateway.http.sockets.TURN_AWAY_SECONDS", 0.01)

        async with Stoppable(database) as gate:
            agent = await gate.running.agent()
            await agent.send(BINARY, b"")
            assert await agent.closed() == 4000
            gate.stop()
            await gate.stopped()
