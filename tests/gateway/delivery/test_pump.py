"""What was committed reaches the agents: in order, within their windows, the backlog first."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Callable

import pytest

from tests.support import PONG, gateway, open_socket, open_sql, until
from ws_manager import Ledger, broadcast, open_ledger, settings
from ws_manager.gateway.bell import Bell
from ws_manager.gateway.delivery import pump
from ws_manager.gateway.delivery.ledger_threads import LedgerThreads, Result
from ws_manager.gateway.delivery.pump import Pump
from ws_manager.models import PendingMessage


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
        broadcast(running.pool, running.ledger, {"n": 1})
        assert [(await agent.message())["content"] for agent in agents] == [{"n": 1}] * 20


async def test_messages_go_out_while_another_process_holds_the_write_lock(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        seqs = running.send_many(1500)
        await agent.messages(1000)
        other = open_sql(database)
        try:
            other.execute("BEGIN IMMEDIATE")
            await agent.ack(seqs[999])
            assert await agent.messages(500) == seqs[1000:]
        finally:
            other.close()


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


class Sessions:
    """Live sessions that note what they are offered."""

    def __init__(self) -> None:
        self.offered: list[PendingMessage] = []

    def dispatch(self, messages: list[PendingMessage]) -> None:
        self.offered += messages

    def check(self, ws_ids: Iterable[str]) -> None:
        pass


class LateThreads(LedgerThreads):
    """Threads whose readings, if asked for while `late` is True, return only after `go_on` is set."""

    late = False
    held = 0

    def __init__(self, database: Path) -> None:
        super().__init__(database, settings.sizes())
        self.go_on = asyncio.Event()

    def read(self, call: Callable[[Ledger], Result]) -> asyncio.Future[Result]:
        result = super().read(call)
        return asyncio.ensure_future(self._later(result)) if self.late else result

    async def _later(self, result: asyncio.Future[Result]) -> Result:
        found = await result
        self.held += 1
        await self.go_on.wait()
        return found


@contextlib.asynccontextmanager
async def pumping(database: Path) -> AsyncIterator[tuple[Ledger, LateThreads, Pump, Sessions]]:
    """A pump at work over a ledger with the connection ws-001, which its gateway has."""
    with open_ledger(database) as ledger:
        open_socket(ledger, "octavia", "ws-001", gateway="g")
        threads, sessions = LateThreads(database), Sessions()
        await threads.open()
        pump = Pump(threads, "g", Bell())
        await pump.open()
        running = asyncio.ensure_future(pump.run(sessions.dispatch, sessions.check))
        try:
            yield ledger, threads, pump, sessions
        finally:
            running.cancel()
            await asyncio.wait([running])
            await threads.close()


async def test_a_session_may_go_live_with_the_rest_of_its_backlog(database: Path) -> None:
    async with pumping(database) as (ledger, _, pump, sessions):
        for number in range(3):
            ledger.send("ws-001", number)
        await until(lambda: len(sessions.offered) == 3)
        messages, live = await pump.backlog("ws-001", 0, 2)
        assert (len(messages), live) == (2, False)
        messages, live = await pump.backlog("ws-001", messages[-1].seq, 2)
        assert (len(messages), live) == (1, True)


async def test_it_may_not_where_a_message_was_offered_since_its_backlog_was_read(database: Path) -> None:
    async with pumping(database) as (ledger, threads, pump, sessions):
        ledger.send("ws-001", "first")
        await until(lambda: len(sessions.offered) == 1)
        threads.late = True
        reading = asyncio.ensure_future(pump.backlog("ws-001", sessions.offered[0].seq, 10))
        await asyncio.sleep(0)
        threads.late = False
        # The reading of the backlog is over once a later call to the same thread is.
        await threads.read(lambda _: None)
        ledger.send("ws-001", "second")
        await until(lambda: len(sessions.offered) == 2)
        threads.go_on.set()
        assert await reading == ([], False)
        assert [
            message.content for message in (await pump.backlog("ws-001", sessions.offered[0].seq, 10))[0]
        ] == ['"second"']


async def test_it_may_not_where_a_reading_before_is_not_offered_yet(database: Path) -> None:
    async with pumping(database) as (ledger, threads, pump, sessions):
        ledger.send("ws-001", "first")
        await until(lambda: len(sessions.offered) == 1)
        threads.late = True
        ledger.send("ws-001", "second")
        await until(lambda: threads.held > 0)
        threads.late = False
        messages, live = await pump.backlog("ws-001", sessions.offered[0].seq, 10)
        assert (len(messages), live, len(sessions.offered)) == (1, False, 1)
        threads.go_on.set()


async def test_a_single_message_does_not_wait_while_the_pump_rests(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "_LONGEST_REST", 3600.0)
    monkeypatch.setattr(pump, "_REST_SECONDS_A_MESSAGE", 3600.0)
    async with gateway(database) as running:
        agent = await running.agent()
        sent = running.send_many(pump._MANY)
        assert await agent.messages(len(sent)) == sent
        for _ in range(3):
            seq = running.send()
            assert await agent.messages(1) == [seq]


async def test_a_session_is_live_before_anything_else_runs_once_its_backlog_was_read(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway(database) as running:
        read, seen = running.server._pump.backlog, []

        async def backlog(ws_id: str, after: int, limit: int) -> tuple[list[PendingMessage], bool]:
            messages, live = await read(ws_id, after, limit)
            session = running.server._hub._sockets[ws_id].session
            # What the pump offers next would come at this moment.
            asyncio.get_running_loop().call_soon(lambda: seen.append((live, session.live)))
            return messages, live

        monkeypatch.setattr(running.server._pump, "backlog", backlog)
        await running.agent()
        await running.until(lambda: (True, True) in seen)
        assert all(is_live == live for live, is_live in seen)
