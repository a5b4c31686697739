"""The feed in PostgreSQL: nothing is missed, nothing comes twice, whatever order it is committed in."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest

from tests.postgres import Server
from ws_manager.core.read.feed import Feed
from ws_manager.repository.engines import engine_of
from ws_manager.repository.findings import FeedEntry
from ws_manager.repository.store import Store

AT = "2026-01-01T00:00:{:02}.000000+00:00"
LONGEST = 100
"""Characters of a cursor that the gateway takes."""


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    store = engine_of(postgres_url).open_to_write(postgres_url)
    yield store
    store.close()


@pytest.fixture
def sessions(postgres_url: str) -> Iterator[list[psycopg.Connection[Any]]]:
    """Two sessions whose transactions the test ends itself."""
    opened = [psycopg.connect(postgres_url, options="-c search_path=ws_manager") for _ in range(2)]
    yield opened
    for session in opened:
        session.close()


def event(session: psycopg.Connection[Any], name: str, second: int = 0) -> None:
    """Write an event in the session's transaction, which stays open."""
    session.execute("INSERT INTO events (ts, kind) VALUES (%s, %s)", (AT.format(second), name))


def messages(session: psycopg.Connection[Any], *seqs: int) -> None:
    session.cursor().executemany(
        "INSERT INTO messages (id, msg_id, recipient_id, content) VALUES (%s, %s, 'ws-001', '1')",
        [(seq, f"m-{seq}") for seq in seqs],
    )


def receipt(session: psycopg.Connection[Any], second: int, *seqs: int) -> None:
    session.execute("INSERT INTO receipts (ts, seqs) VALUES (%s, %s)", (AT.format(second), list(seqs)))


def names(entries: Sequence[FeedEntry]) -> list[str]:
    return [entry.msg_id if entry.kind == "confirmed" else entry.kind for entry in entries]  # type: ignore[misc]


def read_all(store: Store, cursor: str, limit: int = 100) -> tuple[list[str], str]:
    """Read on until nothing more comes."""
    found: list[str] = []
    while True:
        entries = store.feed.after(cursor, limit)
        if not entries:
            return found, cursor
        assert not store.feed.has_gap(cursor)
        found += names(entries)
        cursor = entries[-1].cursor


class TestOrder:
    def test_an_open_transaction_holds_up_what_is_committed_after_it(
        self, store: Store, sessions: list[psycopg.Connection[Any]]
    ) -> None:
        staying, others = sessions
        cursor = store.feed.end()
        event(staying, "early")
        event(others, "late")
        others.commit()
        assert store.feed.after(cursor, 10) == []
        staying.commit()
        assert sorted(read_all(store, cursor)[0]) == ["early", "late"]

    def test_the_end_is_before_what_is_held_up(
        self, store: Store, sessions: list[psycopg.Connection[Any]]
    ) -> None:
        staying, others = sessions
        event(staying, "early")
        event(others, "late")
        others.commit()
        cursor = store.feed.end()
        staying.rollback()
        assert read_all(store, cursor)[0] == ["late"]

    def test_transactions_are_in_the_order_of_their_numbers(
        self, store: Store, sessions: list[psycopg.Connection[Any]]
    ) -> None:
        for number in (5, 40, 300):
            sessions[0].execute("INSERT INTO events (tx, kind) VALUES (%s::text::xid8, %s)", (number, number))
        sessions[0].commit()
        start = store.feed.since("")
        assert read_all(store, start, 1)[0] == read_all(store, start)[0] == ["5", "40", "300"]
        assert store.feed.after(store.feed.end(), 10) == []

    def test_events_and_confirmations_are_merged_by_time(
        self, store: Store, sessions: list[psycopg.Connection[Any]]
    ) -> None:
        writer = sessions[0]
        cursor = store.feed.end()
        messages(writer, 1, 2, 3, 4)
        event(writer, "opened", 1)
        receipt(writer, 2, 1, 2)
        event(writer, "closed", 3)
        receipt(writer, 4, 3, 4)
        event(writer, "last", 5)
        writer.commit()
        wanted = ["opened", "m-1", "m-2", "closed", "m-3", "m-4", "last"]
        for limit in range(1, 9):
            assert read_all(store, cursor, limit)[0] == wanted

    def test_random_writers(self, store: Store, postgres_url: str) -> None:
        written: list[str] = []
        ended = threading.Event()

        def work(number: int) -> None:
            chance = random.Random(number)
            with psycopg.connect(postgres_url, options="-c search_path=ws_manager") as session:
                for turn in range(50):
                    seqs = [number * 1000 + turn * 4 + part for part in range(chance.randint(1, 4))]
                    messages(session, *seqs)
                    receipt(session, chance.randint(0, 59), *seqs)
                    event(session, f"e-{number}-{turn}", chance.randint(0, 59))
                    if chance.random() < 0.1:
                        session.rollback()
                    else:
                        session.commit()
                        written.extend([f"e-{number}-{turn}", *(f"m-{seq}" for seq in seqs)])

        start = cursor = store.feed.end()
        writers = [threading.Thread(target=work, args=(number,)) for number in range(1, 6)]
        waiter = threading.Thread(target=lambda: ([writer.join() for writer in writers], ended.set()))
        for thread in (*writers, waiter):
            thread.start()
        found: list[str] = []
        while not ended.is_set():
            some, cursor = read_all(store, cursor, 7)
            found += some
        waiter.join()
        found += read_all(store, cursor)[0]
        assert sorted(found) == sorted(written)
        # Also from the same cursor again, with pages of another size.
        assert sorted(read_all(store, start, 11)[0]) == sorted(written)


class TestCursor:
    def test_is_small_and_known(self, store: Store, sessions: list[psycopg.Connection[Any]]) -> None:
        messages(sessions[0], 1, 2)
        receipt(sessions[0], 0, 1, 2)
        sessions[0].commit()
        for cursor in (
            store.feed.end(),
            store.feed.since(""),
            store.feed.after(store.feed.since(""), 1)[0].cursor,
        ):
            assert store.feed.is_cursor(cursor)
            assert len(cursor) < LONGEST
        for other in ("", "1-2-3", "gap", f"{store.feed.end()}0x", store.feed.end().replace(".", ".٣")):
            assert not store.feed.is_cursor(other)

    def test_does_not_go_by_transactions_that_a_crash_may_forget(
        self, store: Store, sessions: list[psycopg.Connection[Any]]
    ) -> None:
        event(sessions[0], "last")
        tx = sessions[0].execute("SELECT tx::text FROM events").fetchone()
        sessions[0].commit()
        for _ in range(5):
            sessions[0].execute("SELECT pg_current_xact_id()")
            sessions[0].commit()
        assert tx is not None
        assert f"-{int(tx[0]) + 1}.0-1.0-0" in store.feed.end()

    def test_since_a_time(self, store: Store, sessions: list[psycopg.Connection[Any]]) -> None:
        writer = sessions[0]
        for second in range(4):
            event(writer, f"e-{second}", second)
            writer.commit()
        assert read_all(store, store.feed.since(AT.format(2)))[0] == ["e-2", "e-3"]
        assert read_all(store, store.feed.since(AT.format(50)))[0] == []

    def test_counts_what_is_behind_it(self, store: Store, sessions: list[psycopg.Connection[Any]]) -> None:
        staying, writer = sessions
        cursor = store.feed.end()
        receipt(writer, 0, 1, 2, 3)
        writer.commit()
        event(staying, "open")
        receipt(writer, 0, 4)
        writer.commit()
        # What is held up is counted once, when it is no longer.
        assert store.feed.count_confirmed(cursor) == 3
        cursor = store.feed.end()
        staying.commit()
        assert store.feed.count_confirmed(cursor) == 1

    def test_goes_on_where_all_messages_of_many_rows_are_gone(
        self, store: Store, sessions: list[psycopg.Connection[Any]]
    ) -> None:
        writer = sessions[0]
        cursor = store.feed.end()
        for seq in range(1, 10):
            receipt(writer, 0, seq)
        messages(writer, 10)
        receipt(writer, 0, 10)
        writer.commit()
        assert names(store.feed.after(cursor, 2)) == ["m-10"]


class TestGap:
    def test_of_what_was_deleted(self, store: Store, sessions: list[psycopg.Connection[Any]]) -> None:
        writer = sessions[0]
        start = store.feed.end()
        for second in range(4):
            event(writer, f"e-{second}", second)
            writer.commit()
        behind_first, behind_second = (entry.cursor for entry in store.feed.after(start, 2))
        assert store.maintenance.delete_over("events", AT.format(2)) == 2
        assert store.feed.has_gap(start)
        assert store.feed.has_gap(behind_first)
        # It has read all that is gone.
        assert not store.feed.has_gap(behind_second)
        assert names(store.feed.after(behind_second, 10)) == ["e-2", "e-3"]

    def test_ends_by_itself(self, store: Store, sessions: list[psycopg.Connection[Any]]) -> None:
        writer = sessions[0]
        start = store.feed.end()
        # The later row is deleted, and the earlier one stays.
        for second in (9, 1, 8):
            event(writer, f"e-{second}", second)
            writer.commit()
        store.maintenance.delete_over("events", AT.format(5))
        store.maintenance.delete_over("events", AT.format(9))
        news = Feed(store).after(start, 1)
        assert (news.gap, names(news.entries)) == (True, ["e-9"])
        again = Feed(store).after(news.cursor, 1)
        assert (again.gap, again.entries) == (False, [])

    def test_none_where_everything_was_read_and_deleted(
        self, store: Store, sessions: list[psycopg.Connection[Any]]
    ) -> None:
        cursor = store.feed.end()
        event(sessions[0], "read")
        receipt(sessions[0], 0, 1)
        sessions[0].commit()
        cursor = store.feed.end()
        for table in ("events", "receipts"):
            assert store.maintenance.delete_over(table, AT.format(1)) == 1
        assert not store.feed.has_gap(cursor)
        assert not Feed(store).after(store.feed.since(""), 10).gap
        event(sessions[0], "new")
        sessions[0].commit()
        assert read_all(store, cursor)[0] == ["new"]

    def test_none_from_rows_that_were_rolled_back(
        self, store: Store, sessions: list[psycopg.Connection[Any]]
    ) -> None:
        cursor = store.feed.end()
        for number in range(3):
            event(sessions[0], "rolled back")
            sessions[0].rollback()
            event(sessions[0], f"e-{number}")
            sessions[0].commit()
        assert not store.feed.has_gap(cursor)

    def test_of_a_row_that_was_begun(self, store: Store, sessions: list[psycopg.Connection[Any]]) -> None:
        messages(sessions[0], 1, 2)
        receipt(sessions[0], 0, 1, 2)
        sessions[0].commit()
        amid, behind = (entry.cursor for entry in store.feed.after(store.feed.since(""), 10))
        assert names(store.feed.after(amid, 10)) == ["m-2"]
        store.maintenance.trim("receipts", AT.format(30), AT.format(59))
        assert store.feed.has_gap(amid)
        assert not store.feed.has_gap(behind)

    def test_of_another_ledger(self, store: Store, postgres: Server) -> None:
        url = postgres.new()
        other = engine_of(url).open_to_write(url)
        assert store.feed.has_gap(other.feed.end())
        assert not other.feed.has_gap(other.feed.end())
        other.close()
        postgres.drop(url)

    def test_of_a_place_that_is_still_to_come(
        self, store: Store, sessions: list[psycopg.Connection[Any]]
    ) -> None:
        ledger = store.feed.end().partition("-")[0]
        assert store.feed.has_gap(f"{ledger}-999999999.1-1.0-0")
