"""The history in PostgreSQL: followed while others commit in any order, and read as SQLite reads it."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import psycopg
import pytest

from ws_manager.models import Message
from ws_manager.repository.engines import engine_of
from ws_manager.repository.findings import MessageFilter, TableColumns
from ws_manager.repository.records import Position
from ws_manager.repository.store import Store

EARLY, LATE = "2026-01-01T00:00:00.000000+00:00", "2026-01-02T00:00:00.000000+00:00"
ALL = MessageFilter()


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    store = engine_of(postgres_url).open_to_write(postgres_url)
    yield store
    store.close()


@pytest.fixture
def sessions(postgres_url: str) -> Iterator[list[psycopg.Connection[Any]]]:
    """Three sessions whose transactions the test ends itself."""
    opened = [psycopg.connect(postgres_url) for _ in range(3)]
    yield opened
    for session in opened:
        session.close()


def write(session: psycopg.Connection[Any], name: str, sent_at: str = LATE) -> None:
    """Write a message in the session's transaction, which stays open."""
    session.execute(
        "INSERT INTO ws_manager.messages (msg_id, recipient_id, content, sent_at) VALUES (%s, 'ws-001', '1', %s)",
        (name, sent_at),
    )


def names(messages: list[Message]) -> list[str]:
    return [message.msg_id for message in messages]


def read_all(store: Store, position: Position, limit: int = 100) -> tuple[list[str], Position]:
    """Read on until nothing more comes."""
    found: list[str] = []
    while True:
        messages, position = store.history.after(position, ALL, limit)
        if not messages:
            return found, position
        found += names(messages)


class TestFollowing:
    def test_what_is_committed_out_of_order_comes_once(
        self, store: Store, sessions: list[psycopg.Connection[Any]]
    ) -> None:
        early, late, _ = sessions
        position = store.history.position()
        write(early, "first id")
        write(late, "second id")
        late.commit()
        found, position = read_all(store, position)
        assert found == ["second id"]
        early.commit()
        found, position = read_all(store, position)
        assert found == ["first id"]
        assert read_all(store, position)[0] == []

    def test_a_transaction_that_stays_open_holds_up_nobody(
        self, store: Store, sessions: list[psycopg.Connection[Any]]
    ) -> None:
        staying, others, _ = sessions
        write(staying, "staying")
        position = store.history.position()
        for number in range(5):
            write(others, f"m-{number}")
            others.commit()
            found, position = read_all(store, position)
            assert found == [f"m-{number}"]
        staying.commit()
        assert read_all(store, position)[0] == ["staying"]

    def test_what_is_rolled_back_never_comes(
        self, store: Store, sessions: list[psycopg.Connection[Any]]
    ) -> None:
        first, second, _ = sessions
        position = store.history.position()
        write(first, "rolled back")
        write(second, "committed")
        first.rollback()
        second.commit()
        assert read_all(store, position)[0] == ["committed"]

    def test_pages_are_of_one_moment(self, store: Store, sessions: list[psycopg.Connection[Any]]) -> None:
        early, late, _ = sessions
        position = store.history.position()
        write(early, "early")
        for number in range(3):
            write(late, f"m-{number}")
        late.commit()
        messages, position = store.history.after(position, ALL, 2)
        assert names(messages) == ["m-0", "m-1"]
        # It has a lower id than what was read, and is committed between two pages.
        early.commit()
        assert sorted(read_all(store, position, 2)[0]) == ["early", "m-2"]

    def test_a_filter_moves_the_position_too(
        self, store: Store, sessions: list[psycopg.Connection[Any]]
    ) -> None:
        position = store.history.position()
        write(sessions[0], "unwanted")
        sessions[0].commit()
        found, position = store.history.after(position, MessageFilter(ws_id="ws-002"), 10)
        assert found == []
        assert store.history.after(position, ALL, 10)[0] == []

    def test_random_writers(self, store: Store, postgres_url: str) -> None:
        written: list[str] = []
        ended = threading.Event()

        def work(number: int) -> None:
            chance = random.Random(number)
            with psycopg.connect(postgres_url) as session:
                for turn in range(60):
                    some = [f"{number}-{turn}-{part}" for part in range(chance.randint(1, 3))]
                    for name in some:
                        write(session, name)
                    if chance.random() < 0.1:
                        session.rollback()
                    else:
                        session.commit()
                        written.extend(some)

        position = store.history.position()
        writers = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        waiter = threading.Thread(target=lambda: ([writer.join() for writer in writers], ended.set()))
        for thread in (*writers, waiter):
            thread.start()
        found: list[str] = []
        while not ended.is_set():
            some, position = read_all(store, position, 7)
            found += some
        waiter.join()
        found += read_all(store, position)[0]
        assert len(found) == len(set(found))
        assert sorted(found) == sorted(written)


class TestSince:
    def test_begins_before_the_first_message_of_that_time(
        self, store: Store, sessions: list[psycopg.Connection[Any]]
    ) -> None:
        early, late, after = sessions
        write(early, "begun early, sent late", LATE)
        write(late, "sent early", EARLY)
        late.commit()
        write(late, "sent late", LATE)
        late.commit()
        write(late, "sent early, written late", EARLY)
        late.commit()
        position = store.history.position(LATE)
        early.commit()
        # A clock that was set back: it is new all the same.
        write(after, "new", EARLY)
        after.commit()
        found, position = read_all(store, position, 1)
        assert found[0] == "sent late"
        assert sorted(found[1:]) == ["begun early, sent late", "new"]

    def test_of_a_time_to_come_is_the_present(
        self, store: Store, sessions: list[psycopg.Connection[Any]]
    ) -> None:
        write(sessions[0], "old", EARLY)
        sessions[0].commit()
        position = store.history.position(LATE)
        write(sessions[0], "new", EARLY)
        sessions[0].commit()
        assert read_all(store, position)[0] == ["new"]

    def test_of_the_beginning_has_all(self, store: Store, sessions: list[psycopg.Connection[Any]]) -> None:
        for number in range(3):
            write(sessions[0], f"m-{number}", EARLY)
            sessions[0].commit()
        assert read_all(store, store.history.position(""), 2)[0] == ["m-0", "m-1", "m-2"]


TEXTS = ["Grüße", "GRÜSSE an 100% aller", 'sie sagte "Ja"', "back\\slash", "under_score", "УЖЕ", "plain Text"]


@pytest.fixture(scope="module")
def both(postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Store]]:
    """A store of each engine with the same rows."""
    url = postgres.new()
    path: Path = tmp_path_factory.mktemp("both") / "ws.db"
    stores = [engine_of(where).open_to_write(where) for where in (path, url)]
    for store in stores:
        with store.atomic():
            for row in _rows(store.maintenance.columns(store.version)):
                store.maintenance.insert(row[0], [row[1]])
            store.maintenance.complete_import(LATE)
    yield stores
    for store in stores:
        store.close()
    postgres.drop(url)


class TestAsSqlite:
    @pytest.mark.parametrize(
        "wanted",
        [
            {},
            {"ws_id": "ws-001"},
            {"ws_id": "ws-001", "pending": True},
            {"agent": "octavia"},
            {"agent": "octavia", "below": 15, "msg_type": "news"},
            {"pending": True},
            {"set_aside": True},
            {"pending": True, "set_aside": True},
            {"since": "2026-01-01T00:00:10"},
            {"before": "2026-01-01T00:00:10", "since": "2026-01-01T00:00:03"},
            {"broadcast_id": "b-1", "since": "2026-01-01T00:00:03"},
            {"msg_type": "news"},
            *(
                {"text": text}
                for text in (*TEXTS, "grüsse", "GRÜßE", "уже", "PLAIN tEXT", "100%", "%", "_", '"ja"')
            ),
            {"text": "no\0where"},
        ],
    )
    @pytest.mark.parametrize("limit", [3, 100])
    def test_newest(self, both: list[Store], wanted: dict[str, Any], limit: int) -> None:
        found = [store.history.newest(MessageFilter(**wanted), limit) for store in both]
        assert found[1] == found[0]
        assert bool(found[1]) == (wanted.get("text") != "no\0where")

    @pytest.mark.parametrize("wanted", [{"ws_id": "ws-001"}, {"agent": "octavia"}, {"text": "уже"}, {}])
    def test_after(self, both: list[Store], wanted: dict[str, Any]) -> None:
        found: list[Any] = []
        for store in both:
            position: Optional[Position] = store.history.position("")
            found.append(store.history.after(position, MessageFilter(**wanted), 100)[0])  # type: ignore[arg-type]
        assert found[1] == found[0] != []


def _rows(columns: dict[str, TableColumns]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the rows of an export with messages of all kinds."""

    def row(table: str, **values: object) -> tuple[str, dict[str, Any]]:
        return table, {**dict.fromkeys(columns[table].present), **values}

    for number, agent in enumerate(["octavia", "octavia", "cipher"], 1):
        counters = {"message_count": 8, "epoch": 1, "confirmed_seq": 0, "metadata": "{}", "status": "active"}
        times = {"connected_at": EARLY, "last_heartbeat": EARLY}
        yield row("connections", id=number, ws_id=f"ws-00{number}", agent=agent, **counters, **times)
    yield row(
        "broadcasts", broadcast_id="b-1", first_id=7, last_id=9, recipients=3, msg_type="news", sent_at=EARLY
    )
    for number in range(1, 25):
        yield row(
            "messages",
            id=number,
            msg_id=f"m-{number}",
            recipient_id=f"ws-00{number % 3 + 1}",
            sender_id=None if number % 4 else "ws-001",
            msg_type="news" if number % 2 else "data",
            content=json.dumps(TEXTS[number % len(TEXTS)], ensure_ascii=False),
            delivered=int(number % 5 == 0),
            refusals=0,
            sent_at=f"2026-01-01T00:00:{number % 20:02}.000000+00:00",
            rejected_at=LATE if number % 7 == 1 else None,
            broadcast_id="b-1" if 7 <= number <= 9 else None,
        )
