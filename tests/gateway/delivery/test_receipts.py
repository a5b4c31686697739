"""What a receipt confirms, and how what sockets report is written."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Callable, cast
from unittest.mock import Mock

import pytest
from aiohttp import web

from tests.support import LIMIT, PING, PONG, gateway, open_sql, until, within
from ws_manager.core.ledger import Ledger
from ws_manager.errors import LedgerBusy, LedgerError
from ws_manager.gateway.delivery.ledger_threads import LedgerThreads
from ws_manager.gateway.delivery.receipts import ReceiptWriter
from ws_manager.models import Closure
from ws_manager.tokens import Claims


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


async def test_receipts_survive_another_process_that_holds_the_write_lock(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        seqs = running.send_many(3)
        await agent.messages(3)
        other = open_sql(database)
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


@pytest.mark.sqlite_only("how long it waits for the lock")
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


class StubbornThreads:
    """In place of the ledger's threads: fails as often as it was asked to, then writes.

    Attributes:
        batches: what was given to it, each time.
    """

    def __init__(self, failures: list[Exception]) -> None:
        self.batches = 0
        self._failures = failures

    async def write(self, call: object) -> set[str]:
        self.batches += 1
        await asyncio.sleep(0)
        if self._failures:
            raise self._failures.pop(0)
        return set()


CLOSURE = Closure("ws-001", 1, 1000, "", True)


async def test_settled_waits_for_a_batch_that_fails_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ws_manager.gateway.delivery.receipts._RETRY_SECONDS", 0)
    threads = StubbornThreads([LedgerBusy("busy"), LedgerError("disk I/O error")])
    receipts = ReceiptWriter(cast(LedgerThreads, threads))
    writing = asyncio.create_task(receipts.run(lambda _void: None))
    receipts.report([CLOSURE, CLOSURE])
    await within(receipts.settled())
    assert threads.batches == 3
    writing.cancel()


async def test_flush_ends_at_once_where_the_ledger_cannot_be_written(
    caplog: pytest.LogCaptureFixture,
) -> None:
    receipts = ReceiptWriter(cast(LedgerThreads, StubbornThreads([LedgerError("disk I/O error")])))
    writing = asyncio.create_task(receipts.run(lambda _void: None))
    receipts.report([CLOSURE, CLOSURE])
    await receipts.flush(LIMIT)
    assert "2 receipts could not be written" in caplog.text
    writing.cancel()


async def test_a_report_that_cannot_be_written_keeps_nobody_elses_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    written: list[int] = []

    class Choosy:
        async def write(self, call: Callable[[Ledger], set[str]]) -> set[str]:
            ledger = Mock()
            call(ledger)
            batch = ledger.delivery.settle.call_args.args[0]
            if any(report.code == 666 for report in batch):
                raise KeyError(batch[0].reason)
            nonlocal written
            written += [report.code for report in batch]
            return set()

    receipts = ReceiptWriter(cast(LedgerThreads, Choosy()))
    writing = asyncio.create_task(receipts.run(lambda _void: None))
    codes = [3000 + number for number in range(20)]
    receipts.report([CLOSURE._replace(code=code, reason="secret") for code in [*codes[:7], 666, *codes[7:]]])
    await within(receipts.settled())
    receipts.report([CLOSURE._replace(code=4999)])
    await within(receipts.settled())
    assert written == [*codes, 4999]
    assert "a Closure of ws-001 cannot be written, and is left out: KeyError" in caplog.text
    assert "secret" not in caplog.text
    writing.cancel()
