"""prune, export and import."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import open_db
from ws_manager import get_message_history
from ws_manager.core.ledger import Ledger, ledger_over
from ws_manager.core.maintenance import Pruned
from ws_manager.core.webhooks import IncomingEvent
from ws_manager.errors import Conflict, InvalidInput
from ws_manager.models import Gateway, Receipt, Rejection, seconds_before, utc_now
from ws_manager.repository.findings import TABLES
from ws_manager.repository.sqlite import maintenance
from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.sqlite.schema import columns_since

DAY = 86400.0
OLD = "2020-01-01T00:00:00.000000+00:00"
TIMES = {
    "connections": ("connected_at", "last_heartbeat", "disconnected_at"),
    "messages": ("sent_at", "confirmed_at", "rejected_at"),
    "heartbeat_log": ("ts",),
    "receipts": ("ts",),
    "broadcasts": ("sent_at",),
    "events": ("ts",),
    "webhook_events": ("received_at", "routed_at"),
}


def prune(db: Database, older_than: float, **options: bool) -> Pruned:
    return ledger_over(db).maintenance.prune(older_than, **options)


def export_lines(db: Database) -> Iterator[str]:
    return ledger_over(db).maintenance.export_lines()


def import_lines(db: Database, lines: Iterable[str]) -> dict[str, int]:
    return ledger_over(db).maintenance.import_lines(lines)


def age(db) -> None:
    """Make everything in the ledger old."""
    for table, columns in TIMES.items():
        for column in columns:
            db.execute(f"UPDATE {table} SET {column} = ? WHERE {column} IS NOT NULL", (OLD,))


def dump(db) -> dict[str, list[Any]]:
    return {
        table: sorted(row for row in db.rows(f"SELECT * FROM {table}") if row[0] in TABLES)
        if table == "sqlite_sequence"
        else db.rows(f"SELECT * FROM {table} ORDER BY rowid")
        for table in (*TABLES, "sqlite_sequence")
    }


@pytest.fixture
def ledger(db) -> Ledger:
    return ledger_over(db)


def confirm(db, ws_id: str) -> None:
    ledger = ledger_over(db)
    while pending := ledger.delivery.pending(ws_id, 0, 1000):
        seqs = [message.seq for message in pending]
        ledger.delivery.settle([Receipt(ws_id, ledger.find(ws_id).epoch, seqs)])


@pytest.fixture
def filled(db, ledger: Ledger) -> Ledger:
    """Something in every table, in every state."""
    ledger.connect("octavia", "ws-001", {"region": "wést", "half": 1.5})
    ledger.connect("cipher", "ws-002")
    ledger.connect("cipher", "ws-gone")
    ledger.heartbeat("ws-001", 12)
    ledger.send("ws-001", "first")
    ledger.broadcast(
        {"event": "deploy"},
        sender_id="ws-002",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    confirm(db, "ws-001")
    sent = ledger.send("ws-002", "rejected")
    assert sent is not None
    assert sent.db_id is not None
    ledger_over(db).delivery.settle([Rejection("ws-002", 1, sent.db_id, "no")])
    ledger.send("ws-001", "pending")
    ledger.disconnect("ws-gone")
    for event_id in ("evt_1", "evt_2"):
        ledger.webhooks.take(IncomingEvent(event_id, "invoice.paid", "{}", "1", "nobody", "stripe_invoice"))
    db.execute("UPDATE webhook_events SET status = 'routed' WHERE event_id = 'evt_1'")
    now = utc_now()
    ledger_over(db).delivery.record_gateway(Gateway("g-2", 1, "http://127.0.0.1:1", now, now)).release()
    ledger_over(db).delivery.record_gateway(Gateway("g-1", 2, "http://127.0.0.1:2", now, now)).release()
    return ledger


class TestPrune:
    def test_deletes_what_is_over_and_old(self, db, ledger: Ledger) -> None:
        ledger.connect("octavia", "ws-001")
        ledger.heartbeat("ws-001")
        ledger.broadcast(1)
        confirm(db, "ws-001")
        ledger.disconnect("ws-001")
        age(db)
        assert vars(prune(db, DAY)) == {
            "receipts": 1,
            "messages": 1,
            "heartbeat_log": 1,
            "events": 2,
            "broadcasts": 1,
            "webhook_events": 0,
            "connections": 1,
        }
        assert all(not rows for table, rows in dump(db).items() if table != "sqlite_sequence")

    def test_deletes_the_journal_before_the_messages_that_it_names(self, db, ledger: Ledger) -> None:
        ledger.connect("octavia", "ws-001")
        ledger.broadcast(1)
        confirm(db, "ws-001")
        age(db)
        db.execute("CREATE TRIGGER no BEFORE DELETE ON messages BEGIN SELECT RAISE(ABORT, 'no'); END")
        with pytest.raises(Exception, match="no"):
            prune(db, DAY)
        assert (db.value("SELECT count(*) FROM receipts"), db.value("SELECT count(*) FROM messages")) == (
            0,
            1,
        )

    def test_deletes_webhook_events_that_are_routed_and_over_30_days_old(self, filled: Ledger, db) -> None:
        age(db)
        assert prune(db, DAY).webhook_events == 1
        assert db.rows("SELECT event_id FROM webhook_events") == [("evt_2",)]

    def test_keeps_routed_webhook_events_for_30_days_whatever_is_said(self, filled: Ledger, db) -> None:
        db.execute("UPDATE webhook_events SET received_at = ?", (seconds_before(utc_now(), 29 * DAY),))
        assert prune(db, 3600).webhook_events == 0

    def test_keeps_what_is_recent(self, filled: Ledger, db) -> None:
        before = dump(db)
        assert set(vars(prune(db, DAY)).values()) == {0}
        assert dump(db) == before

    def test_keeps_what_is_pending_or_set_aside_and_whom_it_belongs_to(self, filled: Ledger, db) -> None:
        filled.disconnect("ws-001")
        filled.disconnect("ws-002")
        age(db)
        prune(db, 0)
        assert db.rows("SELECT DISTINCT delivered FROM messages") == [(0,)]
        assert [row["content"] for row in get_message_history(filled)] == [
            '"pending"',
            '"rejected"',
            '{"event":"deploy"}',
            '{"event":"deploy"}',
        ]
        # Each has a message left; ws-gone has one of the broadcast.
        assert [row[0] for row in db.rows("SELECT ws_id FROM connections")] == ["ws-001", "ws-002", "ws-gone"]
        assert db.value("SELECT count(*) FROM broadcasts") == 1

    def test_keeps_active_connections(self, db, ledger: Ledger) -> None:
        ledger.connect("octavia", "ws-001")
        age(db)
        assert prune(db, DAY).connections == 0

    def test_keeps_a_connection_that_sent_what_is_pending(self, db, ledger: Ledger) -> None:
        ledger.connect("octavia", "ws-001")
        ledger.connect("octavia", "ws-002")
        ledger.send("ws-001", 1, sender_id="ws-002")
        ledger.disconnect("ws-002")
        age(db)
        assert prune(db, DAY).connections == 0

    def test_counts_and_ids_go_on(self, filled: Ledger, db) -> None:
        filled.connect("octavia", "ws-over")
        filled.disconnect("ws-over")
        ever, last = filled.stats()["total_ever_connected"], db.value("SELECT max(id) FROM messages")
        confirm(db, "ws-001")
        age(db)
        assert prune(db, DAY).connections == 1
        assert filled.stats()["total_ever_connected"] == ever
        assert filled.send("ws-001", 1).db_id == last + 1

    def test_a_dry_run_tells_what_would_go_and_deletes_nothing(self, filled: Ledger, db) -> None:
        confirm(db, "ws-001")
        confirm(db, "ws-gone")
        age(db)
        before = dump(db)
        told = prune(db, DAY, dry_run=True)
        assert dump(db) == before
        assert told == prune(db, DAY)
        assert told.connections == 1

    def test_goes_in_several_transactions(self, db, ledger: Ledger, monkeypatch) -> None:
        monkeypatch.setattr(maintenance, "_CHUNK", 2)
        ledger.connect("octavia", "ws-001")
        for number in range(7):
            ledger.send("ws-001", number)
            if number == 3:
                confirm(db, "ws-001")
        age(db)
        assert prune(db, DAY).messages == 4
        assert [row["content"] for row in get_message_history(ledger)] == ["6", "5", "4"]

    def test_others_write_meanwhile(self, db, ledger: Ledger, database: Path, monkeypatch) -> None:
        monkeypatch.setattr(maintenance, "_CHUNK", 5)
        ledger.connect("octavia", "ws-001")
        for number in range(200):
            ledger.send("ws-001", number)
        confirm(db, "ws-001")
        age(db)
        sent: list[str] = []

        def write() -> None:
            other = open_db(database)
            sent.extend(ledger_over(other).send("ws-001", "new").msg_id for _ in range(50))
            other.close()

        writer = threading.Thread(target=write)
        writer.start()
        assert prune(db, DAY).messages == 200
        writer.join()
        assert [row["msg_id"] for row in reversed(get_message_history(ledger))] == sent

    def test_vacuum_makes_the_file_smaller(self, db, ledger: Ledger, database: Path) -> None:
        ledger.connect("octavia", "ws-001")
        ledger.broadcast("x" * 200_000)
        for _ in range(10):
            ledger.send("ws-001", "x" * 200_000)
        confirm(db, "ws-001")
        db.checkpoint()
        size = database.stat().st_size
        prune(db, 0, vacuum=True)
        assert database.stat().st_size < size / 4

    def test_leaves_a_table_of_the_callers(self, filled: Ledger, db) -> None:
        db.execute("CREATE TABLE mine (ts TEXT)")
        db.execute("INSERT INTO mine VALUES (?)", (OLD,))
        prune(db, 0)
        assert db.value("SELECT count(*) FROM mine") == 1


class TestExport:
    def test_comes_back_exactly(self, filled: Ledger, db, tmp_path: Path) -> None:
        age(db)
        prune(db, DAY)
        other = open_db(tmp_path / "other.db")
        counts = import_lines(other, list(export_lines(db)))
        assert dump(other) == dump(db)
        assert counts == {table: len(rows) for table, rows in dump(db).items() if table != "sqlite_sequence"}
        assert ledger_over(other).latest_gateway().id == "g-1"
        other.close()

    def test_goes_on_where_the_first_stopped(self, filled: Ledger, db, tmp_path: Path) -> None:
        other = open_db(tmp_path / "other.db")
        import_lines(other, export_lines(db))
        assert ledger_over(other).send("ws-001", 1).db_id == filled.send("ws-001", 1).db_id
        other.close()

    def test_an_empty_ledger(self, db, tmp_path: Path) -> None:
        other = open_db(tmp_path / "other.db")
        assert set(import_lines(other, export_lines(db)).values()) == {0}
        other.close()

    def test_leaves_out_tables_of_the_callers(self, filled: Ledger, db) -> None:
        db.execute("CREATE TABLE mine (id INTEGER PRIMARY KEY AUTOINCREMENT, secret TEXT)")
        db.execute("INSERT INTO mine (secret) VALUES ('x')")
        assert not any("mine" in line for line in export_lines(db))

    def test_is_the_ledger_of_one_moment(self, filled: Ledger, db, database: Path, tmp_path: Path) -> None:
        before = dump(db)
        lines = export_lines(db)
        first = [next(lines), next(lines)]
        writer = open_db(database)
        ledger_over(writer).send("ws-001", "later")
        writer.close()
        other = open_db(tmp_path / "other.db")
        import_lines(other, [*first, *lines])
        assert dump(other) == before
        other.close()


class TestImport:
    @pytest.fixture
    def other(self, tmp_path: Path):
        other = open_db(tmp_path / "other.db")
        yield other
        other.close()

    def test_only_into_an_empty_ledger(self, filled: Ledger, db) -> None:
        before = dump(db)
        with pytest.raises(Conflict, match="not empty"):
            import_lines(db, list(export_lines(db)))
        assert dump(db) == before

    def test_not_into_one_that_gave_out_ids(self, filled: Ledger, db, other) -> None:
        ledger = ledger_over(other)
        ledger.connect("octavia", "ws-001")
        ledger.disconnect("ws-001")
        prune(other, 0)
        with pytest.raises(Conflict, match="not empty"):
            import_lines(other, export_lines(db))

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (lambda line: "nope", "JSON"),
            (lambda line: "[]", "JSON"),
            (lambda line: '{"table":"mine","row":{}}', "does not name a table"),
            (lambda line: line.replace('"agent"', '"agnt"'), "columns"),
            (lambda line: line.replace('"active"', '"maybe"'), "status"),
            (lambda line: line.replace('"metadata":"{', '"metadata":"'), "metadata"),
            (lambda line: line.replace('"ws-001"', "null", 1), "NOT NULL"),
            (lambda line: line.replace('"octavia"', "{}"), "bind|type"),
            (lambda line: line.replace('"epoch":1', '"epoch":1' + "0" * 30), "int"),
            (lambda line: line.replace('"octavia"', '"\\ud800"'), "surrogate"),
            (lambda line: line.replace('"octavia"', '"cipher","agent":"octavia"'), "twice"),
            (lambda line: line.replace('"octavia"', '"cipher","\\u0061gent":"octavia"'), "twice"),
            (lambda line: line.replace('"table"', '"table":"messages","table"'), "twice"),
            (lambda line: line.replace('"message_count":', '"message_count":1e999,"x":'), "double"),
        ],
    )
    def test_a_bad_line_is_named_and_nothing_is_imported(
        self, filled: Ledger, db, other, change, told: str
    ) -> None:
        lines = list(export_lines(db))
        number = next(n for n, line in enumerate(lines) if '"ws_id":"ws-001"' in line)
        changed = change(lines[number])
        assert changed != lines[number]
        lines[number] = changed
        before = dump(other)
        with pytest.raises(InvalidInput, match=rf"line {number + 1} cannot be imported: .*({told})"):
            import_lines(other, lines)
        assert dump(other) == before

    def test_the_same_row_twice(self, filled: Ledger, db, other) -> None:
        lines = list(export_lines(db))
        with pytest.raises(InvalidInput, match=r"line 3 .*UNIQUE"):
            import_lines(other, [*lines[:2], *lines[1:]])

    @pytest.mark.parametrize("kept", [-1, -2, 2, 1])
    def test_one_that_is_cut_off(self, filled: Ledger, db, other, kept: int) -> None:
        with pytest.raises(InvalidInput, match="cut off"):
            import_lines(other, list(export_lines(db))[:kept])
        assert ledger_over(other).stats()["total_ever_connected"] == 0

    def test_one_that_lacks_a_line(self, filled: Ledger, db, other) -> None:
        lines = list(export_lines(db))
        with pytest.raises(InvalidInput, match="rows"):
            import_lines(other, [*lines[:4], *lines[5:]])

    def test_lines_behind_the_end(self, filled: Ledger, db, other) -> None:
        with pytest.raises(InvalidInput, match="after the end"):
            import_lines(other, [*export_lines(db), "{}"])

    @pytest.mark.parametrize("lines", [[], ["nope"], ['{"a":1}'], ["[" * 100_000]])
    def test_no_export(self, other, lines: list[str]) -> None:
        with pytest.raises(InvalidInput, match="line 1 is not the head"):
            import_lines(other, lines)

    @pytest.mark.parametrize("version", [1, 2, 3])
    def test_of_an_older_schema(self, filled: Ledger, db, other, version: int) -> None:
        lines = []
        for line in export_lines(db):
            entry = json.loads(line)
            if "version" in entry:
                entry["version"] = version
            elif "row" in entry:
                for column in columns_since(version, entry["table"]):
                    del entry["row"][column]
            if entry.get("row") != {}:
                lines.append(json.dumps(entry))
        lines[-1] = json.dumps({"rows": len(lines) - 2})
        import_lines(other, lines)
        messages = "SELECT id, msg_id, content, sent_at, delivered, rejected_at FROM messages ORDER BY id"
        assert other.rows(messages) == db.rows(messages)
        assert other.rows("SELECT * FROM connections") == db.rows("SELECT * FROM connections")

    @pytest.mark.parametrize("version", [0, -1, "3", None, True, 99])
    def test_of_no_schema_that_there_was(self, db, other, version: object) -> None:
        lines = list(export_lines(db))
        lines[0] = json.dumps({**json.loads(lines[0]), "version": version})
        with pytest.raises(InvalidInput, match="the export has schema"):
            import_lines(other, lines)

    def test_of_another_version(self, db, other) -> None:
        lines = list(export_lines(db))
        lines[0] = json.dumps({**json.loads(lines[0]), "version": 99})
        with pytest.raises(InvalidInput, match="schema 99"):
            import_lines(other, lines)
