"""The pool: never stale, and delivery inside this process."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests.support import db_of
from ws_manager import (
    Conflict,
    Connection,
    ConnectionPool,
    Message,
    NotFound,
    add_connection,
    broadcast,
    get_db,
    get_message_history,
    remove_connection,
    send_message,
)
from ws_manager.core.ledger import ledger_over
from ws_manager.repository.sqlite.database import Database


@pytest.fixture
def connected(pool: ConnectionPool) -> ConnectionPool:
    """A pool with ws-001 of octavia and ws-002 of cipher."""
    add_connection(pool, "ws-001", "octavia", {"region": "us-west"})
    add_connection(pool, "ws-002", "cipher")
    return pool


@pytest.fixture
def elsewhere(database: Path, connected: ConnectionPool) -> Iterator[ConnectionPool]:
    """A pool on another connection to the same file."""
    db = get_db(database)
    yield ConnectionPool(db)
    db.close()


def delivered(db: Database) -> dict[str, int]:
    """How many messages of each connection are confirmed."""
    return dict(db.rows("SELECT recipient_id, total(delivered) FROM messages GROUP BY recipient_id"))


class TestMethods:
    def test_needs_a_ledger(self) -> None:
        with (
            contextlib.closing(sqlite3.connect(":memory:")) as plain,
            pytest.raises(ValueError, match=r"not a connection to a ledger"),
        ):
            ConnectionPool(plain)

    def test_finds_what_was_there_before(self, database: Path, connected: ConnectionPool) -> None:
        with contextlib.closing(get_db(database)) as db:
            assert [c.ws_id for c in ConnectionPool(db).get_all()] == ["ws-001", "ws-002"]

    def test_add(self, pool: ConnectionPool) -> None:
        added = pool.add(Connection("ws-001", "octavia", {"a": 1}))
        assert added.db_id == 1
        assert pool.get("ws-001") == added

    def test_remove(self, connected: ConnectionPool) -> None:
        assert connected.remove("ws-001")
        assert connected.get("ws-001") is None
        assert connected.count() == 1

    def test_remove_of_nobody(self, pool: ConnectionPool) -> None:
        assert pool.remove("ws-001") is False

    def test_get_of_nobody(self, pool: ConnectionPool) -> None:
        assert pool.get("ws-001") is None

    def test_count(self, connected: ConnectionPool) -> None:
        assert connected.count() == 2

    def test_update_heartbeat(self, connected: ConnectionPool, db: Database) -> None:
        assert connected.update_heartbeat("ws-001", latency_ms=12) is True
        assert db.rows("SELECT ws_id, latency_ms FROM heartbeat_log") == [("ws-001", 12)]

    def test_update_heartbeat_of_nobody(self, pool: ConnectionPool, db: Database) -> None:
        assert pool.update_heartbeat("ws-001") is False
        assert db.rows("SELECT * FROM heartbeat_log") == []

    def test_increment_message_count(self, connected: ConnectionPool) -> None:
        connected.increment_message_count("ws-001")
        connection = connected.get("ws-001")
        assert connection is not None
        assert connection.message_count == 1


class TestNeverStale:
    def test_changed_by_another_process(
        self, database: Path, connected: ConnectionPool, run_python: Callable[..., str]
    ) -> None:
        assert connected.get("ws-001") is not None
        run_python(
            "import sys; from ws_manager import *\n"
            "db = get_db(sys.argv[1]); pool = ConnectionPool(db)\n"
            "add_connection(pool, 'ws-001', 'octavia', {'moved': True}); pool.remove('ws-002'); db.close()",
            database,
        )
        connection = connected.get("ws-001")
        assert connection is not None
        assert connection.metadata == {"moved": True}
        assert connected.get("ws-002") is None
        assert [c.ws_id for c in connected.get_all()] == ["ws-001"]

    def test_changed_by_another_connection(
        self, connected: ConnectionPool, elsewhere: ConnectionPool
    ) -> None:
        connected.get_all()
        elsewhere.increment_message_count("ws-001")
        elsewhere.add(Connection("ws-003", "octavia"))
        assert [(c.ws_id, c.message_count) for c in connected.get_all()] == [
            ("ws-001", 1),
            ("ws-002", 0),
            ("ws-003", 0),
        ]
        assert connected.count() == 3

    @pytest.mark.parametrize(
        ("change", "field", "value"),
        [
            ("metadata = '{\"raw\":1}'", "metadata", {"raw": 1}),
            ("message_count = 9", "message_count", 9),
            ("last_heartbeat = 'then'", "last_heartbeat", "then"),
            ("agent = 'other'", "agent", "other"),
        ],
    )
    def test_changed_by_raw_sql_on_the_same_connection(
        self, connected: ConnectionPool, db: Database, change: str, field: str, value: object
    ) -> None:
        connected.get_all()
        db.execute(f"UPDATE connections SET {change} WHERE ws_id = 'ws-001'")
        assert getattr(connected.get("ws-001"), field) == value
        assert getattr(connected.get_all()[0], field) == value

    def test_deleted_by_raw_sql(self, connected: ConnectionPool, db: Database) -> None:
        connected.get_all()
        db.execute("DELETE FROM connections WHERE ws_id = 'ws-001'")
        assert connected.get("ws-001") is None
        assert [c.ws_id for c in connected.get_all()] == ["ws-002"]

    def test_undone_by_the_callers_rollback(self, connected: ConnectionPool, db: Database) -> None:
        db.execute("BEGIN")
        add_connection(connected, "ws-001", "octavia", {"undone": True})
        connected.remove("ws-002")
        db.execute("ROLLBACK")
        connection = connected.get("ws-001")
        assert connection is not None
        assert connection.metadata == {"region": "us-west"}
        assert connected.get("ws-002") is not None

    def test_filter_sees_the_present(self, connected: ConnectionPool, db: Database) -> None:
        connected.get_all()
        db.execute("UPDATE connections SET metadata = '{\"now\":true}' WHERE ws_id = 'ws-002'")
        assert broadcast(connected, db, 1, filter_fn=lambda c: "now" in c.metadata) == ["ws-002"]


class TestDecodedOnce:
    def test_by_get(self, connected: ConnectionPool) -> None:
        assert connected.get("ws-001") is connected.get("ws-001")

    def test_by_get_all(self, connected: ConnectionPool) -> None:
        assert connected.get_all()[1] is connected.get_all()[1]

    def test_by_either(self, connected: ConnectionPool) -> None:
        assert connected.get("ws-001") is connected.get_all()[0]

    def test_whatever_happens_to_others(self, connected: ConnectionPool, elsewhere: ConnectionPool) -> None:
        before = connected.get("ws-001")
        elsewhere.increment_message_count("ws-002")
        connected.update_heartbeat("ws-002")
        assert connected.get_all()[0] is before

    def test_forgotten_when_gone(self, connected: ConnectionPool, elsewhere: ConnectionPool) -> None:
        before = connected.get("ws-001")
        elsewhere.remove("ws-001")
        connected.get_all()
        # Put back to the letter: it is decoded again only if it was forgotten.
        db_of(elsewhere.ledger).execute(
            "UPDATE connections SET status = 'active', disconnected_at = NULL, close_reason = NULL"
        )
        after = connected.get("ws-001")
        assert after == before
        assert after is not before

    def test_broadcast_to_all_decodes_nothing(self, connected: ConnectionPool, db: Database) -> None:
        db.execute("UPDATE connections SET metadata = 'cannot be decoded'")
        assert broadcast(connected, db, 1) == ["ws-001", "ws-002"]


def void(_: object) -> None:
    """Nothing, of anything."""


class Inbox:
    """A function that receives messages, and what it received."""

    def __init__(self) -> None:
        self.received: list[object] = []
        self.failing = False

    def __call__(self, message: Message) -> None:
        if self.failing:
            raise RuntimeError("the inbox is full")
        self.received.append(message.payload)


@pytest.fixture
def inbox() -> Inbox:
    """An empty inbox."""
    return Inbox()


class TestAttach:
    def test_receives_what_is_sent(self, connected: ConnectionPool, db: Database, inbox: Inbox) -> None:
        connected.attach("ws-001", inbox)
        send_message(connected, db, "ws-001", "one")
        broadcast(connected, db, "two")
        assert inbox.received == ["one", "two"]
        assert delivered(db) == {"ws-001": 2, "ws-002": 0}

    def test_receives_what_is_pending_oldest_first(
        self, connected: ConnectionPool, db: Database, inbox: Inbox
    ) -> None:
        for number in range(250):
            send_message(connected, db, "ws-001", number)
        connected.attach("ws-001", inbox)
        assert inbox.received == list(range(250))
        assert delivered(db) == {"ws-001": 250}

    def test_message_is_as_it_was_sent(self, connected: ConnectionPool, db: Database) -> None:
        received: list[Message] = []
        connected.attach("ws-001", received.append)
        sent = send_message(connected, db, "ws-001", {"a": 1}, "deploy", "ws-002")
        assert received == [sent]

    def test_is_called_outside_any_transaction(self, connected: ConnectionPool, db: Database) -> None:
        states: list[bool] = []
        connected.attach("ws-001", lambda message: states.append(db.in_transaction))
        send_message(connected, db, "ws-001", 1)
        assert states == [False]

    def test_message_is_committed_before(
        self, connected: ConnectionPool, elsewhere: ConnectionPool, db: Database
    ) -> None:
        seen: list[int] = []
        connected.attach(
            "ws-001", lambda message: seen.append(len(get_message_history(elsewhere.ledger, "ws-001")))
        )
        send_message(connected, db, "ws-001", 1)
        assert seen == [1]

    def test_failing_function_leaves_it_pending(
        self, connected: ConnectionPool, db: Database, inbox: Inbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        inbox.failing = True
        connected.attach("ws-001", inbox)
        assert send_message(connected, db, "ws-001", "one") is not None
        assert delivered(db) == {"ws-001": 0}
        assert "stays pending" in caplog.text

    def test_order_survives_a_failure(
        self, connected: ConnectionPool, db: Database, inbox: Inbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.CRITICAL, "ws_manager")
        connected.attach("ws-001", inbox)
        inbox.failing = True
        send_message(connected, db, "ws-001", "one")
        inbox.failing = False
        send_message(connected, db, "ws-001", "two")
        assert inbox.received == ["one", "two"]

    def test_failing_function_does_not_hinder_others(
        self, connected: ConnectionPool, db: Database, inbox: Inbox
    ) -> None:
        failing = Inbox()
        failing.failing = True
        connected.attach("ws-001", failing)
        connected.attach("ws-002", inbox)
        broadcast(connected, db, 1)
        assert inbox.received == [1]

    def test_function_may_send(self, connected: ConnectionPool, db: Database, inbox: Inbox) -> None:
        connected.attach("ws-001", lambda m: void(send_message(connected, db, "ws-002", m.payload)))
        connected.attach("ws-002", inbox)
        send_message(connected, db, "ws-001", "pass it on")
        assert inbox.received == ["pass it on"]
        assert delivered(db) == {"ws-001": 1, "ws-002": 1}

    def test_function_may_send_to_itself(self, connected: ConnectionPool, db: Database) -> None:
        received: list[int] = []

        def count_down(message: Message) -> None:
            received.append(message.payload)
            if message.payload:
                send_message(connected, db, "ws-001", message.payload - 1)

        connected.attach("ws-001", count_down)
        send_message(connected, db, "ws-001", 3)
        assert received == [3, 2, 1, 0]

    def test_of_nobody(self, pool: ConnectionPool, inbox: Inbox) -> None:
        with pytest.raises(NotFound):
            pool.attach("ws-001", inbox)

    def test_twice_replaces_the_function(self, connected: ConnectionPool, db: Database, inbox: Inbox) -> None:
        connected.attach("ws-001", Inbox())
        connected.attach("ws-001", inbox)
        send_message(connected, db, "ws-001", 1)
        assert inbox.received == [1]

    def test_while_another_holds_it(
        self, connected: ConnectionPool, elsewhere: ConnectionPool, inbox: Inbox
    ) -> None:
        connected.attach("ws-001", inbox)
        with pytest.raises(Conflict, match="another receiver holds ws-001"):
            elsewhere.attach("ws-001", inbox)

    def test_detach_lets_another_hold_it(
        self, connected: ConnectionPool, elsewhere: ConnectionPool, db: Database, inbox: Inbox
    ) -> None:
        connected.attach("ws-001", Inbox())
        connected.detach("ws-001")
        send_message(connected, db, "ws-001", 1)
        elsewhere.attach("ws-001", inbox)
        assert inbox.received == [1]

    def test_a_function_may_leave_a_transaction_open(self, connected: ConnectionPool, db: Database) -> None:
        received: list[object] = []

        def begin(message: Message) -> None:
            received.append(message.payload)
            db.execute("BEGIN IMMEDIATE")

        connected.attach("ws-001", begin)
        send_message(connected, db, "ws-001", 1)
        assert (received, db.in_transaction) == ([1], True)
        db.commit()
        assert [message["delivered"] for message in get_message_history(db, "ws-001")] == [1]

    def test_detach_of_nothing(self, pool: ConnectionPool) -> None:
        pool.detach("ws-001")

    def test_remove_detaches(
        self, connected: ConnectionPool, elsewhere: ConnectionPool, inbox: Inbox
    ) -> None:
        connected.attach("ws-001", Inbox())
        remove_connection(connected, "ws-001")
        elsewhere.attach("ws-001", inbox)


class TestDeliverPending:
    def test_fetches_what_others_sent(
        self, connected: ConnectionPool, elsewhere: ConnectionPool, inbox: Inbox
    ) -> None:
        connected.attach("ws-001", inbox)
        send_message(elsewhere, db_of(elsewhere.ledger), "ws-001", "from outside")
        assert inbox.received == []
        assert connected.deliver_pending() == 1
        assert inbox.received == ["from outside"]

    def test_of_nothing(self, connected: ConnectionPool, inbox: Inbox) -> None:
        connected.attach("ws-001", inbox)
        assert connected.deliver_pending() == 0

    def test_waits_for_the_callers_commit(
        self, connected: ConnectionPool, db: Database, inbox: Inbox
    ) -> None:
        connected.attach("ws-001", inbox)
        db.execute("BEGIN")
        send_message(connected, db, "ws-001", 1)
        assert connected.deliver_pending() == 0
        assert inbox.received == []
        db.execute("COMMIT")
        assert connected.deliver_pending() == 1

    def test_waits_for_the_commit_on_another_connection(
        self, connected: ConnectionPool, elsewhere: ConnectionPool, db: Database, inbox: Inbox
    ) -> None:
        send_message(connected, db, "ws-001", "before")
        inbox.failing = True
        connected.attach("ws-001", inbox)
        inbox.failing = False
        db.execute("PRAGMA busy_timeout = 1")
        other = db_of(elsewhere.ledger)
        other.execute("BEGIN IMMEDIATE")
        send_message(connected, other, "ws-001", "inside")
        assert inbox.received == []
        other.execute("COMMIT")
        connected.deliver_pending()
        assert inbox.received == ["before", "inside"]

    def test_one_registered_again_elsewhere_is_a_conflict(
        self, connected: ConnectionPool, elsewhere: ConnectionPool, inbox: Inbox
    ) -> None:
        connected.attach("ws-001", inbox)
        add_connection(elsewhere, "ws-001", "octavia")
        with pytest.raises(Conflict, match="registered again"):
            connected.deliver_pending()

    def test_moved_one_receives_nothing_of_the_other_agents(
        self, connected: ConnectionPool, elsewhere: ConnectionPool, db: Database, inbox: Inbox
    ) -> None:
        connected.attach("ws-001", inbox)
        add_connection(elsewhere, "ws-001", "cipher")
        assert send_message(connected, db, "ws-001", "for cipher") is not None
        assert inbox.received == []
        assert delivered(db) == {"ws-001": 0}

    def test_send_is_not_failed_by_a_conflict(
        self, connected: ConnectionPool, elsewhere: ConnectionPool, db: Database, inbox: Inbox
    ) -> None:
        connected.attach("ws-001", Inbox())
        connected.attach("ws-002", inbox)
        add_connection(elsewhere, "ws-001", "octavia")
        assert broadcast(connected, db, "one") == ["ws-001", "ws-002"]
        broadcast(connected, db, "two")
        assert inbox.received == ["one", "two"]

    def test_confirms_only_what_the_function_returned_from(
        self, connected: ConnectionPool, db: Database
    ) -> None:
        for number in range(3):
            send_message(connected, db, "ws-001", number)
        received: list[object] = []

        def second_fails(message: Message) -> None:
            if message.payload == 1:
                raise RuntimeError
            received.append(message.payload)

        connected.attach("ws-001", second_fails)
        assert received == [0]
        connection = connected.get("ws-001")
        assert connection is not None
        assert connected.ledger.count_pending(connection) == 2

    def test_set_aside_messages_are_left_out(
        self, connected: ConnectionPool, db: Database, inbox: Inbox
    ) -> None:
        send_message(connected, db, "ws-001", "for octavia")
        add_connection(connected, "ws-001", "cipher")
        connected.attach("ws-001", inbox)
        assert inbox.received == []

    def test_confirmation_is_recorded(self, connected: ConnectionPool, db: Database, inbox: Inbox) -> None:
        connected.attach("ws-001", inbox)
        sent = send_message(connected, db, "ws-001", 1)
        assert sent is not None
        row = get_message_history(connected.ledger)[0]
        assert row["delivered"] == 1
        assert row["confirmed_at"] >= row["sent_at"]
        connection = ledger_over(db).get("ws-001")
        assert connection is not None
        assert connection.confirmed_seq == sent.db_id


def test_metadata_that_another_program_has_broken_is_shown_as_it_is(
    pool: ConnectionPool, db: Database
) -> None:
    add_connection(pool, "ws-001", "octavia")
    db.execute("UPDATE connections SET metadata = 'not json'")
    connection = pool.get("ws-001")
    assert connection is not None
    assert connection.metadata == {"unreadable": "not json"}
