"""The tables as documented, and the way of an earlier file to them."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from pathlib import Path
from typing import Callable

import pytest

from tests.support import open_db
from ws_manager import (
    ConnectionPool,
    LedgerError,
    connection_stats,
    get_message_history,
    send_message,
)
from ws_manager.core.ledger import ledger_over
from ws_manager.repository.sqlite.database import Database

FIXED_WIDTH = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")

EARLIER_TABLES = """
CREATE TABLE IF NOT EXISTS connections (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ws_id TEXT UNIQUE,
    agent TEXT,
    metadata TEXT DEFAULT '{}',
    connected_at TEXT,
    last_heartbeat TEXT,
    status TEXT DEFAULT 'active',
    message_count INTEGER DEFAULT 0,
    disconnected_at TEXT
);
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    msg_id TEXT UNIQUE,
    msg_type TEXT,
    sender_id TEXT,
    recipient_id TEXT,
    content TEXT,
    sent_at TEXT,
    delivered INTEGER DEFAULT 0
);
CREATE TABLE IF NOT EXISTS heartbeat_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ws_id TEXT,
    ts TEXT,
    latency_ms INTEGER
);
CREATE INDEX IF NOT EXISTS idx_conn_agent ON connections(agent);
CREATE INDEX IF NOT EXISTS idx_conn_status ON connections(status);
CREATE INDEX IF NOT EXISTS idx_msg_recip ON messages(recipient_id);
CREATE INDEX IF NOT EXISTS idx_msg_sent ON messages(sent_at);
"""

EARLIER_ROWS = """
INSERT INTO connections VALUES
  (1, 'ws-001', 'octavia', '{"region": "us-west"}', '2025-03-01T10:20:30.123456', '2025-03-01T10:20:31',
   'active', 7, NULL),
  (2, 'ws-002', 'cipher', '{}', '2025-03-01 10:20:30', '2025-03-01 10:20:31', 'disconnected', 2,
   '2025-03-01T11:00:00'),
  (3, 'ws-003', 'cipher', NULL, '2025-03-01T10:20:30', NULL, NULL, NULL, NULL),
  (4, 'ws-004', 'cipher', 'a note', NULL, NULL, 'active', 0, NULL),
  (9, 'ws-009', 'cipher', '{}', '2025-03-01T10:20:30', '2025-03-01T10:20:30', 'active', 0, NULL);
DELETE FROM connections WHERE id = 9;
INSERT INTO messages VALUES
  (1, 'm-1', 'broadcast', NULL, 'ws-001', '{"event": "deploy", "version": "2.1.0"}', '2025-03-01T10:21:00.5', 1),
  (2, 'm-2', 'data', 'ws-002', 'ws-001', 'restart now', '2025-03-01 10:22:00', 0),
  (3, 'm-3', NULL, NULL, NULL, NULL, NULL, NULL),
  (4, NULL, 'data', NULL, 'ws-002', '42', '2025-03-01T10:23:00', 0),
  (5, 'm-5', 'data', NULL, 'ws-001', '"quoted"', '2025-03-01T10:24:00', 0),
  (6, 'm-6', 'data', NULL, 'ws-001', 'NaN', '2025-03-01T10:25:00', 0),
  (7, 'm-7', 'data', NULL, 'ws-001', 'Grüße {', '2025-03-01T10:26:00', 0),
  (50, 'm-50', 'data', NULL, 'ws-001', '1', '2025-03-01T10:27:00', 1);
DELETE FROM messages WHERE id = 50;
INSERT INTO heartbeat_log VALUES
  (1, 'ws-001', '2025-03-01T10:20:31', 12), (2, 'ws-002', '2025-03-01 10:20:31', NULL), (3, 'ws-003', NULL, 5);
""".replace("00.5'", "00.500000'")


def plain(database: Path) -> contextlib.closing[sqlite3.Connection]:
    """A connection that is not ours, closed at the end of the block."""
    return contextlib.closing(sqlite3.connect(database, isolation_level=None))


@pytest.fixture
def earlier(database: Path) -> Path:
    """A file of the earlier implementation, with every kind of row that it could hold."""
    with plain(database) as db:
        db.executescript(EARLIER_TABLES + EARLIER_ROWS)
    return database


@pytest.fixture
def fresh_schema(tmp_path: Path) -> list[tuple[object, ...]]:
    """The schema of a new file."""
    with contextlib.closing(open_db(tmp_path / "fresh.db")) as db:
        return schema_of(db)


def schema_of(db: sqlite3.Connection) -> list[tuple[object, ...]]:
    """Everything that is in `sqlite_master`, and the version."""
    rows = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name")
    return [*map(tuple, rows), tuple(db.execute("PRAGMA user_version").fetchone())]


def connection_rows(db: Database) -> dict[str, dict[str, object]]:
    """The rows of `connections` by ws_id."""
    return {row["ws_id"]: dict(row) for row in db.execute("SELECT * FROM connections")}


class TestDocumentedSchema:
    @pytest.mark.parametrize(
        ("table", "columns"),
        [
            (
                "connections",
                "id INTEGER, ws_id TEXT, agent TEXT, metadata TEXT, connected_at TEXT, last_heartbeat TEXT,"
                " status TEXT, message_count INTEGER, disconnected_at TEXT",
            ),
            (
                "messages",
                "id INTEGER, msg_id TEXT, msg_type TEXT, sender_id TEXT, recipient_id TEXT, content TEXT,"
                " sent_at TEXT, delivered INTEGER",
            ),
            ("heartbeat_log", "id INTEGER, ws_id TEXT, ts TEXT, latency_ms INTEGER"),
        ],
    )
    def test_columns_come_first_and_as_documented(self, db: Database, table: str, columns: str) -> None:
        present = [f"{row[1]} {row[2]}" for row in db.rows(f"PRAGMA table_info({table})")]
        documented = columns.split(", ")
        assert present[: len(documented)] == documented

    @pytest.mark.parametrize(
        ("index", "column"),
        [
            ("idx_conn_agent", "agent"),
            ("idx_conn_status", "status"),
            ("idx_msg_recip", "recipient_id"),
            ("idx_msg_sent", "sent_at"),
        ],
    )
    def test_indexes(self, db: Database, index: str, column: str) -> None:
        assert [row[2] for row in db.rows(f"PRAGMA index_info({index})")] == [column]

    @pytest.mark.parametrize(
        ("insert", "column"),
        [
            ("connections (ws_id, agent) VALUES ('w', 'a')", "connected_at"),
            ("connections (ws_id, agent) VALUES ('w', 'a')", "last_heartbeat"),
            ("messages (msg_id, content) VALUES ('m', '1')", "sent_at"),
            ("heartbeat_log (ws_id) VALUES ('w')", "ts"),
            ("events (kind) VALUES ('k')", "ts"),
        ],
    )
    def test_default_timestamps_have_the_fixed_width(self, db: Database, insert: str, column: str) -> None:
        db.execute(f"INSERT INTO {insert}")
        assert FIXED_WIDTH.fullmatch(db.value(f"SELECT {column} FROM {insert.split()[0]}"))

    @pytest.mark.parametrize(
        "query",
        [
            "SELECT * FROM connections WHERE ws_id = 'a'",
            "SELECT ws_id FROM connections WHERE status = 'active' AND agent = 'a'",
            "SELECT * FROM messages WHERE recipient_id = 'a' AND id > 5 ORDER BY id LIMIT 5",
            "SELECT * FROM messages WHERE sender_id = 'a' ORDER BY id DESC LIMIT 5",
        ],
    )
    def test_frequent_queries_read_an_index_and_sort_nothing(self, db: Database, query: str) -> None:
        plan = " ".join(row[3] for row in db.rows(f"EXPLAIN QUERY PLAN {query}"))
        assert plan.startswith("SEARCH")
        assert "TEMP B-TREE" not in plan

    def test_opening_twice_changes_nothing(self, database: Path, db: Database) -> None:
        before = schema_of(db)
        with contextlib.closing(open_db(database)) as again:
            assert schema_of(again) == before

    def test_current_file_is_opened_without_sqlite_utils(
        self, database: Path, db: Database, run_python: Callable[..., str]
    ) -> None:
        code = "import sys; from ws_manager import *; get_db(sys.argv[1]).close()"
        run_python(f"{code}; assert 'sqlite_utils' not in sys.modules", database)

    def test_sqlite_that_is_too_old(self, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 33, 0))
        with pytest.raises(LedgerError, match="too old"):
            open_db(database)


class TestEarlierFile:
    def test_schema_afterwards_equals_a_new_files_to_the_letter(
        self, earlier: Path, fresh_schema: list[tuple[object, ...]]
    ) -> None:
        with contextlib.closing(open_db(earlier)) as db:
            assert schema_of(db) == fresh_schema

    def test_connections_are_all_there(self, earlier: Path) -> None:
        with contextlib.closing(open_db(earlier)) as db:
            rows = connection_rows(db)
        assert {ws_id: row["id"] for ws_id, row in rows.items()} == {
            "ws-001": 1,
            "ws-002": 2,
            "ws-003": 3,
            "ws-004": 4,
        }
        assert [row["agent"] for row in rows.values()] == ["octavia", "cipher", "cipher", "cipher"]
        assert [row["message_count"] for row in rows.values()] == [7, 2, 0, 0]
        assert [row["status"] for row in rows.values()] == ["active", "disconnected", "active", "active"]

    @pytest.mark.parametrize(
        ("ws_id", "column", "expected"),
        [
            ("ws-001", "connected_at", "2025-03-01T10:20:30.123456+00:00"),
            ("ws-001", "last_heartbeat", "2025-03-01T10:20:31.000000+00:00"),
            ("ws-002", "connected_at", "2025-03-01T10:20:30.000000+00:00"),
            ("ws-002", "disconnected_at", "2025-03-01T11:00:00.000000+00:00"),
            ("ws-001", "disconnected_at", None),
            ("ws-003", "last_heartbeat", "2025-03-01T10:20:30.000000+00:00"),
        ],
    )
    def test_naive_timestamps_are_utc_of_fixed_width(
        self, earlier: Path, ws_id: str, column: str, expected: object
    ) -> None:
        with contextlib.closing(open_db(earlier)) as db:
            assert connection_rows(db)[ws_id][column] == expected

    @pytest.mark.parametrize(
        "text",
        [
            "2025-03-01T10:20:30.123456+02:00",
            "2025-03-01T10:20:30Z",
            "yesterday",
            "0001-01-01T00:00:00+14:00",
        ],
    )
    def test_unusual_timestamp_does_not_stop_it(self, earlier: Path, text: str) -> None:
        with plain(earlier) as db:
            db.execute("UPDATE connections SET disconnected_at = ? WHERE id = 1", (text,))
        expected = {
            "2025-03-01T10:20:30.123456+02:00": "2025-03-01T08:20:30.123456+00:00",
            "2025-03-01T10:20:30Z": "2025-03-01T10:20:30.000000+00:00",
        }.get(text, text)
        with contextlib.closing(open_db(earlier)) as db:
            assert connection_rows(db)["ws-001"]["disconnected_at"] == expected

    def test_missing_timestamp_becomes_the_present(self, earlier: Path) -> None:
        with contextlib.closing(open_db(earlier)) as db:
            assert FIXED_WIDTH.fullmatch(str(connection_rows(db)["ws-004"]["connected_at"]))

    def test_metadata(self, earlier: Path) -> None:
        with contextlib.closing(open_db(earlier)) as db:
            metadata = {c.ws_id: c.metadata for c in ConnectionPool(db).get_all()}
        assert metadata == {"ws-001": {"region": "us-west"}, "ws-003": {}, "ws-004": {"earlier": "a note"}}

    @pytest.mark.parametrize(
        ("seq", "content"),
        [
            (1, {"event": "deploy", "version": "2.1.0"}),
            (2, "restart now"),
            (3, ""),
            (4, 42),
            (5, "quoted"),
            (6, "NaN"),
            (7, "Grüße {"),
        ],
    )
    def test_content_is_json_afterwards(self, earlier: Path, seq: int, content: object) -> None:
        with contextlib.closing(open_db(earlier)) as db:
            assert json.loads(db.value("SELECT content FROM messages WHERE id = ?", (seq,))) == content

    def test_content_that_was_json_keeps_its_text(self, earlier: Path) -> None:
        with contextlib.closing(open_db(earlier)) as db:
            text = db.value("SELECT content FROM messages WHERE id = 1")
        assert text == '{"event": "deploy", "version": "2.1.0"}'

    def test_messages_are_all_there(self, earlier: Path) -> None:
        with contextlib.closing(open_db(earlier)) as db:
            rows = get_message_history(db)
        assert [row["id"] for row in rows] == [7, 6, 5, 4, 3, 2, 1]
        assert [row["msg_id"] for row in rows] == ["m-7", "m-6", "m-5", "earlier-4", "m-3", "m-2", "m-1"]
        assert [row["delivered"] for row in rows] == [0, 0, 0, 0, 0, 0, 1]
        assert rows[-1]["sent_at"] == "2025-03-01T10:21:00.500000+00:00"
        assert rows[-2]["sent_at"] == "2025-03-01T10:22:00.000000+00:00"

    def test_heartbeats_are_all_there(self, earlier: Path) -> None:
        with contextlib.closing(open_db(earlier)) as db:
            rows = db.rows("SELECT ws_id, ts, latency_ms FROM heartbeat_log ORDER BY id")
        assert rows[0] == ("ws-001", "2025-03-01T10:20:31.000000+00:00", 12)
        assert rows[1] == ("ws-002", "2025-03-01T10:20:31.000000+00:00", None)
        assert rows[2][::2] == ("ws-003", 5)

    def test_rows_without_a_name_are_kept(self, earlier: Path) -> None:
        with plain(earlier) as db:
            db.execute("INSERT INTO connections (id, status) VALUES (20, 'active')")
            db.execute("INSERT INTO heartbeat_log (id, ts) VALUES (20, '2025-03-01T10:20:31')")
        with contextlib.closing(open_db(earlier)) as db:
            assert connection_rows(db)["earlier-20"]["agent"] == "earlier"
            assert db.value("SELECT ws_id FROM heartbeat_log WHERE id = 20") == "earlier-20"

    def test_freed_ids_are_not_given_out_again(self, earlier: Path) -> None:
        with contextlib.closing(open_db(earlier)) as db:
            connection = ledger_over(db).connect("octavia", "ws-new")
            message = send_message(ConnectionPool(db), db, "ws-new", 1)
        assert connection.db_id == 10
        assert message is not None
        assert message.db_id == 51

    def test_what_was_ever_connected_is_counted(self, earlier: Path) -> None:
        with contextlib.closing(open_db(earlier)) as db:
            stats = connection_stats(ConnectionPool(db), db)
        assert stats["total_ever_connected"] == 9
        assert stats["agents"] == {"cipher": 2, "octavia": 1}

    def test_empty_one_with_freed_ids(self, earlier: Path) -> None:
        with plain(earlier) as db:
            db.execute("DELETE FROM messages")
        with contextlib.closing(open_db(earlier)) as db:
            message = send_message(ConnectionPool(db), db, "ws-001", 1)
        assert message is not None
        assert message.db_id == 51

    def test_ids_without_autoincrement(self, database: Path, fresh_schema: list[tuple[object, ...]]) -> None:
        with plain(database) as db:
            db.executescript(EARLIER_TABLES.replace(" AUTOINCREMENT", "") + EARLIER_ROWS)
        with contextlib.closing(open_db(database)) as db:
            assert schema_of(db) == fresh_schema
            assert len(get_message_history(db)) == 7

    def test_only_some_of_the_tables(self, database: Path, fresh_schema: list[tuple[object, ...]]) -> None:
        with plain(database) as db:
            db.executescript(EARLIER_TABLES + EARLIER_ROWS + "DROP TABLE heartbeat_log;")
        with contextlib.closing(open_db(database)) as db:
            assert schema_of(db) == fresh_schema
            assert len(get_message_history(db)) == 7

    def test_indexes_of_the_users_own(self, earlier: Path, fresh_schema: list[tuple[object, ...]]) -> None:
        with plain(earlier) as db:
            db.execute('CREATE UNIQUE INDEX "of mine" ON messages (msg_id, sent_at)')
        with contextlib.closing(open_db(earlier)) as db:
            assert schema_of(db) == fresh_schema

    def test_columns_that_we_do_not_know_are_kept_beside(self, earlier: Path) -> None:
        with plain(earlier) as db:
            db.execute("ALTER TABLE connections ADD COLUMN team TEXT")
            db.execute("UPDATE connections SET team = 'red' WHERE ws_id = 'ws-001'")
        with contextlib.closing(open_db(earlier)) as db:
            assert len(connection_rows(db)) == 4
            kept = db.rows("SELECT ws_id, team FROM earlier_connections WHERE team IS NOT NULL")
        assert kept == [("ws-001", "red")]

    def test_tables_of_others_stay(self, earlier: Path) -> None:
        with plain(earlier) as db:
            db.executescript("CREATE TABLE notes (text); INSERT INTO notes VALUES ('keep me')")
        with contextlib.closing(open_db(earlier)) as db:
            assert db.rows("SELECT text FROM notes") == [("keep me",)]

    def test_opening_it_again_changes_nothing(self, earlier: Path) -> None:
        with contextlib.closing(open_db(earlier)) as db:
            before = list(db.iterdump())
        with contextlib.closing(open_db(earlier)) as db:
            assert list(db.iterdump()) == before


class TestFailedMigration:
    @pytest.mark.parametrize(
        "damage",
        [
            "ALTER TABLE messages RENAME COLUMN content TO body",
            "CREATE TABLE events (something)",
            "CREATE TABLE earlier_messages (something)",
        ],
    )
    def test_leaves_the_file_as_it_was(self, earlier: Path, damage: str) -> None:
        with plain(earlier) as db:
            db.execute(damage)
            before = [*schema_of(db), *db.iterdump()]
        with pytest.raises(LedgerError):
            open_db(earlier)
        with plain(earlier) as db:
            assert [*schema_of(db), *db.iterdump()] == before

    def test_row_that_does_not_fit_is_explained(self, database: Path) -> None:
        with plain(database) as db:
            db.executescript(EARLIER_TABLES.replace(" UNIQUE", ""))
            db.execute("INSERT INTO messages (msg_id) VALUES ('m'), ('m')")
        with pytest.raises(LedgerError, match=r"cannot be brought up to date.*msg_id"):
            open_db(database)

    def test_table_that_is_not_ours_is_explained(self, database: Path) -> None:
        with plain(database) as db:
            db.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, body TEXT)")
        with pytest.raises(LedgerError, match="the table messages in this file is not ours"):
            open_db(database)


class TestManyAtOnce:
    OPEN = (
        "from ws_manager import *\n"
        "db = get_db(sys.argv[1]); pool = ConnectionPool(db)\n"
        "add_connection(pool, 'ws-new-' + sys.argv[2], 'octavia'); db.close()"
    )

    def test_open_a_new_file(self, database: Path, run_together: Callable[..., list[str]]) -> None:
        run_together(self.OPEN, 8, database)
        with contextlib.closing(open_db(database)) as db:
            assert ConnectionPool(db).count() == 8

    def test_open_an_earlier_file(
        self,
        earlier: Path,
        run_together: Callable[..., list[str]],
        fresh_schema: list[tuple[object, ...]],
    ) -> None:
        run_together(self.OPEN, 8, earlier)
        with contextlib.closing(open_db(earlier)) as db:
            assert ConnectionPool(db).count() == 3 + 8
            assert len(get_message_history(db)) == 7
            assert schema_of(db) == fresh_schema


WITHOUT_TRACES = (
    "ALTER TABLE messages DROP COLUMN wants_reply; ALTER TABLE messages DROP COLUMN reply_to; DROP TABLE asks;"
    "ALTER TABLE messages DROP COLUMN traceparent; ALTER TABLE broadcasts DROP COLUMN traceparent;"
)
"""Takes from a ledger what the steps 10 and 11 have added."""


class TestLedgerOfSchema9:
    @pytest.fixture
    def old(self, database: Path) -> Path:
        with contextlib.closing(open_db(database)) as db:
            ledger = ledger_over(db)
            ledger.connect("octavia", "ws-001")
            ledger.send("ws-001", 1)
            ledger.broadcast(2)
        with plain(database) as db:
            db.executescript(f"{WITHOUT_TRACES} PRAGMA user_version = 9")
        return database

    def test_schema_equals_a_fresh_one(self, old: Path, fresh_schema: list[tuple[object, ...]]) -> None:
        with contextlib.closing(open_db(old)) as db:
            assert schema_of(db) == fresh_schema

    def test_what_was_sent_has_no_trace(self, old: Path) -> None:
        with contextlib.closing(open_db(old)) as db:
            found = [(row["content"], row["traceparent"]) for row in get_message_history(db)]
            assert [state.traceparent for state in ledger_over(db).broadcasts()] == [None]
        assert found == [("2", None), ("1", None)]


class TestContentBeyondTheLimits:
    """The earlier implementation, and our own before it had limits, stored whatever Python could parse."""

    DEEP = "[" * 5000 + "]" * 5000
    ROWS = (
        (60, "m-60", DEEP, 0),
        (61, "m-61", DEEP, 1),
        (62, "m-62", "1e400", 0),
        (63, "m-63", "1" * 5000, 0),
        (64, "m-64", '{"a": 1, "a": 2}', 0),
    )

    @pytest.fixture(params=["earlier", "schema 3"])
    def old(self, request: pytest.FixtureRequest, earlier: Path) -> Path:
        if request.param == "schema 3":
            open_db(earlier).close()
        with plain(earlier) as db:
            if request.param == "schema 3":
                db.execute("ALTER TABLE webhook_events DROP COLUMN reason")
                db.execute("ALTER TABLE messages DROP COLUMN broadcast_id")
                db.executescript(WITHOUT_TRACES)
                db.execute("DROP TABLE receipts")
                db.executescript(
                    "DROP TABLE workers; DROP TABLE attempts; DROP TABLE holds; DROP TABLE bars;"
                    " DROP TABLE idempotency_keys;"
                    " ALTER TABLE connections DROP COLUMN token;"
                    " DROP INDEX idx_msg_rejected"
                )
                db.execute("PRAGMA user_version = 3")
            db.executemany(
                "INSERT INTO messages (id, msg_id, recipient_id, content, delivered, msg_type, sent_at)"
                " VALUES (?, ?, 'ws-001', ?, ?, 'data', '2025-03-01T10:20:30')",
                self.ROWS,
            )
        return earlier

    def test_stays_unchanged(self, old: Path) -> None:
        with contextlib.closing(open_db(old)) as db:
            rows = db.rows("SELECT id, msg_id, content, delivered FROM messages WHERE id >= 60 ORDER BY id")
        assert rows == list(self.ROWS)

    def test_is_set_aside_where_it_is_pending(self, old: Path) -> None:
        with contextlib.closing(open_db(old)) as db:
            rows = db.rows(
                "SELECT msg_id, reject_reason FROM messages WHERE rejected_at IS NOT NULL ORDER BY id"
            )
            events = db.rows("SELECT msg_id, ws_id FROM events WHERE kind = 'set_aside' ORDER BY id")
        assert rows == [(f"m-{number}", "beyond the limits") for number in (60, 62, 63)]
        assert events == [(f"m-{number}", "ws-001") for number in (60, 62, 63)]

    def test_schema_equals_a_fresh_one(self, old: Path, fresh_schema: list[tuple[object, ...]]) -> None:
        with contextlib.closing(open_db(old)) as db:
            assert schema_of(db) == fresh_schema

    def test_metadata_that_nests_too_deeply_is_shown_as_it_is(self, old: Path) -> None:
        text = f'{{"a":{self.DEEP}}}'
        with contextlib.closing(open_db(old)) as db:
            db.execute("UPDATE connections SET metadata = ? WHERE ws_id = 'ws-001'", (text,))
            found = ConnectionPool(db).get("ws-001")
        assert found is not None
        assert found.metadata == {"unreadable": text}
