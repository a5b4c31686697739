"""Pruning, export and import in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.postgres import Server
from ws_manager import Conflict, InvalidInput, open_ledger
from ws_manager.repository.engines import engine_of
from ws_manager.repository.findings import TABLES, MessageFilter
from ws_manager.repository.store import Store

OLD, NEW, FAR = (f"{year}-01-01T00:00:00.000000+00:00" for year in (2020, 2026, 2099))


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    store = engine_of(postgres_url).open_to_write(postgres_url)
    yield store
    store.close()


@pytest.fixture
def session(postgres_url: str, store: Store) -> Iterator[psycopg.Connection[Any]]:
    """A session of somebody else."""
    with psycopg.connect(postgres_url, autocommit=True, options="-c search_path=ws_manager") as session:
        yield session


def fill(session: psycopg.Connection[Any]) -> None:
    """Write a broadcast to two connections, and between its messages another to one of them."""
    for number, ws_id in ((1, "ws-001"), (2, "ws-002")):
        session.execute(
            "INSERT INTO connections (id, ws_id, agent) VALUES (%s, %s, 'octavia')", (number, ws_id)
        )
    session.execute("INSERT INTO broadcasts (broadcast_id, recipients, msg_type) VALUES ('b-1', 2, 'news')")
    for seq, ws_id, broadcast in ((1, "ws-001", "b-1"), (2, "ws-001", None), (3, "ws-002", "b-1")):
        session.execute(
            "INSERT INTO messages (id, msg_id, recipient_id, content, broadcast_id) VALUES (%s, %s, %s, '1', %s)",
            (seq, f"m-{seq}", ws_id, broadcast),
        )
    session.execute("INSERT INTO events (kind) VALUES ('opened')")
    session.execute("INSERT INTO bars (kind, name) VALUES ('agent', 'cipher')")
    session.execute("INSERT INTO gateways (id, pid, url) VALUES ('g', 1, 'ws://127.0.0.1:1')")
    for table in ("connections", "messages"):
        session.execute(f"SELECT setval('{table}_id_seq', 7)")


class TestExport:
    @pytest.mark.parametrize("between", ["sqlite", "postgres"])
    def test_goes_into_either_engine_and_back(
        self,
        postgres_url: str,
        session: psycopg.Connection[Any],
        postgres: Server,
        tmp_path: Path,
        between: str,
    ) -> None:
        fill(session)
        there = tmp_path / "there.db" if between == "sqlite" else postgres.new()
        back = postgres.new()
        with open_ledger(postgres_url) as source, open_ledger(there) as target, open_ledger(back) as again:
            lines = list(source.maintenance.export_lines())[1:]
            assert '"tx"' not in "".join(lines)
            target.maintenance.import_lines(source.maintenance.export_lines())
            assert list(target.maintenance.export_lines())[1:] == lines
            again.maintenance.import_lines(target.maintenance.export_lines())
            assert list(again.maintenance.export_lines())[1:] == lines
            # A message between those of a broadcast is not one of its own.
            for ledger in (target, again):
                message = ledger.message("m-2")
                assert message is not None
                assert message.broadcast_id is None
                assert [found.msg_id for found in ledger.messages(MessageFilter(broadcast_id="b-1"))] == [
                    "m-3",
                    "m-1",
                ]
        with psycopg.connect(back, options="-c search_path=ws_manager") as other:
            row = other.execute(
                "INSERT INTO connections (ws_id, agent) VALUES ('x', 'y') RETURNING id"
            ).fetchone()
            assert row == (8,)
            # Those that were deleted count as ever registered.
            assert other.execute("SELECT number FROM deleted_connections").fetchone() == (5,)
            row = other.execute("INSERT INTO events (kind) VALUES ('closed') RETURNING id").fetchone()
            assert row == (2,)

    def test_has_the_columns_of_sqlite(self, store: Store, database: Path) -> None:
        with open_ledger(database):
            sqlite = engine_of(database).open_to_read(database)
        for version in range(1, store.version + 1):
            assert store.maintenance.columns(version) == sqlite.maintenance.columns(version)
        sqlite.close()

    def test_of_an_old_version_names_its_broadcasts(
        self, store: Store, session: psycopg.Connection[Any]
    ) -> None:
        fill(session)
        rows = list(store.maintenance.rows())
        session.execute("TRUNCATE connections, messages, broadcasts, events, bars, gateways")
        store.maintenance.columns(4)
        with store.atomic():
            for table, row in rows:
                store.maintenance.insert(
                    table, [{**row, "broadcast_id": None} if table == "messages" else row]
                )
            store.maintenance.complete_import(NEW)
        message = store.history.find("m-2")
        assert message is not None
        assert message.broadcast_id == "b-1"

    def test_that_fails_leaves_an_empty_ledger(
        self, postgres_url: str, session: psycopg.Connection[Any]
    ) -> None:
        with open_ledger(postgres_url) as ledger:
            empty = list(ledger.maintenance.export_lines())
            fill(session)
            lines = list(ledger.maintenance.export_lines())
            with pytest.raises(Conflict):
                ledger.maintenance.import_lines(lines)
            session.execute(
                "TRUNCATE connections, messages, broadcasts, events, bars, gateways RESTART IDENTITY"
            )
            with pytest.raises(InvalidInput, match="cut off"):
                ledger.maintenance.import_lines(lines[:-1])
            assert list(ledger.maintenance.export_lines())[1:] == empty[1:]
            assert ledger.maintenance.import_lines(lines)["messages"] == 3

    @pytest.mark.parametrize(
        ("name", "value"),
        [("id", "x"), ("id", 2**70), ("agent", None), ("agent", {}), ("agent", "\0"), ("agent", "\ud800")],
    )
    def test_of_what_no_table_takes(self, store: Store, name: str, value: object) -> None:
        row = dict.fromkeys(store.maintenance.columns(store.version)["connections"].present)
        row |= {"id": 1, "ws_id": "ws-001", "agent": "octavia", "metadata": "{}", "status": "active"}
        row |= {
            "connected_at": NEW,
            "last_heartbeat": NEW,
            "message_count": 0,
            "epoch": 1,
            "confirmed_seq": 0,
        }
        with pytest.raises(InvalidInput), store.atomic():
            store.maintenance.insert("connections", [{**row, name: value}])
        with store.atomic():
            store.maintenance.insert("connections", [row])

    def test_of_many_names_the_line_that_is_refused(self, postgres_url: str, postgres: Server) -> None:
        with open_ledger(postgres_url) as ledger, open_ledger(postgres.new()) as other:
            for number in range(20):
                ledger.connect("octavia", f"ws-{number:03}", {"number": number})
            lines = list(ledger.maintenance.export_lines())
            for bad in (lines[7], lines[9].replace('"agent":"octavia"', '"agent":null')):
                with pytest.raises(InvalidInput, match="line 12 cannot be imported"):
                    other.maintenance.import_lines([*lines[:11], bad, "nonsense", *lines[11:]])
            # The members of a row may come in any order.
            entry = json.loads(lines[3])
            entry["row"] = dict(reversed(entry["row"].items()))
            other.maintenance.import_lines([*lines[:3], json.dumps(entry), *lines[4:]])
            assert list(other.maintenance.export_lines())[1:] == lines[1:]

    def test_keeps_other_writers_out(self, store: Store, session: psycopg.Connection[Any]) -> None:
        session.execute("SET lock_timeout = '10ms'")
        with store.atomic():
            assert store.maintenance.is_empty()
            with pytest.raises(psycopg.errors.LockNotAvailable):
                session.execute("INSERT INTO events (kind) VALUES ('opened')")
        session.execute("INSERT INTO events (kind) VALUES ('opened')")
        assert not store.maintenance.is_empty()


class TestPruning:
    def test_deletes_what_is_over(self, store: Store, session: psycopg.Connection[Any]) -> None:
        session.execute(
            "INSERT INTO connections (ws_id, agent, status, disconnected_at) SELECT 'old-' || n, 'a',"
            " 'disconnected', %s FROM generate_series(1, 3) AS n",
            (OLD,),
        )
        session.execute(
            "INSERT INTO messages (msg_id, recipient_id, content, sent_at, delivered) VALUES"
            " ('done', 'old-1', '1', %s, 1), ('waits', 'old-2', '1', %s, 0)",
            (OLD, OLD),
        )
        session.execute(
            "INSERT INTO broadcasts (broadcast_id, recipients, msg_type, sent_at) VALUES ('b', 1, 'x', %s)",
            (OLD,),
        )
        session.execute("INSERT INTO events (kind, ts) SELECT 'x', %s FROM generate_series(1, 6000)", (OLD,))
        session.execute("INSERT INTO events (kind, ts) VALUES ('x', %s)", (FAR,))
        wanted = {"receipts": 0, "messages": 1, "heartbeat_log": 0, "events": 6000, "broadcasts": 1}
        wanted |= {"webhook_events": 0, "connections": 2}
        assert {table: store.maintenance.count_over(table, NEW) for table in wanted} == wanted
        assert {table: store.maintenance.delete_over(table, NEW) for table in wanted} == wanted
        assert {table: store.maintenance.delete_over(table, NEW) for table in wanted} == dict.fromkeys(
            wanted, 0
        )
        assert store.connections.find("old-2") is not None
        store.maintenance.vacuum()

    def test_judges_again_what_somebody_has_changed(
        self, store: Store, session: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session.execute(
            "INSERT INTO connections (ws_id, agent, status, disconnected_at) VALUES ('ws', 'a', 'disconnected', %s)",
            (OLD,),
        )
        transaction = type(store.db).transaction  # type: ignore[attr-defined]

        def after_the_search(db: object) -> object:
            session.execute("UPDATE connections SET status = 'active'")
            return transaction(db)

        monkeypatch.setattr(type(store.db), "transaction", after_the_search)  # type: ignore[attr-defined]
        assert store.maintenance.delete_over("connections", NEW) == 0

    @pytest.mark.parametrize("log", ["heartbeat_log", "receipts", "asks", "idempotency_keys"])
    def test_trims_a_log(self, store: Store, session: psycopg.Connection[Any], log: str) -> None:
        insert = {
            "heartbeat_log": "INSERT INTO heartbeat_log (ws_id, ts) VALUES (%s, %s)",
            "receipts": "INSERT INTO receipts (seqs, ts) VALUES (ARRAY[%s::bigint], %s)",
            "asks": "INSERT INTO asks (seq, msg_id, recipient_id, subject, ts)"
            " VALUES (%s, gen_random_uuid(), 'x', '*', %s)",
            "idempotency_keys": "INSERT INTO idempotency_keys (subject, operation, name, fingerprint, result, ts)"
            " VALUES ('s', 'o', %s, '', '', %s)",
        }[log]
        for number, ts in enumerate((OLD, FAR, OLD, NEW)):
            session.execute(insert, (number, ts))
        assert store.maintenance.trim(log, NEW, NEW) == 3
        assert store.maintenance.trim(log, NEW, NEW) == 0
        assert session.execute(f"SELECT ts FROM {log}").fetchall() == [(NEW,)]

    def test_trimming_does_not_wait_for_another_who_trims(
        self, store: Store, session: psycopg.Connection[Any]
    ) -> None:
        session.execute("INSERT INTO heartbeat_log (ws_id, ts) VALUES ('x', %s)", (OLD,))
        with session.transaction():
            session.execute("DELETE FROM heartbeat_log")
            assert store.maintenance.trim("heartbeat_log", NEW, NEW) == 0


def test_the_tables_of_an_export_are_known(store: Store) -> None:
    assert set(store.maintenance.columns(store.version)) == {*TABLES, "sqlite_sequence"}
