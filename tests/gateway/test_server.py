"""The gateway as a whole: one per file, how it stops, and trouble with the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import LIMIT, PING, PONG, Clock, Refused, db_of, gateway, refusal
from ws_manager import get_db
from ws_manager.errors import Conflict, LedgerError, LedgerReplaced
from ws_manager.gateway.limits import Limits
from ws_manager.gateway.options import GatewayOptions
from ws_manager.gateway.server import GatewayServer
from ws_manager.models import Closure
from ws_manager.protocol.close_codes import CloseCode
from ws_manager.protocol.gateway_session import GatewaySession


class Seen(logging.Handler):
    """Sets an event when the gateway's log has a line with a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self.event = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self.event.set()

    async def wait(self) -> None:
        await asyncio.wait_for(self.event.wait(), LIMIT)


@contextlib.contextmanager
def log_line(text: str) -> Iterator[Seen]:
    """Watch the gateway's log."""
    log, seen = logging.getLogger("ws_manager.gateway"), Seen(text)
    log.addHandler(seen)
    try:
        yield seen
    finally:
        log.removeHandler(seen)


class TestStop:
    async def test_sockets_are_closed_with_1001(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent()
            closing = asyncio.create_task(agent.closed())
        assert await closing == 1001

    async def test_connections_stay_active(self, database: Path) -> None:
        async with gateway(database) as running:
            closing = asyncio.create_task((await running.agent()).closed())
        await closing
        async with gateway(database) as again:
            connection = again.connection()
            assert (connection.status, connection.close_code) == ("active", 1001)

    async def test_what_is_sent_meanwhile_comes_after_the_restart(self, database: Path) -> None:
        async with gateway(database) as running:
            closing = asyncio.create_task((await running.agent()).closed())
        await closing
        async with gateway(database) as again:
            seqs = again.send_many(3)
            assert await (await again.agent()).messages(3) == seqs

    async def test_receipts_of_the_last_moment_are_written(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent(ack="explicit")
            seqs = running.send_many(3)
            await agent.messages(3)
            await agent.ack(seqs[2])
            closing = asyncio.create_task(agent.closed())
        await closing
        async with gateway(database) as again:
            assert again.delivered() in ([], seqs)
            # Either it was read, and then written, or it comes again.
            assert (await again.agent()).greeting["pending"] == 3 - len(again.delivered())

    async def test_peer_that_does_not_close_does_not_hold_it_up(self, database: Path) -> None:
        async with gateway(database, close_seconds=0.05) as running:
            await running.agent()


class TestOnePerFile:
    async def test_second_gateway_is_a_conflict_that_names_the_first(self, database: Path) -> None:
        async with gateway(database) as running:
            with pytest.raises(Conflict, match=running.url):
                async with gateway(database):
                    pass

    async def test_second_gateway_does_not_disturb_the_first(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent()
            with pytest.raises(Conflict):
                async with gateway(database):
                    pass
            seq = running.send()
            assert await agent.messages(1) == [seq]

    async def test_lock_is_let_go_at_the_end(self, database: Path) -> None:
        for _ in range(2):
            async with gateway(database):
                pass

    async def test_port_in_use_is_a_conflict(self, database: Path, tmp_path: Path) -> None:
        async with gateway(database) as running:
            with pytest.raises(Conflict, match="cannot listen"):
                async with gateway(tmp_path / "other.db", port=int(running.url.rsplit(":", 1)[1])):
                    pass

    async def test_file_that_is_no_database_is_an_error(self, database: Path) -> None:
        database.write_text("not a database, but quite a long text\n" * 100)

        with pytest.raises(LedgerError, match="not a SQLite database"):
            async with gateway(database):
                pass


class TestLedgerInTrouble:
    async def test_receipts_that_cannot_be_written_are_written_later(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent(ack="explicit")
            seqs = running.send_many(3)
            await agent.messages(3)
            await running.server._threads.write(
                lambda ledger: db_of(ledger).execute("PRAGMA busy_timeout = 10").fetchall()
            )
            other = sqlite3.connect(database, isolation_level=None)
            try:
                with log_line("cannot write receipts") as seen:
                    other.execute("BEGIN IMMEDIATE")
                    await agent.ack(seqs[0])
                    await seen.wait()
                    await agent.ack(seqs[2])
                other.execute("ROLLBACK")
            finally:
                other.close()
            await running.confirmed(*seqs)

    async def test_handshake_is_answered_with_503(self, database: Path) -> None:
        async with gateway(database) as running:
            await running.server._threads.write(
                lambda ledger: db_of(ledger).execute("PRAGMA busy_timeout = 10").fetchall()
            )
            running.db.execute("BEGIN IMMEDIATE")
            with pytest.raises(Refused) as refused:
                await running.agent()
            running.db.execute("ROLLBACK")
            assert refused.value.status == 503

    async def test_handshake_does_not_wait_longer_than_it_may(self, database: Path) -> None:
        async with gateway(database, limits=Limits(handshake_seconds=1)) as running:
            running.db.execute("BEGIN IMMEDIATE")
            with pytest.raises(Refused) as refused:
                await running.agent()
            running.db.execute("ROLLBACK")
            assert refused.value.status == 503
            # It was in the middle of it, and writes nothing in the end: its agent has gone.
            assert not (await running.agent()).greeting["resumed"]

    async def test_handshakes_that_were_given_up_are_not_written_later(self, database: Path) -> None:
        async with gateway(database, limits=Limits(handshake_seconds=0.1)) as running:
            running.db.execute("BEGIN IMMEDIATE")
            for number in range(5):
                with pytest.raises(Refused):
                    await running.agent(ws_id=f"ws-{number}")
            running.db.execute("ROLLBACK")
            while True:
                # The ledger may still be busy for a moment.
                with contextlib.suppress(Refused):
                    await running.agent(ws_id="ws-last")
                    break
            assert [c.ws_id for c in running.ledger.active()] == ["ws-last"]

    async def test_write_lock_held_elsewhere_delays_no_delivery(self, database: Path) -> None:
        async with gateway(database) as running:
            agent = await running.agent(ack="explicit")
            first = running.send()
            assert await agent.messages(1) == [first]
            running.db.execute("BEGIN IMMEDIATE")
            try:
                await agent.ack(first)
                await agent.say(type="send", ref=1, to="ws-001", content=1)
                for number in range(20):
                    await agent.send(PING, b"%d" % number)
                    assert await agent.frame() == (PONG, b"%d" % number)
            finally:
                running.db.execute("ROLLBACK")
            await running.confirmed(first)

    async def test_sweep_that_waits_for_the_write_lock_holds_up_no_heartbeat(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=30) as running:
            agent = await running.agent(pongs=False)
            # A full timeout after the start it begins to sweep.
            for _ in range(3):
                clock.forward(10.5)
                await agent.send(PONG, await agent.ping())
            running.db.execute("BEGIN IMMEDIATE")
            try:
                for _ in range(3):
                    clock.forward(10.5)
                    await agent.send(PONG, await agent.ping())
            finally:
                running.db.execute("ROLLBACK")

    async def test_defect_with_one_socket_ends_that_socket_alone(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with gateway(database) as running:
            broken = await running.agent()

            def tick(session: GatewaySession, now: float) -> bool:
                if session.ws_id == "ws-001":
                    raise ZeroDivisionError
                return usual(session, now)

            usual = GatewaySession.tick
            monkeypatch.setattr(GatewaySession, "tick", tick)
            other = await running.agent("cipher", "ws-002")
            assert await broken.closed() == 1006
            await other.send(PING, b"still here?")
            assert await other.frame() == (PONG, b"still here?")

    @pytest.mark.parametrize("how", ["unlinked", "replaced"])
    async def test_file_that_is_gone_ends_the_gateway_and_sends_the_agents_back(
        self, database: Path, tmp_path: Path, how: str
    ) -> None:
        def remove() -> None:
            if how == "unlinked":
                database.unlink()
            else:
                get_db(tmp_path / "other.db").close()
                (tmp_path / "other.db").replace(database)

        with pytest.raises(LedgerReplaced, match="moved, deleted or replaced"):
            async with gateway(database) as running:
                agent = await running.agent()
                remove()
                assert await agent.closed() == 1012

    async def test_error_for_agents_does_not_name_the_file(self, database: Path) -> None:
        async with gateway(database, limits=Limits(handshake_seconds=0.1)) as running:
            running.db.execute("BEGIN IMMEDIATE")
            with pytest.raises(Refused) as refused:
                await running.agent()
            running.db.execute("ROLLBACK")
            assert "the ledger is busy" in refused.value.body
            assert str(database) not in refused.value.body

    async def test_backlog_that_cannot_be_read_closes_with_1012(self, database: Path) -> None:
        async with gateway(database) as running:

            async def unreadable(*_: object) -> None:
                raise LedgerError("disk I/O error")

            running.server._pump.backlog = unreadable  # type: ignore[assignment,method-assign]
            agent = await running.agent()
            assert await agent.closed() == 1012

    async def test_defect_of_the_writer_ends_the_socket(self, database: Path) -> None:
        async with gateway(database) as running:

            async def broken(*_: object) -> None:
                raise ZeroDivisionError

            running.server._pump.backlog = broken  # type: ignore[assignment,method-assign]
            agent = await running.agent()
            assert await agent.closed() == 1006

    async def test_defect_of_the_pump_ends_the_gateway(self, database: Path) -> None:
        server = GatewayServer(GatewayOptions(database, port=0))

        def broken(*_: object) -> None:
            raise ZeroDivisionError

        server._pump._read_news = broken  # type: ignore[assignment,method-assign]
        with pytest.raises(ZeroDivisionError):
            await server.run(asyncio.get_running_loop().create_future(), lambda url: None)

    async def test_reports_are_written_in_their_order(self, database: Path) -> None:
        async with gateway(database) as running:
            await running.agent()
            receipts = running.server._receipts
            for code in range(3000, 3200):
                receipts.report([Closure("ws-001", 1, code, "", False)])
                if code % 7 == 0:
                    await asyncio.sleep(0)
            await receipts.settled()
            rows = running.db.rows("SELECT detail FROM events WHERE kind = 'closed' ORDER BY id")
            assert [int(row[0]) for row in rows] == list(range(3000, 3200))


class TestStart:
    async def test_waits_for_a_ledger_that_is_busy(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A disk that is full is tested with one, in the acceptance tests."""
        monkeypatch.setattr("ws_manager.repository.sqlite.database.BUSY_SECONDS", 0.05)
        other = get_db(database)

        server = GatewayServer(GatewayOptions(database, port=0))
        stop: asyncio.Future[CloseCode] = asyncio.get_running_loop().create_future()
        reason: asyncio.Queue[str] = asyncio.Queue()
        ready = asyncio.Event()
        other.execute("BEGIN IMMEDIATE")
        running = asyncio.create_task(server.run(stop, lambda _url: ready.set(), waits=reason.put_nowait))
        assert await asyncio.wait_for(reason.get(), LIMIT) == "the ledger is busy"
        assert await refusal(server.url, "agent=octavia") == 503
        assert not ready.is_set()
        other.execute("ROLLBACK")
        await asyncio.wait_for(ready.wait(), LIMIT)
        assert await refusal(server.url, "agent=octavia") == 101
        stop.set_result(CloseCode.GOING_AWAY)
        await running
        other.close()
