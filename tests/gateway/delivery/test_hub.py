"""Heartbeats, peers that do not read, and sweeping. The clock is the test's own."""

from __future__ import annotations

import asyncio
import math
import threading
from pathlib import Path
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Callable

import pytest

from tests.support import PING, PONG, Clock, RawAgent, Refused, RunningGateway, gateway, run
from ws_manager.gateway.delivery import hub
from ws_manager.gateway.delivery.agent_socket import AgentSocket
from ws_manager.gateway.limits import Limits
from ws_manager.models import seconds_before, utc_now

BIG = "x" * 200_000
YEARS = 1e8


@pytest.fixture(autouse=True)
def _short_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub looks at its clock often; what it sees there is the test's business."""
    monkeypatch.setattr(hub, "_TICK_SECONDS", 0.005)


def last_heard(running: RunningGateway, ws_id: str, seconds_ago: float) -> None:
    """Write when a connection was last heard."""
    running.db.execute(
        "UPDATE connections SET last_heartbeat = ? WHERE ws_id = ?",
        (seconds_before(utc_now(), seconds_ago), ws_id),
    )


def noted_writes(running: RunningGateway, monkeypatch: pytest.MonkeyPatch):
    """Note what is put before the writing thread, by name. Return the names, and what puts it there unnoted."""
    threads = running.server._threads
    write, queued = threads.write, []

    def noted(call):
        queued.append(call.__name__)
        return write(call)

    monkeypatch.setattr(threads, "write", noted)
    return queued, write


async def blocked(running: RunningGateway, ws_id: str = "ws-001", agent: str = "octavia") -> RawAgent:
    """An agent that has stopped reading while more is on its way than any buffer holds."""
    raw = await running.agent(agent, ws_id, receive_buffer=4096)
    raw.stop_reading()
    socket = running.server._hub._sockets[ws_id]
    connection = socket._transport.get_extra_info("socket")
    connection.setsockopt(SOL_SOCKET, SO_SNDBUF, 4096)
    running.send_many(40, ws_id, BIG)
    seen = []

    def still() -> bool:
        # The kernel's buffers are full: what waits in the gateway has stopped shrinking.
        seen.append(socket._transport.get_write_buffer_size())
        return len(seen) > 20 and seen[-1] > 0 and len(set(seen[-20:])) == 1

    await running.until(still)
    return raw


async def pass_until_dropped(running: RunningGateway, clock: Clock) -> None:
    """Let time pass until a socket is dropped; the kernel may take a little of its buffer even now."""
    open_before = len(running.server._hub._open)

    def dropped() -> bool:
        clock.forward(0.05)
        return len(running.server._hub._open) < open_before

    await running.until(dropped)


class TestHeartbeat:
    async def test_ping_comes_after_a_third_of_the_time_out(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=30) as running:
            agent = await running.agent(pongs=False)
            clock.forward(10)
            await agent.ping()

    async def test_ping_comes_every_20_seconds_whatever_the_time_out(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=300) as running:
            agent = await running.agent(pongs=False)
            assert agent.greeting["heartbeat"] == 20
            for _ in range(2):
                clock.forward(20)
                await agent.ping()

    async def test_silence_closes_with_4008(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=30) as running:
            agent = await running.agent(pongs=False)
            clock.forward(30.5)
            assert await agent.closed() == 4008

    async def test_silence_leaves_the_connection_active(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=30) as running:
            agent = await running.agent(pongs=False)
            clock.forward(30.5)
            await agent.closed()
            connection = await running.socket_ended()
            assert (connection.status, connection.close_code) == ("active", 4008)

    @pytest.mark.parametrize("opcode", [PING, PONG])
    async def test_any_control_frame_keeps_the_socket(self, database: Path, opcode: int) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=30) as running:
            agent = await running.agent(pongs=False)
            for _ in range(4):
                clock.forward(20)
                await agent.ping()
                await agent.send(opcode)
                await agent.send(PING, b"read so far")
                while (await agent.frame())[1] != b"read so far":
                    pass

    async def test_a_lost_socket_counts_from_when_it_was_last_heard(self, database: Path) -> None:
        async with gateway(database, now=Clock(), heartbeat_timeout=30) as running:
            agent = await running.agent()
            last_heard(running, "ws-001", 25)
            agent.drop()
            connection = await running.socket_ended()
            assert connection.last_heartbeat > seconds_before(utc_now(), 20)

    async def test_pong_is_written_to_the_ledger_with_its_latency(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=30) as running:
            agent = await running.agent(pongs=False)
            last_heard(running, "ws-001", 1000)
            clock.forward(10)
            payload = await agent.ping()
            clock.forward(0.25)
            await agent.send(PONG, payload)
            await agent.send(PING, b"read so far")
            assert await agent.frame() == (PONG, b"read so far")
            clock.forward(2)
            await running.until(lambda: running.db.rows("SELECT * FROM heartbeat_log"))
            assert running.db.rows("SELECT ws_id, latency_ms FROM heartbeat_log") == [("ws-001", 250)]
            assert running.connection().last_heartbeat > seconds_before(utc_now(), 100)

    async def test_receipt_ping_that_was_dropped_is_repeated(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=30) as running:
            agent = await running.agent(pongs=False)
            seq = running.send()
            await agent.message()
            await agent.ping()
            clock.forward(10)
            await agent.send(PONG, await agent.ping())
            await running.confirmed(seq)


async def waiting(running: RunningGateway, *ws_ids: str) -> list[RawAgent]:
    """Agents with a message whose receipt Ping has to wait: the one before it was answered just now."""
    agents = [await running.agent("octavia", ws_id) for ws_id in ws_ids]
    for ws_id, agent in zip(ws_ids, agents):
        seq = running.send(None, ws_id)
        await agent.message()
        await agent.send(PONG, await agent.ping())
        await running.confirmed(seq)
        running.send(None, ws_id)
        await agent.message()
    assert running.server._hub._receipts_due.runs
    return agents


class TestReceiptPing:
    async def test_that_waits_comes_once_it_is_due(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=YEARS) as running:
            agents = await waiting(running, "ws-001", "ws-002")
            clock.forward(0.06)
            for agent in agents:
                await agent.ping()
            await running.until(lambda: not running.server._hub._receipts_due.runs)

    async def test_nothing_waits_for_a_socket_that_has_ended(self, database: Path) -> None:
        async with gateway(database, now=Clock(), heartbeat_timeout=YEARS) as running:
            (await waiting(running, "ws-001"))[0].drop()
            await running.socket_ended()
            assert not running.server._hub._receipts_due.runs

    async def test_defect_of_one_socket_keeps_no_other_from_its_own(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=YEARS) as running:
            _, agent = await waiting(running, "ws-001", "ws-002")
            broken = running.server._hub._sockets["ws-001"].session

            def wake(socket: AgentSocket, usual: Callable[[AgentSocket], None] = AgentSocket.wake) -> None:
                assert socket.session is not broken
                usual(socket)

            monkeypatch.setattr(AgentSocket, "wake", wake)
            clock.forward(0.06)
            await agent.ping()
            assert (await running.socket_ended()).close_code == 1006


class TestPeerThatDoesNotRead:
    async def test_is_dropped_after_5_seconds(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=YEARS) as running:
            await blocked(running)
            await pass_until_dropped(running, clock)
            connection = await running.socket_ended()
            assert (connection.status, connection.close_code) == ("active", 4008)

    async def test_keeps_its_messages_pending(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=YEARS) as running:
            await blocked(running)
            await pass_until_dropped(running, clock)
            await running.socket_ended()
            assert running.delivered() == []
            assert (await running.agent()).greeting["pending"] == 40

    async def test_is_dropped_where_it_was_replaced_too(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=YEARS) as running:
            await blocked(running)
            newer = await running.agent()
            await pass_until_dropped(running, clock)
            assert len(running.server._hub._open) == 1
            assert (await newer.message())["content"] == BIG

    async def test_is_dropped_where_it_was_disconnected_too(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=YEARS) as running:
            await blocked(running)
            running.ledger.disconnect("ws-001")
            await running.until(lambda: running.server._hub._sockets["ws-001"].session.close_with)
            await pass_until_dropped(running, clock)
            assert (await running.socket_ended()).close_code == 4010

    async def test_that_reads_again_in_time_is_kept(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, now=clock) as running:
            agent = await blocked(running)
            agent._writer.transport.resume_reading()  # type: ignore[attr-defined]
            clock.forward(4)
            await agent.messages(40)
            reading = asyncio.create_task(agent.closed())
            await running.confirmed(*range(1, 41))
            reading.cancel()

    async def test_does_not_keep_the_gateway_from_stopping(self, database: Path) -> None:
        async with gateway(database, close_seconds=0.05) as running:
            await blocked(running)


class TestSweep:
    async def test_lost_connection_is_disconnected_after_the_time_out(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=30) as running:
            (await running.agent()).reset()
            await running.socket_ended()
            last_heard(running, "ws-001", 31)
            clock.forward(30.5)
            await running.until(lambda: running.connection().status == "disconnected")
            assert running.connection().close_reason == "the connection was lost, then heartbeat timeout"

    async def test_nothing_is_swept_before_one_full_time_out_after_a_start(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=30) as running:
            (await running.agent()).reset()
            await running.socket_ended()
            last_heard(running, "ws-001", 3000)
            clock.forward(29.5)
            other = await running.agent("cipher", "ws-002", pongs=False)
            clock.forward(0.4)
            # The hub has had its turn after that: a later Ping is there.
            clock.forward(-0.1)
            running.send(None, "ws-002")
            await other.message()
            assert running.connection().status == "active"

    @pytest.mark.sqlite_only("while its ledger is locked a gateway cannot renew its lease")
    async def test_nothing_is_swept_before_one_full_time_out_after_the_ledger_kept_somebody_out(
        self, database: Path
    ) -> None:
        clock = Clock()
        limits = Limits(handshake_seconds=1)
        async with gateway(database, now=clock, heartbeat_timeout=30, limits=limits) as running:
            (await running.agent()).reset()
            await running.socket_ended()
            clock.forward(29)
            running.db.execute("BEGIN IMMEDIATE")
            with pytest.raises(Refused) as refused:
                await running.agent()
            running.db.execute("ROLLBACK")
            assert refused.value.status == 503
            # Its registration waited for the ledger, and its peer has gone when it comes through.
            await running.server._threads.write(lambda _: None)
            assert running.connection().epoch == 1
            last_heard(running, "ws-001", 3000)
            clock.forward(29.5)
            other = await running.agent("cipher", "ws-002", pongs=False)
            clock.forward(0.4)
            running.send(None, "ws-002")
            await other.message()
            assert running.connection().status == "active"
            clock.forward(10)
            await running.until(lambda: running.connection().status == "disconnected")

    async def test_nothing_is_swept_before_one_full_time_out_after_the_gateway_stood_still(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=1) as running:
            (await running.agent()).reset()
            await running.socket_ended()
            last_heard(running, "ws-001", 3000)
            clock.forward(0.9)
            # A loop that stood still finds its clock ahead.
            loop = asyncio.get_running_loop()
            real = loop.time
            monkeypatch.setattr(loop, "time", lambda: real() + 0.5)
            other = await running.agent("cipher", "ws-002", pongs=False)
            clock.forward(0.5)
            # The hub has had its turn when a Ping comes, and a sweep was before this registration.
            await other.ping()
            await running.agent("cipher", "ws-003")
            assert running.connection().status == "active"

            def swept() -> bool:
                # A busy machine may let the loop stand still again.
                clock.forward(0.1)
                return running.connection().status == "disconnected"

            await running.until(swept)

    async def test_open_socket_is_not_swept_whatever_its_row_says(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=30) as running:
            (await running.agent("cipher", "ws-002")).reset()
            await running.socket_ended("ws-002")
            agent = await running.agent(pongs=False)
            last_heard(running, "ws-002", 31)
            for _ in range(4):
                clock.forward(10)
                await agent.ping()
                last_heard(running, "ws-001", 31)
                await agent.send(PONG, b"alive")
                await agent.send(PING, b"read so far")
                while (await agent.frame())[1] != b"read so far":
                    pass
            await running.until(lambda: running.connection("ws-002").status == "disconnected")
            assert running.connection("ws-001").status == "active"

    async def test_socket_that_was_opened_while_a_sweep_waited_is_not_swept(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = Clock()
        before, behind = threading.Event(), threading.Event()
        async with gateway(database, now=clock, heartbeat_timeout=30) as running:
            queued, write = noted_writes(running, monkeypatch)
            clock.forward(29.5)
            # What keeps the writing thread: something before the registration, and something behind it.
            write(lambda _: before.wait())
            opening = asyncio.ensure_future(running.agent(pongs=False))
            await running.until(lambda: "open_socket" in queued)
            write(lambda _: behind.wait())
            clock.forward(1)
            await running.until(lambda: "sweep" in queued)
            before.set()
            agent = await opening
            last_heard(running, "ws-001", 31)
            behind.set()
            await write(lambda _: None)
            assert running.connection().status == "active"
            running.send(None)
            await agent.message()

    @pytest.mark.parametrize("stops", [False, True])
    async def test_nor_is_one_that_ended_meanwhile(
        self, stops: bool, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock, before = Clock(), threading.Event()
        async with gateway(database, now=clock, heartbeat_timeout=30) as running:
            queued, write = noted_writes(running, monkeypatch)
            clock.forward(29.5)
            agent = None if stops else await running.agent(pongs=False)
            write(lambda _: before.wait())
            clock.forward(1)
            await running.until(lambda: "sweep" in queued)
            if agent is None:
                # The gateway is stopping, and has closed a socket that came meanwhile.
                monkeypatch.setattr(running.server._hub, "_swept_at", math.inf)
                running.ledger.delivery.open_socket("octavia", "ws-001", None, running.server._id)
            else:
                agent.reset()
                await running.until(lambda: not len(running.server._hub))
            last_heard(running, "ws-001", 31)
            before.set()
            await write(lambda _: None)
            assert running.connection().status == "active"

    async def test_row_of_a_command_is_left_to_commands(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=30) as running:
            (await running.agent("cipher", "ws-002")).reset()
            await running.socket_ended("ws-002")
            running.offline("octavia", "ws-001")
            last_heard(running, "ws-001", 31)
            last_heard(running, "ws-002", 31)
            clock.forward(30.5)
            await running.until(lambda: running.connection("ws-002").status == "disconnected")
            assert running.connection("ws-001").status == "active"

    def test_check_of_a_command_leaves_the_gateways_connections(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running:
                await running.agent()
                last_heard(running, "ws-001", 3000)
                report = await asyncio.get_running_loop().run_in_executor(None, check, database)
                assert report == ["ws-001"]

        def check(path: Path) -> list[str]:
            from ws_manager import ConnectionPool, heartbeat_check, open_ledger

            with open_ledger(path) as ledger:
                return heartbeat_check(ConnectionPool(ledger), ledger, 30)["active"]

        run(scenario())
