"""Clients that count their attempts in the ledger, and the ends of `run`, against the real gateway."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Optional

import pytest

from tests.support import RunningGateway, gateway, within
from ws_manager.client import dialer, ends
from ws_manager.client.agent import AgentClient
from ws_manager.client.handlers import AttemptFailed, MessageRejected
from ws_manager.client.receipts import AgentMessage
from ws_manager.client.worker import pause_after
from ws_manager.errors import InvalidInput

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a backoff here."""
    monkeypatch.setattr(dialer, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(dialer, "LONGEST_DELAY", 0.008)
    monkeypatch.setattr("ws_manager.client.worker.FIRST_PAUSE", 0.001)
    monkeypatch.setattr(ends, "ASK_SECONDS", 0.01)


def worker(running: RunningGateway, most: Optional[int] = 3, *, stay: bool = False) -> AgentClient:
    return AgentClient("octavia", url=running.url, ws_id="ws-001", max_attempts=most, stay=stay)


@contextlib.asynccontextmanager
async def working(
    database: Path, most: Optional[int] = 3
) -> AsyncIterator[tuple[RunningGateway, AgentClient]]:
    async with gateway(database) as running, worker(running, most) as client:
        yield running, client


def told(running: RunningGateway, *kinds: str) -> list[str]:
    """What the ledger says of attempts, in order."""
    rows = running.db.rows("SELECT kind, detail FROM events ORDER BY id")
    return [str(detail) for event, detail in rows if event in (kinds or ("started", "failed", "set_aside"))]


async def first(client: AgentClient) -> AgentMessage:
    (message,) = await within(client.batch(1))
    return message


class TestIterator:
    async def test_message_comes_once_its_attempt_is_committed(self, database: Path) -> None:
        async with working(database) as (running, client):
            seq = running.send()
            message = await first(client)
            assert message.attempt == 1
            assert told(running) == ["attempt 1 of 3"]
            await client.ack(message)
            await running.confirmed(seq)

    async def test_exception_in_the_block_is_a_failed_attempt_and_the_message_comes_next(
        self, database: Path
    ) -> None:
        async with working(database) as (running, client):
            seqs = running.send_many(2)
            got: list[tuple[int, Optional[int]]] = []
            while len(got) < 3:
                message = await first(client)
                got.append((message.seq, message.attempt))
                with contextlib.suppress(LookupError):
                    async with message:
                        if len(got) == 1:
                            raise LookupError("a secret")
            await running.confirmed(*seqs)
            assert got == [(seqs[0], 1), (seqs[0], 2), (seqs[1], 1)]
            assert told(running, "failed") == ["attempt 1 of 3: LookupError"]

    async def test_last_attempt_sets_aside_and_the_next_message_is_done(self, database: Path) -> None:
        async with working(database, most=2) as (running, client):
            bad, good = running.send_many(2)
            for _ in range(2):
                with contextlib.suppress(LookupError):
                    async with await first(client):
                        raise LookupError
            async with await first(client) as message:
                assert message.seq == good
            await running.confirmed(good)
            assert running.delivered() == [good]
            assert told(running, "set_aside") == ["attempt 2 of 2 failed: LookupError"]
            assert bad < good

    async def test_another_process_begins_the_next_attempt(self, database: Path) -> None:
        async with gateway(database) as running:
            async with worker(running, stay=True) as client:
                seq = running.send()
                await first(client)
            async with worker(running) as client:
                message = await first(client)
                assert (message.seq, message.attempt) == (seq, 2)
            assert "attempt 1 of 3: the worker ended" in told(running)

    async def test_lost_socket_is_the_same_attempt_and_the_message_is_not_begun_twice(
        self, database: Path
    ) -> None:
        async with working(database, most=1) as (running, client):
            seqs = running.send_many(2)
            async with await first(client) as message:
                assert client._websocket is not None
                lost = client._websocket
                lost._response.connection.transport.abort()
                await running.until(lambda: client._websocket is not lost)
            async with await first(client) as other:
                assert other.seq == seqs[1]
            await running.confirmed(*seqs)
            assert message.seq == seqs[0]
            assert told(running) == ["attempt 1 of 1", "attempt 1 of 1"]

    @pytest.mark.parametrize("number", [0, 101, True])
    def test_number_out_of_range_is_refused(self, number: int) -> None:
        with pytest.raises(InvalidInput, match="max_attempts is a number from 1 to 100"):
            AgentClient("octavia", url=NOWHERE, max_attempts=number)


class TestHandlers:
    async def test_failure_is_told_with_its_reason_and_tried_again(self, database: Path) -> None:
        async with working(database) as (running, client):
            seen: list[Optional[int]] = []

            @client.on()
            async def work(message: AgentMessage) -> None:
                seen.append(message.attempt)
                if len(seen) < 3:
                    raise AttemptFailed("exit code 1") if len(seen) == 1 else ValueError("a secret")

            seq = running.send()
            await within(client.run(count=1))
            await running.confirmed(seq)
            assert seen == [1, 2, 3]
            assert told(running, "failed") == ["attempt 1 of 3: exit code 1", "attempt 2 of 3: ValueError"]

    async def test_last_attempt_sets_aside_and_those_behind_are_done_in_order(self, database: Path) -> None:
        async with working(database, most=2) as (running, client):
            seqs = running.send_many(3)
            seen: list[int] = []

            @client.on()
            async def work(message: AgentMessage) -> None:
                seen.append(message.seq)
                if message.seq == seqs[0]:
                    raise AttemptFailed("exit code 7")

            await within(client.run(until_empty=True))
            assert seen == [seqs[0], seqs[0], *seqs[1:]]
            assert running.delivered() == seqs[1:]
            assert told(running, "set_aside") == ["attempt 2 of 2 failed: exit code 7"]

    async def test_rejected_message_is_set_aside_at_once(self, database: Path) -> None:
        async with working(database) as (running, client):

            @client.on()
            async def work(message: AgentMessage) -> None:
                raise MessageRejected("no such task")

            running.send()
            await within(client.run(until_empty=True))
            assert running.db.rows("SELECT reject_reason FROM messages") == [("no such task",)]

    def test_number_of_its_own_is_refused(self) -> None:
        client = AgentClient("octavia", url=NOWHERE, max_attempts=5)

        async def work(message: AgentMessage) -> None:
            pass

        with pytest.raises(InvalidInput, match="the client has max_attempts"):
            client.on(attempts=3)(work)


class TestEndOfRun:
    @staticmethod
    def handled(client: AgentClient, concurrency: int = 1) -> list[Any]:
        seen: list[Any] = []

        @client.on(concurrency=concurrency)
        async def work(message: AgentMessage) -> None:
            await asyncio.sleep(0)
            seen.append(message.seq)

        return seen

    @pytest.mark.parametrize("most", [None, 3])
    async def test_after_a_number_of_messages_the_others_stay_pending(
        self, database: Path, most: Optional[int]
    ) -> None:
        async with working(database, most) as (running, client):
            seen = self.handled(client)
            seqs = running.send_many(250)
            await within(client.run(count=120))
            await running.confirmed(*seqs[:120])
            assert seen == seqs[:120]
            assert running.delivered() == seqs[:120]

    @pytest.mark.parametrize("concurrency", [1, 8])
    async def test_when_nothing_is_pending(self, database: Path, concurrency: int) -> None:
        async with working(database, None) as (running, client):
            seen = self.handled(client, concurrency)
            # More than are counted, and more than may be in flight.
            seqs = running.send_many(1100)
            await within(client.run(until_empty=True))
            assert sorted(seen) == seqs
            assert running.delivered() == seqs

    async def test_when_it_was_idle(self, database: Path) -> None:
        async with working(database) as (running, client):
            seen = self.handled(client)
            seq = running.send()
            await within(client.run(idle_timeout=0.05))
            assert seen == [seq]

    async def test_a_handler_that_runs_is_not_idle(self, database: Path) -> None:
        async with working(database) as (running, client):
            done = []

            @client.on()
            async def work(message: AgentMessage) -> None:
                await asyncio.sleep(0.1)
                done.append(message.seq)

            seqs = running.send_many(2)
            await running.until(
                lambda: running.db.value("SELECT count(*) FROM messages WHERE written_at IS NOT NULL") == 2
            )
            await within(client.run(idle_timeout=0.02))
            assert done == seqs

    async def test_pending_counts_what_is_not_confirmed(self, database: Path) -> None:
        async with working(database) as (running, client):
            running.send_many(3)
            assert await within(client.pending()) == 3


@pytest.mark.parametrize(("attempt", "least", "most"), [(1, 0.0005, 0.001), (3, 0.002, 0.004), (100, 30, 60)])
def test_pauses_double_up_to_a_minute(attempt: int, least: float, most: float) -> None:
    assert pause_after(attempt, lambda: 0.0) == pytest.approx(least)
    assert pause_after(attempt, lambda: 1.0) == pytest.approx(most)
