"""Messages in PostgreSQL, where many write at the same time: what only that shows."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Optional

import pytest

from tests.postgres import Server, server
from ws_manager.models import PendingMessage, Receipt, new_id, utc_now
from ws_manager.repository.engines import engine_of
from ws_manager.repository.postgres.store import PostgresStore
from ws_manager.repository.records import NewBroadcast, NewMessage, Position, Recipients


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    """A session with an empty ledger."""
    with opened(postgres_url) as store:
        yield store


@contextlib.contextmanager
def opened(url: str) -> Iterator[PostgresStore]:
    store = engine_of(url).open_to_write(url)
    assert isinstance(store, PostgresStore)
    try:
        yield store
    finally:
        store.close()


def connect(store: PostgresStore, count: int) -> list[str]:
    """Make active connections, and return their ws_ids in the order of their ids."""
    ws_ids = [f"ws-{number}" for number in range(count)]
    random.Random(3).shuffle(ws_ids)
    with store.atomic():
        for ws_id in ws_ids:
            store.db.execute(
                "INSERT INTO connections (ws_id, agent, gateway) VALUES (%s, 'octavia', 'g')", (ws_id,)
            )
    return ws_ids


def new(ws_id: str, content: str = "1") -> NewMessage:
    return NewMessage(new_id(), ws_id, content, "data", None, utc_now())


def send(store: PostgresStore, ws_id: str, content: str = "1") -> int:
    with store.atomic():
        return store.messages.insert(new(ws_id, content))


def broadcast(store: PostgresStore, ws_ids: Sequence[str], *contents: str) -> None:
    broadcasts = [NewBroadcast(new_id(), content, "news", None, utc_now()) for content in contents]
    with store.atomic():
        store.broadcasts.insert(broadcasts, Recipients(list(ws_ids), None, True))


def together(store: PostgresStore, *work: Callable[[PostgresStore], None]) -> None:
    """Run work in threads that begin at the same moment, each with a session of its own."""
    barrier = threading.Barrier(len(work))

    def run(one: Callable[[PostgresStore], None]) -> None:
        with opened(store.db.url) as own:
            barrier.wait()
            one(own)

    with ThreadPoolExecutor(len(work)) as threads:
        for done in [threads.submit(run, one) for one in work]:
            done.result()


def until_it_waits(watching: PostgresStore, waiting: PostgresStore, done: Future[object]) -> None:
    """Return as soon as a session waits for a lock, or its work is done."""
    query = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
    while not done.done() and watching.db.value(query, (waiting.db.session.info.backend_pid,)) is None:
        pass


def read_all(
    store: PostgresStore, position: Position, limit: int = 1000
) -> tuple[list[PendingMessage], Position]:
    """Read until a reading is empty."""
    found: list[PendingMessage] = []
    while True:
        messages, position, _whole = store.messages.after(position, limit)
        found += messages
        if not messages:
            return found, position


class TestWriters:
    def test_broadcasts_at_once_do_not_wait_for_each_other_forever(self, store: PostgresStore) -> None:
        ws_ids = connect(store, 2000)

        def one(number: int) -> Callable[[PostgresStore], None]:
            mixed = random.Random(number).sample(ws_ids, len(ws_ids))
            return lambda own: broadcast(own, mixed, str(number), str(number))

        together(store, *map(one, range(8)))
        assert store.db.rows("SELECT DISTINCT message_count FROM connections") == [(16,)]
        got = defaultdict(list)
        for ws_id, content in store.db.rows("SELECT recipient_id, content FROM messages ORDER BY id"):
            got[ws_id].append(content)
        # The two of one call follow each other, and everybody has the broadcasts in the same order.
        orders = {tuple(each) for each in got.values()}
        assert len(orders) == 1
        assert Counter(orders.pop()) == dict.fromkeys(map(str, range(8)), 2)

    def test_the_order_of_ids_is_that_of_commits_for_each_connection(self, store: PostgresStore) -> None:
        connect(store, 1)
        with opened(store.db.url) as second, ThreadPoolExecutor(1) as threads:
            with store.atomic():
                # The connection is locked before anybody has an id.
                store.db.execute("SELECT 1 FROM connections FOR NO KEY UPDATE")
                later = threads.submit(send, second, "ws-0")
                until_it_waits(store, second, later)  # type: ignore[arg-type]
                first = store.messages.insert(new("ws-0"))
            assert later.result() > first

    @pytest.mark.parametrize("held", [False, True], ids=["", "while one transaction stays open"])
    def test_a_reader_gets_each_message_once_and_in_order(self, store: PostgresStore, held: bool) -> None:
        (unsent, *ws_ids), position = connect(store, 6), store.messages.position("g")
        committed: list[str] = []
        ended = threading.Event()
        seen: list[PendingMessage] = []

        def sender(number: int) -> Callable[[PostgresStore], None]:
            chance = random.Random(number)

            def run(own: PostgresStore) -> None:
                for _ in range(60):
                    some = [new(ws_id) for ws_id in chance.choices(ws_ids, k=chance.randint(1, 4))]
                    with contextlib.suppress(ZeroDivisionError), own.atomic():
                        own.messages.insert_each(some)
                        own.messages.insert(new(some[0].recipient_id, '"alone"'))
                        if chance.random() < 0.1:
                            raise ZeroDivisionError
                        committed.extend(message.msg_id for message in some)

            return run

        def reader() -> Position:
            reached = position
            with opened(store.db.url) as own:
                while True:
                    last = ended.is_set()
                    found, reached = read_all(own, reached, 7)
                    seen.extend(found)
                    if last:
                        return reached

        with opened(store.db.url) as slow, ThreadPoolExecutor(1) as threads:
            following = threads.submit(reader)
            with slow.atomic() if held else contextlib.nullcontext():
                if held:
                    slow.messages.insert(new(unsent))
                together(store, *map(sender, range(8)))
                ended.set()
                reached = following.result()
        ids = [message.msg_id for message in seen if message.content == "1"]
        assert Counter(ids) == Counter(committed)
        for ws_id in ws_ids:
            seqs = [message.seq for message in seen if message.recipient_id == ws_id]
            assert seqs == sorted(seqs)
        # What was open all the time comes as soon as it is committed, though its id is the lowest.
        assert [message.recipient_id for message in read_all(store, reached)[0]] == [unsent] * held


class TestReadings:
    def test_an_empty_one_says_that_there_is_nothing_at_that_moment(self, store: PostgresStore) -> None:
        ws_ids, position = connect(store, 2), store.messages.position("g")
        broadcast(store, ws_ids, "1")
        first, position, _ = store.messages.after(position, 2)
        assert len(first) == 2
        send(store, ws_ids[0], "2")
        # The first reading is over, and nothing of it is left.
        found, position, _ = store.messages.after(position, 2)
        assert [message.content for message in found] == ["2"]
        assert store.messages.after(position, 2) == ([], position, True)

    def test_the_messages_of_a_broadcast_share_memory(self, store: PostgresStore) -> None:
        ws_ids, position = connect(store, 40), store.messages.position("g")
        large = '"' + "ü" * 300_000 + '"'
        broadcast(store, ws_ids, large, "2")
        messages, _, whole = store.messages.after(position, 1000)
        assert whole
        assert [message.content for message in messages] == [large] * 40 + ["2"] * 40
        assert {message.recipient_id for message in messages[:40]} == set(ws_ids)
        assert len({id(message.content) for message in messages}) == 2

    def test_large_ones_come_in_pieces(self, store: PostgresStore) -> None:
        ws_ids, position = connect(store, 1), store.messages.position("g")
        for _ in range(5):
            send(store, ws_ids[0], '"' + "x" * 400_000 + '"')
        messages, reached, whole = store.messages.after(position, 1000)
        assert (len(messages), whole) == (3, False)
        assert len(read_all(store, reached)[0]) == 2

    def test_transactions_of_more_digits_come_after_those_of_fewer(self, store: PostgresStore) -> None:
        ws_ids, position = connect(store, 1), store.messages.position("g")
        number = 0
        while number < 1005:
            send(store, ws_ids[0])
            number = int(store.db.value("SELECT max(tx::text::bigint) FROM messages"))
            found, position = read_all(store, position)
            assert len(found) == 1

    def test_a_server_that_forgot_transactions_hides_no_message(self) -> None:
        with server(durable=True) as killed:
            url = killed.new()
            with opened(url) as store:
                ws_ids = connect(store, 1)
                # The numbers of these are given, and never reach the disk.
                position = _after_lost_transactions(store, ws_ids[0])
                _kill(killed)
            killed.start()
            with opened(url) as again:
                send(again, ws_ids[0], "2")
                assert [message.content for message in read_all(again, position)[0]] == ["2"]


def _after_lost_transactions(store: PostgresStore, ws_id: str) -> Position:
    send(store, ws_id)
    for _ in range(20):
        with contextlib.suppress(ZeroDivisionError), store.atomic():
            store.db.value("SELECT pg_current_xact_id()::text")
            raise ZeroDivisionError
    position = store.messages.position("g")
    send_nothing = store.messages.after(position, 10)
    assert send_nothing.messages == []
    return send_nothing.position


def _kill(killed: Server) -> None:
    """End all processes of a server as a power failure would, and wait until they have gone."""
    assert killed.process is not None
    pid = int((killed.data / "postmaster.pid").read_text().split()[0])
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True
    )
    children = [int(child) for child in listed.stdout.split()]
    for one in (pid, *children):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    killed.process.wait()
    for child in children:
        while Path(f"/proc/{child}").exists():
            pass


class TestReceipts:
    def test_of_sessions_in_different_orders_do_not_wait_forever(self, store: PostgresStore) -> None:
        ws_ids = connect(store, 400)
        broadcast(store, ws_ids, *map(str, range(8)))
        seqs = defaultdict(list)
        for seq, ws_id in store.db.rows("SELECT id, recipient_id FROM messages ORDER BY id"):
            seqs[ws_id].append(seq)

        def one(number: int) -> Callable[[PostgresStore], None]:
            mixed = random.Random(number).sample(ws_ids, len(ws_ids))

            def run(own: PostgresStore) -> None:
                for turn in (number, number + 4):
                    with own.atomic():
                        receipts = [Receipt(ws_id, 1, [seqs[ws_id][turn]]) for ws_id in mixed]
                        assert own.receipts.settle(receipts, utc_now()) == set()

            return run

        together(store, *map(one, range(4)))
        assert store.db.value("SELECT count(*) FROM messages WHERE delivered = 1") == 8 * 400
        confirmed = {row[0]: row[1] for row in store.db.rows("SELECT ws_id, confirmed_seq FROM connections")}
        assert confirmed == {ws_id: max(seqs[ws_id]) for ws_id in ws_ids}
        journal = [seq for (row,) in store.db.rows("SELECT seqs FROM receipts") for seq in row]
        assert sorted(journal) == sorted(seq for each in seqs.values() for seq in each)

    def test_mark_only_what_is_pending_and_their_own(self, store: PostgresStore) -> None:
        connect(store, 2)
        mine, theirs, done = send(store, "ws-0"), send(store, "ws-1"), send(store, "ws-0")
        with store.atomic():
            store.receipts.settle([Receipt("ws-0", 1, [done])], utc_now())
            store.receipts.settle([Receipt("ws-0", 1, [mine, theirs, done])], utc_now())
            store.receipts.settle([Receipt("ws-0", 1, [mine])], utc_now())
        assert store.db.rows("SELECT seqs FROM receipts ORDER BY id") == [([done],), ([mine],)]
        assert [message.seq for message in store.messages.pending("ws-1", 0, 10)] == [theirs]


class TestAsks:
    def test_two_answers_at_once_are_one(self, store: PostgresStore) -> None:
        ws_id = connect(store, 1)[0]
        for _ in range(20):
            with store.atomic():
                ask = new(ws_id)
                seq = store.messages.insert(ask)
                store.asks.insert(seq, ask.msg_id, ws_id, None, "*", utc_now())
            answered: list[str] = []

            def answer(own: PostgresStore, seq: int = seq, answered: list[str] = answered) -> None:
                with own.atomic():
                    found = own.asks.find_number(seq, "")
                    assert found is not None
                    if found.answer_id is None:
                        own.asks.answer(seq, new_id(), "1", utc_now())
                        answered.append(found.msg_id)

            together(store, answer, answer)
            assert answered == [ask.msg_id]

    def test_the_latest_of_an_agent_is_active_until_the_block_ends(self, store: PostgresStore) -> None:
        connect(store, 2)
        store.db.execute("UPDATE connections SET status = 'disconnected' WHERE ws_id = 'ws-1'")

        def latest(own: PostgresStore) -> Optional[str]:
            with own.atomic():
                return own.asks.latest_of("octavia", "99")

        assert latest(store) == "ws-0"
        with opened(store.db.url) as second, ThreadPoolExecutor(1) as threads:
            with store.atomic():
                store.db.execute("UPDATE connections SET status = 'disconnected' WHERE ws_id = 'ws-0'")
                store.db.execute("UPDATE connections SET status = 'active' WHERE ws_id = 'ws-1'")
                found = threads.submit(latest, second)
                until_it_waits(store, second, found)  # type: ignore[arg-type]
            assert found.result() == "ws-1"


class TestEvents:
    def test_each_comes_once_in_whatever_order_they_are_committed(self, store: PostgresStore) -> None:
        position, seen = store.events.position(), []
        with opened(store.db.url) as second:
            with store.atomic():
                store.events.insert("opened", utc_now(), "ws-1")
                with second.atomic():
                    second.events.insert("opened", utc_now(), "ws-2")
                found, position = second.events.after(position)
                seen += found
                assert [event.ws_id for event in seen] == ["ws-2"]
            for _ in range(2):
                found, position = second.events.after(position)
                seen += found
        assert [event.ws_id for event in seen] == ["ws-2", "ws-1"]
