"""The order of locks: many sessions at once, over the same connections, and none waits for another for ever."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Callable, NamedTuple

import psycopg
import pytest

from ws_manager.core.batch import OutgoingMessage
from ws_manager.core.ledger import Ledger, open_ledger
from ws_manager.core.once import Key, sending_key
from ws_manager.errors import Conflict, NotAuthorised, NotFound
from ws_manager.gateway.http.api.batch_sender import BatchSender, Line
from ws_manager.models import (
    Closure,
    MessageWorker,
    Receipt,
    Rejection,
    Settled,
    SignOfLife,
    SocketReport,
    Written,
    utc_now,
)
from ws_manager.tokens import EVERYTHING

SECONDS = 60.0
FAR = "2099-01-01T00:00:00.000000+00:00"
Work = Callable[[Ledger], Any]


class Crowd(NamedTuple):
    """Many who write at once.

    Attributes:
        ledger: what the test itself uses.
        together: does several works at the same time, each with a session of its own.
    """

    ledger: Ledger
    together: Callable[[Sequence[Work]], None]


@pytest.fixture
def crowd(postgres_url: str) -> Iterator[Crowd]:
    def together(works: Sequence[Work]) -> None:
        gate = threading.Barrier(len(works))

        def run(work: Work) -> None:
            with open_ledger(postgres_url) as own:
                gate.wait(SECONDS)
                work(own)

        with ThreadPoolExecutor(len(works)) as threads:
            for each in [threads.submit(run, work) for work in works]:
                each.result(SECONDS)

    before = deadlocks(postgres_url)
    with open_ledger(postgres_url) as ledger:
        yield Crowd(ledger, together)
    assert deadlocks(postgres_url) == before


def deadlocks(url: str) -> Any:
    """Return how many the server has broken up in a database."""
    with psycopg.connect(url) as session:
        row = session.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        return row.fetchone()


def fill(session: psycopg.Connection[Any], number: int) -> list[str]:
    """Register connections, whose names are in another order than their ids. Every second one is octavia's."""
    session.execute(
        "INSERT INTO ws_manager.connections (ws_id, agent) SELECT 'ws-' || md5(n::text), CASE n %% 2 WHEN 0 THEN"
        " 'octavia' ELSE 'cipher' END FROM generate_series(1, %s) AS n",
        (number,),
    )
    return [row[0] for row in session.execute("SELECT ws_id FROM ws_manager.connections ORDER BY ws_id")]


def shuffled(ws_ids: Sequence[str], seed: int) -> list[str]:
    return random.Random(seed).sample(ws_ids, len(ws_ids))


def test_eight_broadcasts_at_once_are_all_complete(crowd: Crowd, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as session:
        fill(session, 10_000)

    def broadcast(own: Ledger, turn: int) -> None:
        agent = (None, "octavia", "cipher", None)[turn % 4]
        sent = own.broadcast(turn, agent=agent, filter_fn=(lambda _: True) if turn % 2 else None)
        assert len(sent.recipients) == (5000 if agent else 10_000)

    crowd.together([partial(broadcast, turn=turn) for turn in range(8)])
    with psycopg.connect(postgres_url) as session:
        rows = session.execute(
            "SELECT count(*), count(DISTINCT recipient_id) FROM ws_manager.messages GROUP BY broadcast_id"
        ).fetchall()
    assert sorted(rows) == [(5000, 5000)] * 4 + [(10_000, 10_000)] * 4


class Mixed:
    """What happens to the same connections at the same time, in another order each time.

    Args:
        ws_ids: the connections.
        turns: how often each kind of work is done.
    """

    def __init__(self, ws_ids: Sequence[str], turns: int) -> None:
        self._ws_ids = ws_ids
        self._turns = turns

    def _each(self, seed: int) -> Iterator[tuple[int, list[str]]]:
        for turn in range(self._turns):
            yield turn, shuffled(self._ws_ids, seed * 1000 + turn)

    def broadcasts(self, own: Ledger, seed: int) -> None:
        for turn, _ in self._each(seed):
            own.broadcast(turn, agent=(None, "octavia", "cipher")[turn % 3])

    def settles(self, own: Ledger, seed: int) -> None:
        for _, ws_ids in self._each(seed):
            reports: list[SocketReport] = []
            for number, ws_id in enumerate(ws_ids):
                found = own.find(ws_id)
                assert found is not None
                seqs = [each.seq for each in own.delivery.pending(ws_id, 0, 3)]
                at = utc_now()
                reports.append(SignOfLife(ws_id, found.epoch, at, 5, logged=number % 9 == 0))
                if number % 5 == 0:
                    ended = number % 10 == 0
                    reports.append(
                        Closure(ws_id, found.epoch, 1009, "gone", ended, seqs[0] if seqs else None)
                    )
                if seqs:
                    reports.append(Rejection(ws_id, found.epoch, seqs[-1], "no"))
                    reports.append(Settled(ws_id, found.epoch, seqs[0], at, confirmed=True))
                    reports.append(Receipt(ws_id, found.epoch, seqs[:-1] or seqs, at))
            own.delivery.settle(reports)

    def ends(self, own: Ledger, seed: int) -> None:
        for turn, ws_ids in self._each(seed):
            own.disconnect_all(ws_ids[::2])
            if turn % 3 == 0:
                own.bar("cipher")
                own.unbar("cipher")
            own.heartbeat_check(0.0 if turn % 4 == 0 else 3600.0)

    def registrations(self, own: Ledger, seed: int) -> None:
        for turn, ws_ids in self._each(seed):
            for ws_id in ws_ids[::3]:
                try:
                    worker = MessageWorker(f"worker {turn}", 2)
                    opened = own.delivery.open_socket(
                        agent_of(own, ws_id), ws_id, None, f"g-{seed}", None, worker
                    )
                    for message in own.delivery.pending(ws_id, 0, 1):
                        own.delivery.begin(ws_id, opened.connection.epoch, message.seq)
                        own.delivery.fail(ws_id, opened.connection.epoch, message.seq, "no")
                except (Conflict, NotAuthorised):
                    continue
            own.connect("octavia", f"new-{seed}-{turn}")

    def batches(self, own: Ledger, seed: int) -> None:
        for turn, ws_ids in self._each(seed):
            messages = [OutgoingMessage("1", "data", ws_id) for ws_id in ws_ids]
            # Two senders use the same keys.
            keys = [sending_key("octavia", f"{turn}-{ws_id}", ws_id, "1", "data") for ws_id in ws_ids]
            own.batch.send_once(messages, [key for key in keys if key is not None])

    def mixed_batches(self, own: Ledger, seed: int) -> None:
        for turn, ws_ids in self._each(seed):
            texts = [f'{{"to":"{ws_id}","content":1,"key":"{turn}-{ws_id}"}}' for ws_id in ws_ids[:20]]
            texts += [
                '{"content":2,"agent":"cipher"}',
                f'{{"to":"{ws_ids[0]}","content":3}}',
                '{"content":2}',
            ]
            random.Random(seed + turn).shuffle(texts)
            group = [Line(number, text.encode()) for number, text in enumerate(texts, start=1)]
            while group:
                sent = BatchSender(own, EVERYTHING, lambda _count, _size: None, None).send(group)
                group = group[sent.done :]

    def asks(self, own: Ledger, seed: int) -> None:
        for _, ws_ids in self._each(seed):
            for asker, answerer in zip(ws_ids[:8], ws_ids[1:]):
                asked = own.ask("octavia" if len(asker) % 2 else answerer, 1, sender_id=asker)
                recipient = own.find(answerer if asked is None else asked.recipient_id)
                if asked is None or recipient is None:
                    continue
                try:
                    own.delivery.reply(recipient.ws_id, recipient.epoch, asked.db_id or 0, 2)
                except (Conflict, NotFound):
                    continue

    def retries(self, own: Ledger, seed: int) -> None:
        for turn, _ in self._each(seed):
            own.retry_all(agent=None if turn % 2 else "octavia")
            own.maintenance.prune(0.0)


def agent_of(own: Ledger, ws_id: str) -> str:
    found = own.find(ws_id)
    return "octavia" if found is None else found.agent


@pytest.mark.parametrize("works", ["broadcasts settles", "asks", "retries settles", "all"])
def test_everything_at_once(crowd: Crowd, postgres_url: str, works: str) -> None:
    with psycopg.connect(postgres_url) as session:
        ws_ids = fill(session, 60)
    mixed = Mixed(ws_ids, 3)
    names = works
    if works == "all":
        names = "broadcasts settles ends registrations batches mixed_batches asks retries"
    chosen = [getattr(mixed, name) for name in names.split()]
    crowd.together([partial(work, seed=seed) for seed in range(4 // len(chosen) + 1) for work in chosen])


class TestEachLocksInOrder:
    """A work waits for the first connection by id, and holds no other one meanwhile."""

    @pytest.mark.parametrize(
        "work",
        [
            lambda own: own.delivery.settle([Rejection("b", 1, 99, "no"), Rejection("a", 1, 99, "no")]),
            lambda own: own.delivery.settle([Closure(each, 1, 1000, "", ended=True) for each in "cba"]),
            lambda own: own.delivery.settle([Receipt("c", 1, [99]), SignOfLife("a", 1, FAR, None, logged=False)]),
            lambda own: own.delivery.settle([Written("b", 1, 1, 9, FAR), Written("a", 1, 1, 9, FAR)]),
            lambda own: own.delivery.settle([Receipt("b", 1, [99]), Receipt("a", 1, [99])]),
            lambda own: own.delivery.reply("b", 1, 1, "the answer"),
            lambda own: own.retry_all(),
            lambda own: own.disconnect_all(["c", "b", "a"]),
            lambda own: own.heartbeat_check(0.0),
            lambda own: own.bar("octavia"),
            lambda own: own.broadcast(1),
            lambda own: own.broadcast(1, filter_fn=lambda connection: connection.ws_id != "c"),
            lambda own: own.batch.send([OutgoingMessage("1", "data", each) for each in "cba"]),
            lambda own: own.batch.broadcast([OutgoingMessage("1", "data")] * 2),
        ],
        ids=[
            "rejections", "closures", "signs of life", "writings", "receipts", "reply", "retry", "disconnect",
            "heartbeat check", "bar", "broadcast", "filtered broadcast", "batch", "batch of broadcasts",
        ],
    )  # fmt: skip
    def test(self, postgres_url: str, work: Work) -> None:
        with open_ledger(postgres_url) as ledger:
            for ws_id in "abc":
                ledger.connect("octavia", ws_id)
            asked = ledger.ask("b", 1, sender_id="a")
            assert asked is not None
            assert asked.db_id == 1
            for ws_id in "cba":
                message = ledger.send(ws_id, 1)
                assert message is not None
                ledger.delivery.settle([Rejection(ws_id, 1, message.db_id or 0, "no")])
        with psycopg.connect(postgres_url, options="-c search_path=ws_manager") as session:
            session.execute("SELECT 1 FROM connections WHERE ws_id = 'a' FOR NO KEY UPDATE")
            with ThreadPoolExecutor(1) as threads:
                working = threads.submit(self._run, postgres_url, work)
                self._wait_until_waiting(postgres_url, working)
                free = session.execute(
                    "SELECT ws_id FROM connections ORDER BY ws_id FOR NO KEY UPDATE SKIP LOCKED"
                ).fetchall()
                session.rollback()
                working.result(SECONDS)
        assert free == [("a",), ("b",), ("c",)]

    def _run(self, url: str, work: Work) -> None:
        with open_ledger(url) as own:
            work(own)

    def _wait_until_waiting(self, url: str, working: Future[None]) -> None:
        with psycopg.connect(url, autocommit=True) as session:
            while not working.done():
                row = session.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
                if row != (0,):
                    return
        pytest.fail("it should wait")


def test_many_keys_take_few_locks(crowd: Crowd, postgres_url: str) -> None:
    crowd.ledger.connect("octavia", "a")
    count = 3000
    messages = [OutgoingMessage("1", "data", "a")] * count
    keys = [Key("octavia", "send", f"key-{number}", "print") for number in range(count)]
    with psycopg.connect(postgres_url, autocommit=True) as session, crowd.ledger.batch.together():
        assert len(crowd.ledger.batch.send_once(messages, keys)) == count
        row = session.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone()
    assert row == (256,)
