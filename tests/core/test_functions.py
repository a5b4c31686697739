"""The documented functions, each example as it is written."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import blackroad_websocket_manager
from blackroad_websocket_manager import (
    Connection,
    ConnectionPool,
    add_connection,
    broadcast,
    connection_stats,
    get_active_connections,
    get_db,
    get_message_history,
    heartbeat_check,
    remove_connection,
    send_message,
)
from tests.support import open_db
from ws_manager import DB_PATH
from ws_manager.repository.sqlite.database import Database

LONG_AGO = "2020-01-01T00:00:00.000000+00:00"


@pytest.mark.parametrize(
    ("name", "documented"),
    [
        ("add_connection", "(pool, ws_id, agent, metadata=None)"),
        ("remove_connection", "(pool, ws_id)"),
        (
            "broadcast",
            "(pool, db_conn, message, filter_fn=None, msg_type='broadcast', sender_id=None)",
        ),
        ("send_message", "(pool, db_conn, ws_id, message, msg_type='data', sender_id=None)"),
        ("heartbeat_check", "(pool, db_conn, timeout=30)"),
        ("get_message_history", "(db_conn, ws_id=None, limit=50)"),
        ("connection_stats", "(pool, db_conn)"),
        ("get_active_connections", "(pool)"),
        ("ConnectionPool", "(db_conn)"),
        ("ConnectionPool.add", "(self, connection)"),
        ("ConnectionPool.remove", "(self, ws_id)"),
        ("ConnectionPool.get", "(self, ws_id)"),
        ("ConnectionPool.get_all", "(self)"),
        ("ConnectionPool.count", "(self)"),
        ("ConnectionPool.update_heartbeat", "(self, ws_id, latency_ms=None)"),
        ("ConnectionPool.increment_message_count", "(self, ws_id)"),
    ],
)
def test_signatures_are_the_documented_ones(name: str, documented: str) -> None:
    value: Any = blackroad_websocket_manager
    for part in name.split("."):
        value = getattr(value, part)
    signature = inspect.signature(value)
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()
    ]
    found = signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)
    assert str(found) == documented


def test_get_db_takes_a_path_whose_default_is_db_path() -> None:
    parameters = inspect.signature(get_db).parameters
    assert list(parameters) == ["db_path", "shared"]
    assert parameters["shared"].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["db_path"].default is blackroad_websocket_manager.DB_PATH


class TestDocumentedExamples:
    @pytest.fixture(autouse=True)
    def _database_from_the_environment(self, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in the examples, `get_db()` is called without a path."""
        monkeypatch.setenv("BLACKROAD_WS_DB", str(database))

    @pytest.fixture
    def db(self) -> Iterator[Database]:
        """What the examples open."""
        db = open_db(DB_PATH)
        yield db
        db.close()

    def test_get_db_reads_the_environment(self, database: Path, db: Database) -> None:
        assert db.path == database
        assert database.exists()

    def test_get_db_is_safe_to_call_several_times(self, db: Database) -> None:
        add_connection(ConnectionPool(db), "ws-001", "octavia")
        again = open_db(DB_PATH)
        assert ConnectionPool(again).count() == 1
        again.close()

    def test_broadcast(self, db: Database, capsys: pytest.CaptureFixture[str]) -> None:
        pool = ConnectionPool(db)

        add_connection(pool, "ws-001", "octavia", {"region": "us-west"})
        add_connection(pool, "ws-002", "cipher",  {"region": "eu-central"})  # fmt: skip

        # Broadcast to everyone
        delivered = broadcast(pool, db, {"event": "ping"})
        print(f"Delivered to {len(delivered)} connections")
        assert capsys.readouterr().out == "Delivered to 2 connections\n"
        assert delivered == ["ws-001", "ws-002"]

        # Broadcast only to agents in us-west
        delivered = broadcast(
            pool, db,
            {"event": "maintenance"},
            filter_fn=lambda c: c.metadata.get("region") == "us-west",
        )  # fmt: skip
        assert delivered == ["ws-001"]

    def test_stripe_event_to_every_agent(self, db: Database) -> None:
        event = {"type": "payment_intent.succeeded", "data": {"object": {"id": "pi_1"}}}
        pool = ConnectionPool(db)
        add_connection(pool, "ws-001", "billing")
        broadcast(
            pool, db,
            {"source": "stripe", "type": event["type"], "data": event["data"]},
            msg_type="stripe_event",
        )  # fmt: skip
        row = get_message_history(db)[0]
        assert row["msg_type"] == "stripe_event"
        assert json.loads(row["content"]) == {"source": "stripe", **event}

    def test_stripe_event_to_billing_agents(self, db: Database) -> None:
        pool = ConnectionPool(db)
        add_connection(pool, "ws-001", "billing")
        add_connection(pool, "ws-002", "octavia")
        reached = broadcast(
            pool, db,
            {"source": "stripe"},
            filter_fn=lambda c: c.agent == "billing",
            msg_type="stripe_payment",
        )  # fmt: skip
        assert reached == ["ws-001"]


class TestAddConnection:
    def test_returns_the_connection(self, pool: ConnectionPool) -> None:
        connection = add_connection(pool, "ws-001", "octavia", metadata={"region": "us-west"})
        assert isinstance(connection, Connection)
        assert (connection.ws_id, connection.agent, connection.metadata) == (
            "ws-001",
            "octavia",
            {"region": "us-west"},
        )

    def test_bad_input_is_a_value_error(self, pool: ConnectionPool) -> None:
        with pytest.raises(ValueError, match="ws_id"):
            add_connection(pool, "", "octavia")


class TestRemoveConnection:
    def test_says_whether_it_was_active(self, pool: ConnectionPool) -> None:
        add_connection(pool, "ws-001", "octavia")
        assert remove_connection(pool, "ws-001") is True
        assert remove_connection(pool, "ws-001") is False

    def test_active_connections_are_without_it(self, pool: ConnectionPool) -> None:
        add_connection(pool, "ws-001", "octavia")
        add_connection(pool, "ws-002", "cipher")
        remove_connection(pool, "ws-001")
        assert [c.ws_id for c in get_active_connections(pool)] == ["ws-002"]


class TestSendMessage:
    def test_returns_the_message(self, pool: ConnectionPool, db: Database) -> None:
        add_connection(pool, "ws-001", "octavia")
        message = send_message(pool, db, "ws-001", {"ping": True})
        assert message is not None
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", message.msg_id)
        assert (message.msg_type, message.sender_id, message.delivered) == ("data", None, False)

    def test_none_for_an_unknown_ws_id(self, pool: ConnectionPool, db: Database) -> None:
        assert send_message(pool, db, "ws-001", 1) is None


class TestHeartbeatCheck:
    def test_returns_active_and_timed_out(self, pool: ConnectionPool, db: Database) -> None:
        add_connection(pool, "ws-001", "octavia")
        pool.add(Connection("ws-002", "cipher", {}, LONG_AGO, LONG_AGO))
        assert heartbeat_check(pool, db) == {"active": ["ws-001"], "timed_out": ["ws-002"]}

    def test_timeout(self, pool: ConnectionPool, db: Database) -> None:
        pool.add(Connection("ws-002", "cipher", {}, LONG_AGO, LONG_AGO))
        assert heartbeat_check(pool, db, timeout=315360000)["timed_out"] == []


class TestHistoryAndStats:
    def test_history_needs_no_pool(self, pool: ConnectionPool, db: Database) -> None:
        add_connection(pool, "ws-001", "octavia")
        send_message(pool, db, "ws-001", {"n": 1})
        send_message(pool, db, "ws-001", {"n": 2})
        rows = get_message_history(db, ws_id="ws-001", limit=50)
        assert [row["content"] for row in rows] == ['{"n":2}', '{"n":1}']
        assert list(rows[0])[:8] == [
            "id",
            "msg_id",
            "msg_type",
            "sender_id",
            "recipient_id",
            "content",
            "sent_at",
            "delivered",
        ]

    def test_stats(self, pool: ConnectionPool, db: Database) -> None:
        add_connection(pool, "ws-001", "octavia")
        add_connection(pool, "ws-002", "cipher")
        remove_connection(pool, "ws-002")
        broadcast(pool, db, 1)
        stats = connection_stats(pool, db)
        assert list(stats)[:4] == ["active_connections", "total_ever_connected", "total_messages", "agents"]
        assert list(stats.values())[:4] == [1, 2, 1, {"octavia": 1}]


class TestTwoConnections:
    @pytest.fixture
    def second(self, database: Path, db: Database) -> Iterator[Database]:
        """Another connection to the pool's file."""
        second = open_db(database)
        yield second
        second.close()

    @pytest.fixture
    def stranger(self, tmp_path: Path) -> Iterator[Database]:
        """A connection to another file."""
        stranger = open_db(tmp_path / "stranger.db")
        yield stranger
        stranger.close()

    def test_db_conn_is_used_for_everything(self, pool: ConnectionPool, second: Database) -> None:
        add_connection(pool, "ws-001", "octavia")
        second.execute("BEGIN")
        broadcast(pool, second, 1)
        send_message(pool, second, "ws-001", 2)
        second.execute("ROLLBACK")
        assert get_message_history(second) == []
        assert pool.get_all()[0].message_count == 0

    def test_filter_sees_what_db_conn_sees(self, pool: ConnectionPool, second: Database) -> None:
        add_connection(pool, "ws-001", "octavia")
        second.execute("BEGIN IMMEDIATE")
        second.execute("UPDATE connections SET metadata = '{\"inside\":true}'")
        assert broadcast(pool, second, 1, filter_fn=lambda c: "inside" in c.metadata) == ["ws-001"]
        second.execute("COMMIT")

    def test_same_file_by_another_name(self, pool: ConnectionPool, database: Path, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
        add_connection(pool, "ws-001", "octavia")
        linked = open_db(tmp_path / "link" / database.name)
        assert broadcast(pool, linked, 1) == ["ws-001"]
        linked.close()

    def test_pool_on_another_file_is_a_value_error(self, pool: ConnectionPool, stranger: Database) -> None:
        for call in (
            lambda: broadcast(pool, stranger, 1),
            lambda: send_message(pool, stranger, "ws-001", 1),
            lambda: heartbeat_check(pool, stranger),
            lambda: connection_stats(pool, stranger),
        ):
            with pytest.raises(ValueError, match="the pool is on"):
                call()

    def test_what_is_no_ledger_is_a_value_error(self, pool: ConnectionPool) -> None:
        for call in (
            lambda: broadcast(pool, "ledger.db", 1),  # type: ignore[arg-type]
            lambda: get_message_history("ledger.db"),  # type: ignore[arg-type]
        ):
            with pytest.raises(ValueError, match="not a connection to a ledger"):
                call()
