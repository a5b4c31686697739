"""What the registry on a file does beyond the contract: locks, events, gateways."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from ws_manager import Conflict, Connection, InvalidInput, LedgerBusy, get_db
from ws_manager.core.delivery import Delivery
from ws_manager.core.registry import Registry
from ws_manager.models import Receipt
from ws_manager.repository.sqlite.database import Database


@pytest.fixture
def registry(db: Database) -> Registry:
    """A registry with three active connections."""
    registry = Registry(db)
    registry.connect("octavia", "ws-001", {"region": "us-west"})
    registry.connect("cipher", "ws-002", {"region": "eu-central"})
    registry.connect("octavia", "ws-003")
    return registry


@pytest.fixture
def elsewhere(database: Path, registry: Registry) -> Iterator[Registry]:
    """Another registry on the same file, as another process would have it."""
    db = get_db(database)
    yield Registry(db)
    db.close()


def events(db: Database) -> list[tuple[object, ...]]:
    """Kind, ws_id and detail of every event."""
    return db.rows("SELECT kind, ws_id, detail FROM events ORDER BY id")


class TestEvents:
    def test_registration(self, db: Database) -> None:
        Registry(db).connect("octavia", "ws-001")
        assert events(db) == [("registered", "ws-001", "agent=octavia")]

    def test_socket_of_a_gateway(self, db: Database) -> None:
        registry = Registry(db)
        registry.connect("octavia", "ws-001", gateway="g")
        registry.connect("octavia", "ws-001", gateway="g")
        assert [kind for kind, *_ in events(db)] == ["opened", "resumed"]

    def test_disconnection(self, registry: Registry) -> None:
        registry.disconnect("ws-001", "enough")
        assert events(registry.db)[-1] == ("disconnected", "ws-001", "enough")

    def test_move(self, registry: Registry) -> None:
        registry.send("ws-001", 1)
        registry.connect("cipher", "ws-001")
        assert events(registry.db)[3:] == [
            ("moved", "ws-001", "from agent=octavia to agent=cipher"),
            ("set_aside", "ws-001", "1 pending: agent changed"),
            ("registered", "ws-001", "agent=cipher"),
        ]

    def test_none_for_a_broadcast(self, registry: Registry) -> None:
        before = events(registry.db)
        registry.broadcast(1)
        assert events(registry.db) == before

    def test_belong_to_the_transaction(self, registry: Registry) -> None:
        registry.db.execute("BEGIN")
        registry.disconnect("ws-001")
        registry.db.execute("ROLLBACK")
        assert len(events(registry.db)) == 3
        assert registry.get("ws-001") is not None


class TestGatewaySocket:
    def test_cannot_move_anothers_ws_id(self, registry: Registry) -> None:
        with pytest.raises(Conflict, match="belongs to another agent"):
            registry.connect("cipher", "ws-001", gateway="g")
        connection = registry.get("ws-001")
        assert connection is not None
        assert (connection.agent, connection.epoch) == ("octavia", 1)

    def test_cannot_move_a_disconnected_one_either(self, registry: Registry) -> None:
        registry.disconnect("ws-001")
        with pytest.raises(Conflict):
            registry.connect("cipher", "ws-001", gateway="g")

    def test_takes_over_its_own(self, registry: Registry) -> None:
        connection = registry.connect("octavia", "ws-001", gateway="g")
        assert (connection.epoch, connection.gateway) == (2, "g")

    def test_command_takes_it_back(self, registry: Registry) -> None:
        registry.connect("octavia", "ws-001", gateway="g")
        assert registry.connect("octavia", "ws-001").gateway is None


class TestBroadcastIsOneTransaction:
    @pytest.mark.parametrize("filter_fn", [None, lambda connection: True], ids=["to all", "filtered"])
    def test_all_rows_or_none(
        self, registry: Registry, filter_fn: Callable[[Connection], bool] | None
    ) -> None:
        registry.db.execute(
            "CREATE TRIGGER second BEFORE INSERT ON messages WHEN NEW.recipient_id = 'ws-002'"
            " BEGIN SELECT RAISE(ABORT, 'no second row'); END"
        )
        with pytest.raises(sqlite3.IntegrityError, match="no second row"):
            registry.broadcast(1, filter_fn=filter_fn)
        assert registry.history() == []
        assert [connection.message_count for connection in registry.active()] == [0, 0, 0]
        assert registry.db.value("SELECT count(*) FROM broadcasts") == 0

    def test_counter_that_fails_undoes_the_rows(self, registry: Registry) -> None:
        registry.db.execute(
            "CREATE TRIGGER counter BEFORE UPDATE ON connections WHEN NEW.ws_id = 'ws-003'"
            " BEGIN SELECT RAISE(ABORT, 'no count'); END"
        )
        with pytest.raises(sqlite3.IntegrityError):
            registry.broadcast(1)
        assert registry.history() == []

    def test_is_recorded(self, registry: Registry) -> None:
        sent = registry.broadcast(1, msg_type="deploy", sender_id="ws-002")
        assert registry.db.rows(
            "SELECT broadcast_id, first_id, last_id, recipients, msg_type, sender_id FROM broadcasts"
        ) == [(sent.broadcast_id, 1, 3, 3, "deploy", "ws-002")]

    def test_of_one_to_nobody_is_recorded_too(self, registry: Registry) -> None:
        registry.broadcast(1, agent="nobody")
        assert registry.db.rows("SELECT first_id, last_id, recipients FROM broadcasts") == [(None, None, 0)]

    def test_is_one_commit(self, registry: Registry) -> None:
        statements: list[str] = []
        registry.db.set_trace_callback(statements.append)
        registry.broadcast(1)
        registry.db.set_trace_callback(None)
        assert (statements[0], statements[-1]) == ("BEGIN IMMEDIATE", "COMMIT")
        assert sum(statement.startswith(("BEGIN", "COMMIT")) for statement in statements) == 2

    def test_large_one_is_contiguous_while_others_send(
        self, registry: Registry, run_together: Callable[..., list[str]]
    ) -> None:
        run_together(
            """
from ws_manager import *
from ws_manager.core.registry import Registry
registry = Registry(get_db(sys.argv[1]))
registry.db.execute("PRAGMA synchronous = OFF")
for n in range(50):
    sent = registry.broadcast(n, sender_id=sys.argv[2])
    rows = registry.db.rows("SELECT id FROM messages WHERE id BETWEEN ? AND ? AND sender_id = ? AND content = ?",
                            (sent.first_id, sent.last_id, sys.argv[2], str(n)))
    assert len(rows) == 3 == sent.last_id - sent.first_id + 1
registry.db.close()
""",
            4,
            registry.db.path,
        )
        assert registry.stats()["total_messages"] == 4 * 50 * 3


class TestFilter:
    def test_chooses_by_the_connection(self, registry: Registry) -> None:
        sent = registry.broadcast(1, filter_fn=lambda c: c.metadata.get("region") == "us-west")
        assert sent.recipients == ["ws-001"]

    def test_runs_before_the_write_lock_is_taken(self, registry: Registry, elsewhere: Registry) -> None:
        elsewhere.db.execute("PRAGMA busy_timeout = 1")
        registry.broadcast(1, filter_fn=lambda c: bool(elsewhere.send(c.ws_id, "meanwhile")))
        assert registry.stats()["total_messages"] == 6

    def test_leaves_out_who_has_gone_meanwhile(self, registry: Registry, elsewhere: Registry) -> None:
        def choose(connection: Connection) -> bool:
            elsewhere.disconnect("ws-002")
            return True

        assert registry.broadcast(1, filter_fn=choose).recipients == ["ws-001", "ws-003"]

    def test_does_not_choose_who_came_meanwhile(self, registry: Registry, elsewhere: Registry) -> None:
        def choose(connection: Connection) -> bool:
            elsewhere.connect("octavia", "ws-new")
            return True

        assert registry.broadcast(1, filter_fn=choose).recipients == ["ws-001", "ws-002", "ws-003"]

    def test_error_in_it_sends_nothing(self, registry: Registry) -> None:
        with pytest.raises(ZeroDivisionError):
            registry.broadcast(1, filter_fn=lambda c: bool(1 / 0))
        assert registry.history() == []

    def test_counts_only_the_chosen(self, registry: Registry) -> None:
        registry.broadcast(1, filter_fn=lambda c: c.ws_id != "ws-002")
        assert [connection.message_count for connection in registry.active()] == [1, 0, 1]

    def test_is_asked_only_about_the_agent(self, registry: Registry) -> None:
        asked: list[str] = []
        registry.broadcast(1, agent="octavia", filter_fn=lambda c: bool(asked.append(c.ws_id)))
        assert asked == ["ws-001", "ws-003"]


class TestOrder:
    def test_times_are_in_the_order_of_the_ids(self, registry: Registry) -> None:
        for number in range(20):
            registry.send("ws-001", number)
        times = [row["sent_at"] for row in registry.history()]
        assert times == sorted(times, reverse=True)

    def test_heartbeats_are_logged(self, registry: Registry) -> None:
        registry.heartbeat("ws-001", 12.6)
        registry.heartbeat("ws-001")
        assert registry.db.rows("SELECT ws_id, latency_ms FROM heartbeat_log") == [
            ("ws-001", 13),
            ("ws-001", None),
        ]


class TestWait:
    def test_follows_confirmations_of_another_process(self, registry: Registry, elsewhere: Registry) -> None:
        sent = registry.broadcast(1)
        assert sent.first_id is not None
        assert sent.last_id is not None
        Delivery(elsewhere.db).settle([Receipt(ws_id, 1, 1, 3) for ws_id in sent.recipients])
        assert registry.wait(sent.first_id, sent.last_id, 60) == (3, 0, 0)

    def test_returns_when_the_last_confirmation_comes(
        self, registry: Registry, elsewhere: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent = registry.broadcast(1)
        receipts = iter([Receipt(ws_id, 1, 1, 3) for ws_id in sent.recipients])
        monkeypatch.setattr(
            "ws_manager.core.registry.time.sleep",
            lambda seconds: Delivery(elsewhere.db).settle([next(receipts)]),
        )
        assert sent.first_id is not None
        assert sent.last_id is not None
        assert registry.wait(sent.first_id, sent.last_id, 60) == (3, 0, 0)


class TestManyProcesses:
    def test_all_send_at_once(self, registry: Registry, run_together: Callable[..., list[str]]) -> None:
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
            registry.db.path,
        )
        for sender in range(4):
            rows = registry.db.rows(
                "SELECT content FROM messages WHERE sender_id = ? ORDER BY id", (str(sender),)
            )
            assert [int(content) for (content,) in rows] == list(range(200))
        connection = registry.get("ws-001")
        assert connection is not None
        assert connection.message_count == 800

    def test_register_the_same_ws_id_at_once(
        self, registry: Registry, run_together: Callable[..., list[str]]
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
            registry.db.path,
        )
        connection = registry.get("ws-same")
        assert connection is not None
        assert connection.epoch == 100
        assert registry.stats()["total_ever_connected"] == 4

    def test_writer_that_waits_too_long_leaves_nothing(self, registry: Registry, elsewhere: Registry) -> None:
        elsewhere.db.execute("BEGIN IMMEDIATE")
        registry.db.execute("PRAGMA busy_timeout = 1")
        for write in (
            lambda: registry.connect("octavia", "ws-new"),
            lambda: registry.disconnect("ws-001"),
            lambda: registry.broadcast(1),
            lambda: registry.heartbeat("ws-001"),
        ):
            with pytest.raises(LedgerBusy):
                write()
        elsewhere.db.execute("ROLLBACK")
        assert registry.count() == 3
        assert registry.history() == []


def test_how_large_a_message_may_be_comes_from_the_environment(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLACKROAD_WS_MAX_CONTENT", "300KiB")
    registry = Registry(db)
    registry.connect("octavia", "ws-001")
    assert registry.send("ws-001", "x" * (300 * 1024 - 2)) is not None
    with pytest.raises(InvalidInput, match="bytes"):
        registry.send("ws-001", "x" * (300 * 1024 - 1))
