"""What the ledger on a file does beyond the contract: locks, events, gateways."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests.support import db_of, open_socket
from ws_manager import Conflict, Connection, InvalidInput, LedgerBusy, get_db, get_message_history
from ws_manager.core.ledger import Ledger, ledger_over
from ws_manager.models import Receipt
from ws_manager.repository.sqlite.database import Database


@pytest.fixture
def ledger(db: Database) -> Ledger:
    """A ledger with three active connections."""
    ledger = ledger_over(db)
    ledger.connect("octavia", "ws-001", {"region": "us-west"})
    ledger.connect("cipher", "ws-002", {"region": "eu-central"})
    ledger.connect("octavia", "ws-003")
    return ledger


@pytest.fixture
def elsewhere(database: Path, ledger: Ledger) -> Iterator[Ledger]:
    """Another ledger on the same file, as another process would have it."""
    db = get_db(database)
    yield ledger_over(db)
    db.close()


def events(db: Database) -> list[tuple[object, ...]]:
    """Kind, ws_id and detail of every event."""
    return db.rows("SELECT kind, ws_id, detail FROM events ORDER BY id")


class TestEvents:
    def test_registration(self, db: Database) -> None:
        ledger_over(db).connect("octavia", "ws-001")
        assert events(db) == [("registered", "ws-001", "agent=octavia")]

    def test_socket_of_a_gateway(self, db: Database) -> None:
        ledger = ledger_over(db)
        open_socket(ledger, "octavia", "ws-001", gateway="g")
        open_socket(ledger, "octavia", "ws-001", gateway="g")
        assert [kind for kind, *_ in events(db)] == ["opened", "resumed"]

    def test_disconnection(self, ledger: Ledger) -> None:
        ledger.disconnect("ws-001", "enough")
        assert events(db_of(ledger))[-1] == ("disconnected", "ws-001", "enough")

    def test_move(self, ledger: Ledger) -> None:
        ledger.send("ws-001", 1)
        ledger.connect("cipher", "ws-001")
        assert events(db_of(ledger))[3:] == [
            ("moved", "ws-001", "from agent=octavia to agent=cipher"),
            ("set_aside", "ws-001", "1 pending: agent changed"),
            ("registered", "ws-001", "agent=cipher"),
        ]

    def test_none_for_a_broadcast(self, ledger: Ledger) -> None:
        before = events(db_of(ledger))
        ledger.broadcast(1)
        assert events(db_of(ledger)) == before

    def test_belong_to_the_transaction(self, ledger: Ledger) -> None:
        db_of(ledger).execute("BEGIN")
        ledger.disconnect("ws-001")
        db_of(ledger).execute("ROLLBACK")
        assert len(events(db_of(ledger))) == 3
        assert ledger.get("ws-001") is not None


class TestGatewaySocket:
    def test_cannot_move_anothers_ws_id(self, ledger: Ledger) -> None:
        with pytest.raises(Conflict, match="belongs to another agent"):
            open_socket(ledger, "cipher", "ws-001", gateway="g")
        connection = ledger.get("ws-001")
        assert connection is not None
        assert (connection.agent, connection.epoch) == ("octavia", 1)

    def test_cannot_move_a_disconnected_one_either(self, ledger: Ledger) -> None:
        ledger.disconnect("ws-001")
        with pytest.raises(Conflict):
            open_socket(ledger, "cipher", "ws-001", gateway="g")

    def test_takes_over_its_own(self, ledger: Ledger) -> None:
        connection = open_socket(ledger, "octavia", "ws-001", gateway="g")
        assert (connection.epoch, connection.gateway) == (2, "g")

    def test_command_takes_it_back(self, ledger: Ledger) -> None:
        open_socket(ledger, "octavia", "ws-001", gateway="g")
        assert ledger.connect("octavia", "ws-001").gateway is None


class TestBroadcastIsOneTransaction:
    @pytest.mark.parametrize("filter_fn", [None, lambda connection: True], ids=["to all", "filtered"])
    def test_all_rows_or_none(self, ledger: Ledger, filter_fn: Callable[[Connection], bool] | None) -> None:
        db_of(ledger).execute(
            "CREATE TRIGGER second BEFORE INSERT ON messages WHEN NEW.recipient_id = 'ws-002'"
            " BEGIN SELECT RAISE(ABORT, 'no second row'); END"
        )
        with pytest.raises(sqlite3.IntegrityError, match="no second row"):
            ledger.broadcast(1, filter_fn=filter_fn)
        assert get_message_history(ledger) == []
        assert [connection.message_count for connection in ledger.active()] == [0, 0, 0]
        assert db_of(ledger).value("SELECT count(*) FROM broadcasts") == 0

    def test_counter_that_fails_undoes_the_rows(self, ledger: Ledger) -> None:
        db_of(ledger).execute(
            "CREATE TRIGGER counter BEFORE UPDATE ON connections WHEN NEW.ws_id = 'ws-003'"
            " BEGIN SELECT RAISE(ABORT, 'no count'); END"
        )
        with pytest.raises(sqlite3.IntegrityError):
            ledger.broadcast(1)
        assert get_message_history(ledger) == []

    def test_is_recorded(self, ledger: Ledger) -> None:
        sent = ledger.broadcast(1, msg_type="deploy", sender_id="ws-002")
        assert db_of(ledger).rows(
            "SELECT broadcast_id, first_id, last_id, recipients, msg_type, sender_id FROM broadcasts"
        ) == [(sent.broadcast_id, 1, 3, 3, "deploy", "ws-002")]

    def test_of_one_to_nobody_is_recorded_too(self, ledger: Ledger) -> None:
        ledger.broadcast(1, agent="nobody")
        assert db_of(ledger).rows("SELECT first_id, last_id, recipients FROM broadcasts") == [(None, None, 0)]

    def test_is_one_commit(self, ledger: Ledger) -> None:
        statements: list[str] = []
        db_of(ledger).set_trace_callback(statements.append)
        ledger.broadcast(1)
        db_of(ledger).set_trace_callback(None)
        assert (statements[0], statements[-1]) == ("BEGIN IMMEDIATE", "COMMIT")
        assert sum(statement.startswith(("BEGIN", "COMMIT")) for statement in statements) == 2

    def test_large_one_is_contiguous_while_others_send(
        self, ledger: Ledger, run_together: Callable[..., list[str]]
    ) -> None:
        run_together(
            """
from ws_manager import *
ledger = open_ledger(sys.argv[1])
for n in range(50):
    sent = ledger.broadcast(n, sender_id=sys.argv[2])
    db = ledger._store.db
    rows = db.rows("SELECT id FROM messages WHERE broadcast_id = ? ORDER BY id", (sent.broadcast_id,))
    assert [row[0] - rows[0][0] for row in rows] == [0, 1, 2]
ledger.close()
""",
            4,
            db_of(ledger).path,
        )
        assert ledger.stats()["total_messages"] == 4 * 50 * 3


class TestFilter:
    def test_chooses_by_the_connection(self, ledger: Ledger) -> None:
        sent = ledger.broadcast(1, filter_fn=lambda c: c.metadata.get("region") == "us-west")
        assert sent.recipients == ["ws-001"]

    def test_runs_before_the_write_lock_is_taken(self, ledger: Ledger, elsewhere: Ledger) -> None:
        db_of(elsewhere).execute("PRAGMA busy_timeout = 1")
        ledger.broadcast(1, filter_fn=lambda c: bool(elsewhere.send(c.ws_id, "meanwhile")))
        assert ledger.stats()["total_messages"] == 6

    def test_leaves_out_who_has_gone_meanwhile(self, ledger: Ledger, elsewhere: Ledger) -> None:
        def choose(connection: Connection) -> bool:
            elsewhere.disconnect("ws-002")
            return True

        assert ledger.broadcast(1, filter_fn=choose).recipients == ["ws-001", "ws-003"]

    def test_does_not_choose_who_came_meanwhile(self, ledger: Ledger, elsewhere: Ledger) -> None:
        def choose(connection: Connection) -> bool:
            elsewhere.connect("octavia", "ws-new")
            return True

        assert ledger.broadcast(1, filter_fn=choose).recipients == ["ws-001", "ws-002", "ws-003"]

    def test_error_in_it_sends_nothing(self, ledger: Ledger) -> None:
        with pytest.raises(ZeroDivisionError):
            ledger.broadcast(1, filter_fn=lambda c: bool(1 / 0))
        assert get_message_history(ledger) == []

    def test_counts_only_the_chosen(self, ledger: Ledger) -> None:
        ledger.broadcast(1, filter_fn=lambda c: c.ws_id != "ws-002")
        assert [connection.message_count for connection in ledger.active()] == [1, 0, 1]

    def test_is_asked_only_about_the_agent(self, ledger: Ledger) -> None:
        asked: list[str] = []
        ledger.broadcast(1, agent="octavia", filter_fn=lambda c: bool(asked.append(c.ws_id)))
        assert asked == ["ws-001", "ws-003"]


class TestOrder:
    def test_times_are_in_the_order_of_the_ids(self, ledger: Ledger) -> None:
        for number in range(20):
            ledger.send("ws-001", number)
        times = [row["sent_at"] for row in get_message_history(ledger)]
        assert times == sorted(times, reverse=True)

    def test_heartbeats_are_logged(self, ledger: Ledger) -> None:
        ledger.heartbeat("ws-001", 12.6)
        ledger.heartbeat("ws-001")
        assert db_of(ledger).rows("SELECT ws_id, latency_ms FROM heartbeat_log") == [
            ("ws-001", 13),
            ("ws-001", None),
        ]


class TestWait:
    def test_follows_confirmations_of_another_process(self, ledger: Ledger, elsewhere: Ledger) -> None:
        sent = ledger.broadcast(1)
        elsewhere.delivery.settle([Receipt(ws_id, 1, [1, 2, 3]) for ws_id in sent.recipients])
        assert ledger.wait(sent, 60) == (3, 0, 0)

    def test_returns_when_the_last_confirmation_comes(
        self, ledger: Ledger, elsewhere: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent = ledger.broadcast(1)
        receipts = iter([Receipt(ws_id, 1, [1, 2, 3]) for ws_id in sent.recipients])
        monkeypatch.setattr(
            "ws_manager.core.sending.time.sleep",
            lambda seconds: elsewhere.delivery.settle([next(receipts)]),
        )
        assert ledger.wait(sent, 60) == (3, 0, 0)


class TestManyProcesses:
    def test_all_send_at_once(self, ledger: Ledger, run_together: Callable[..., list[str]]) -> None:
        run_together(
            """
from ws_manager import *
db = get_db(sys.argv[1])
db.execute("PRAGMA synchronous = OFF")
pool = ConnectionPool(db)
for n in range(200):
    assert send_message(pool, db, "ws-001", n, sender_id=sys.argv[2])
db.close()
""",
            4,
            db_of(ledger).path,
        )
        for sender in range(4):
            rows = db_of(ledger).rows(
                "SELECT content FROM messages WHERE sender_id = ? ORDER BY id", (str(sender),)
            )
            assert [int(content) for (content,) in rows] == list(range(200))
        connection = ledger.get("ws-001")
        assert connection is not None
        assert connection.message_count == 800

    def test_register_the_same_ws_id_at_once(
        self, ledger: Ledger, run_together: Callable[..., list[str]]
    ) -> None:
        run_together(
            """
from ws_manager import *
db = get_db(sys.argv[1])
pool = ConnectionPool(db)
for _ in range(25):
    add_connection(pool, "ws-same", "octavia")
db.close()
""",
            4,
            db_of(ledger).path,
        )
        connection = ledger.get("ws-same")
        assert connection is not None
        assert connection.epoch == 100
        assert ledger.stats()["total_ever_connected"] == 4

    def test_writer_that_waits_too_long_leaves_nothing(self, ledger: Ledger, elsewhere: Ledger) -> None:
        db_of(elsewhere).execute("BEGIN IMMEDIATE")
        db_of(ledger).execute("PRAGMA busy_timeout = 1")
        for write in (
            lambda: ledger.connect("octavia", "ws-new"),
            lambda: ledger.disconnect("ws-001"),
            lambda: ledger.broadcast(1),
            lambda: ledger.heartbeat("ws-001"),
        ):
            with pytest.raises(LedgerBusy):
                write()
        db_of(elsewhere).execute("ROLLBACK")
        assert ledger.count() == 3
        assert get_message_history(ledger) == []


def test_how_large_a_message_may_be_comes_from_the_environment(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLACKROAD_WS_MAX_CONTENT", "300KiB")
    ledger = ledger_over(db)
    ledger.connect("octavia", "ws-001")
    assert ledger.send("ws-001", "x" * (300 * 1024 - 2)) is not None
    with pytest.raises(InvalidInput, match="bytes"):
        ledger.send("ws-001", "x" * (300 * 1024 - 1))
