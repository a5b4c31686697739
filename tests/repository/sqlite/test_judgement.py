"""Which file is a ledger: its tables and columns decide, and any other file is left as it was."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from tests.support import open_db
from ws_manager import ConnectionPool, LedgerError, add_connection, send_message
from ws_manager.repository.findings import TABLES
from ws_manager.repository.sqlite.opening import open_to_write
from ws_manager.repository.sqlite.reading import look_into
from ws_manager.repository.sqlite.schema import EARLIER, VERSION


def plain(path: Path) -> contextlib.closing[sqlite3.Connection]:
    """A connection that is not ours, closed at the end of the block."""
    return contextlib.closing(sqlite3.connect(path, isolation_level=None))


def everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    """The bytes and times of all files of a folder."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


STRANGERS = {
    "cookies": "CREATE TABLE cookies (name, value); INSERT INTO cookies VALUES ('a', 'b')",
    "a version of its own": "CREATE TABLE cookies (name); PRAGMA user_version = 3",
    "a newer version of its own": "CREATE TABLE cookies (name); PRAGMA user_version = 57",
    "write-ahead log": "PRAGMA journal_mode = WAL; CREATE TABLE cookies (name)",
    "messages": "CREATE TABLE messages (id INTEGER PRIMARY KEY, body TEXT)",
    "connections": "CREATE TABLE connections (id INTEGER PRIMARY KEY, host TEXT)",
    "messages like the earlier ones, and no connections": f"CREATE TABLE messages ({', '.join(EARLIER['messages'])})",
    "a version and nothing else": "PRAGMA user_version = 9",
    "an id and nothing else": "PRAGMA application_id = 252006675",
    "a view": "CREATE VIEW connections AS SELECT 1 AS ws_id",
}


class TestAnotherPrograms:
    @pytest.mark.parametrize("name", STRANGERS)
    @pytest.mark.parametrize("create", [True, False])
    def test_is_refused_and_left_as_it_is(self, database: Path, name: str, create: bool) -> None:
        with plain(database) as db:
            db.executescript(STRANGERS[name])
        before = everything(database.parent)
        with pytest.raises(LedgerError, match="is not a ledger") as refused:
            open_to_write(database, create=create)
        assert refused.value.hint
        assert everything(database.parent) == before

    def test_while_it_is_open_in_that_program(self, database: Path) -> None:
        with plain(database) as db:
            db.executescript(STRANGERS["write-ahead log"])
            before = {
                name: data for name, (data, _) in everything(database.parent).items() if "shm" not in name
            }
            with pytest.raises(LedgerError, match="is not a ledger"):
                open_db(database)
            after = {
                name: data for name, (data, _) in everything(database.parent).items() if "shm" not in name
            }
            assert (len(before), after) == (2, before)

    @pytest.mark.parametrize("kept", [("-wal",), ("-wal", "-shm")])
    def test_that_was_killed(self, tmp_path: Path, database: Path, kept: tuple[str, ...]) -> None:
        original = tmp_path / "original.db"
        with plain(original) as db:
            db.executescript(
                "CREATE TABLE cookies (a); PRAGMA journal_mode = WAL; INSERT INTO cookies VALUES (1)"
            )
            for suffix in ("", *kept):
                Path(f"{database}{suffix}").write_bytes(Path(f"{original}{suffix}").read_bytes())
        original.unlink()
        before = {name: data for name, (data, _) in everything(tmp_path).items() if "shm" not in name}
        with pytest.raises(LedgerError, match="is not a ledger"):
            open_db(database)
        assert {name: data for name, (data, _) in everything(tmp_path).items() if "shm" not in name} == before
        assert len(list(tmp_path.iterdir())) == 1 + len(kept)

    @pytest.mark.parametrize(
        "data", [b"\0", b"x", b"agents: octavia\n", b"x" * 511, b"x" * 512, b"x" * 100_000]
    )
    def test_that_is_no_database(self, database: Path, data: bytes) -> None:
        database.write_bytes(data)
        before = everything(database.parent)
        with pytest.raises(LedgerError, match="is not a SQLite database"):
            open_db(database)
        assert everything(database.parent) == before

    @pytest.mark.skipif(os.name != "posix", reason="Windows has no named pipes in folders")
    def test_that_is_no_file(self, database: Path) -> None:
        os.mkfifo(database)
        with pytest.raises(LedgerError, match="is not an ordinary file"):
            open_db(database)

    def test_is_looked_at_again_where_it_was_written_meanwhile(self, database: Path) -> None:
        with plain(database) as other:
            other.executescript(STRANGERS["cookies"])
            seen = []

            def look(db: sqlite3.Connection) -> int:
                seen.append(db.execute("SELECT count(*) FROM cookies").fetchone()[0])
                if len(seen) < 3:
                    other.execute("INSERT INTO cookies VALUES ('c', 'd')")
                return int(seen[-1])

            assert look_into(database, look) == 3
        assert seen == [1, 2, 3]


class TestLedger:
    def test_an_empty_file_becomes_one_where_one_may_be_made(self, database: Path) -> None:
        database.touch()
        with pytest.raises(LedgerError, match="is an empty file, not a ledger yet"):
            open_to_write(database, create=False)
        assert database.stat().st_size == 0
        open_db(database).close()
        open_to_write(database, create=False).close()

    def test_a_database_without_anything_in_it_becomes_one(self, database: Path) -> None:
        with plain(database) as db:
            db.executescript("CREATE TABLE a (b); DROP TABLE a")
        assert database.stat().st_size
        open_db(database).close()

    def test_may_hold_further_tables(self, database: Path) -> None:
        with contextlib.closing(open_db(database)) as db:
            db.execute("CREATE TABLE notes (text)")
        with contextlib.closing(open_db(database)) as db:
            assert db.value("SELECT count(*) FROM notes") == 0

    @pytest.mark.parametrize("version", [-1, 0, 1, 2])
    def test_whose_version_somebody_has_set(self, database: Path, version: int) -> None:
        with contextlib.closing(open_db(database)) as db:
            add_connection(ConnectionPool(db), "ws-001", "octavia")
            db.execute(f"PRAGMA user_version = {version}")
            schema = db.rows("SELECT sql FROM sqlite_master")
        for _ in range(2):
            with contextlib.closing(open_db(database)) as db:
                assert ConnectionPool(db).count() == 1
                assert set(schema) <= set(db.rows("SELECT sql FROM sqlite_master"))
                assert not db.rows("SELECT 1 FROM sqlite_master WHERE name LIKE 'earlier%'")

    @pytest.mark.parametrize("version", [1, 3, 57])
    def test_of_the_earlier_implementation_whose_version_somebody_has_set(
        self, database: Path, version: int
    ) -> None:
        with plain(database) as db:
            for table, columns in EARLIER.items():
                db.execute(f"CREATE TABLE {table} ({', '.join(sorted(columns))})")
            db.execute(f"PRAGMA user_version = {version}")
        for _ in range(2):
            with contextlib.closing(open_db(database)) as db:
                add_connection(ConnectionPool(db), "ws-001", "octavia")
                assert db.value("PRAGMA user_version") == version

    @pytest.mark.parametrize("table", TABLES)
    def test_without_one_of_its_tables_is_refused(self, database: Path, table: str) -> None:
        with contextlib.closing(open_db(database)) as db:
            db.execute(f"DROP TABLE {table}")
        before = everything(database.parent)
        with pytest.raises(LedgerError, match="is not a ledger"):
            open_db(database)
        assert everything(database.parent) == before

    def test_without_one_of_its_columns_is_refused(self, database: Path) -> None:
        with contextlib.closing(open_db(database)) as db:
            db.execute("ALTER TABLE gateways RENAME COLUMN seen_at TO looked_at")
        with pytest.raises(LedgerError, match="gateways is missing or changed"):
            open_db(database)


class TestShared:
    @pytest.mark.parametrize("version", [0, 2, 3, 57])
    def test_stands_beside_what_is_there(self, database: Path, version: int) -> None:
        with plain(database) as db:
            db.executescript(f"{STRANGERS['cookies']}; PRAGMA user_version = {version}")
        with contextlib.closing(open_db(database, shared=True)) as db:
            add_connection(ConnectionPool(db), "ws-001", "octavia")
        with contextlib.closing(open_db(database)) as db:
            pool = ConnectionPool(db)
            assert send_message(pool, db, "ws-001", 1)
            assert db.rows("SELECT name, value FROM cookies") == [("a", "b")]
            assert db.value("PRAGMA user_version") == version
            assert db.rows("SELECT version FROM ws_manager_schema") == [(VERSION,)]

    def test_of_a_newer_ws_manager_is_refused(self, database: Path) -> None:
        with plain(database) as db:
            db.executescript(STRANGERS["cookies"])
        with contextlib.closing(open_db(database, shared=True)) as db:
            db.execute("UPDATE ws_manager_schema SET version = 1000")
        with pytest.raises(LedgerError, match="newer ws-manager"):
            open_db(database)

    @pytest.mark.parametrize("table", ["messages", "connections", "Events"])
    def test_where_that_program_has_a_table_of_the_same_name_is_refused(
        self, database: Path, table: str
    ) -> None:
        with plain(database) as db:
            db.execute(f"CREATE TABLE {table} (body)")
        before = everything(database.parent)
        with pytest.raises(LedgerError, match=f"the table {table.lower()} in this file is not ours"):
            open_db(database, shared=True)
        assert everything(database.parent) == before

    def test_of_nothing_is_an_ordinary_ledger(self, database: Path) -> None:
        with contextlib.closing(open_db(database, shared=True)) as db:
            assert db.value("PRAGMA user_version") == VERSION
            assert not db.rows("SELECT 1 FROM sqlite_master WHERE name = 'ws_manager_schema'")
