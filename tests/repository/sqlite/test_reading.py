"""Reading a ledger changes nothing: the owner's neither, and least of all somebody else's."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.users import ALICE, BOB, as_root, as_user, listing
from ws_manager import ConnectionPool, LedgerBusy, LedgerError, add_connection, get_db
from ws_manager.core.ledger import ledger_over
from ws_manager.remedies import BACK_UP
from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.sqlite.opening import open_to_read, open_to_write
from ws_manager.repository.sqlite.schema import EARLIER


def names(path: Path) -> list[str]:
    """The ws_ids of the active connections, read as a command reads them."""
    with contextlib.closing(open_to_read(path)) as db:
        return [row[0] for row in db.rows("SELECT ws_id FROM connections ORDER BY id")]


def contents(path: Path) -> dict[str, bytes]:
    """The files of a database, to the byte; but for the shared memory, which is rebuilt at will."""
    return {file.name: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith("-shm")}


def make(path: Path, ws_id: str = "ws-001") -> None:
    """Make a ledger with one connection."""
    with contextlib.closing(get_db(path)) as db:
        add_connection(ConnectionPool(db), ws_id, "octavia")


@pytest.fixture
def killed(database: Path) -> Path:
    """A ledger whose writer was killed: what was committed is in the write-ahead log."""
    make(database)
    child = os.fork()
    if not child:
        try:
            # Held until the end: letting go of it would close it.
            db = get_db(database)
            add_connection(ConnectionPool(db), "ws-002", "octavia")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return database


@pytest.fixture
def readable(shared_folder: Path) -> Path:
    """Alice's ledger, which everybody may read, in a folder into which everybody may write."""
    path = shared_folder / "ledger.db"
    as_user(ALICE, lambda: make(path))
    path.chmod(0o644)
    return path


@contextlib.contextmanager
def open_by_alice(path: Path) -> Iterator[None]:
    """Hold a ledger open in a process of Alice's, who has written something."""
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(ALICE)
            os.setuid(ALICE)
            db = get_db(path)
            add_connection(ConnectionPool(db), "ws-live", "octavia")
            os.write(ready[1], b"1")
            os.read(done[0], 1)
            db.close()
        finally:
            os._exit(0)
    try:
        assert os.read(ready[0], 1) == b"1"
        yield
    finally:
        os.write(done[1], b"1")
        os.waitpid(child, 0)
        for number in (*ready, *done):
            os.close(number)


class TestOwner:
    def test_reads_what_is_there(self, database: Path) -> None:
        make(database)
        before = contents(database)
        assert names(database) == ["ws-001"]
        assert contents(database) == before

    def test_leaves_the_log_of_a_killed_writer_as_it_is(self, killed: Path) -> None:
        before = contents(killed)
        assert set(before) == {"ledger.db", "ledger.db-wal"}
        assert names(killed) == ["ws-001", "ws-002"]
        assert contents(killed) == before

    def test_reads_a_copy_that_lacks_the_shared_memory(self, killed: Path) -> None:
        killed.with_name("ledger.db-shm").unlink()
        assert names(killed) == ["ws-001", "ws-002"]

    def test_knows_a_ledger_whose_tables_are_in_the_log_alone(self, tmp_path: Path) -> None:
        place = tmp_path / "copy"
        place.mkdir()
        with contextlib.closing(get_db(tmp_path / "ledger.db")) as db:
            add_connection(ConnectionPool(db), "ws-001", "octavia")
            for suffix in ("", "-wal"):
                (place / f"ledger.db{suffix}").write_bytes((tmp_path / f"ledger.db{suffix}").read_bytes())
        assert (place / "ledger.db").stat().st_size == 4096
        assert names(place / "ledger.db") == ["ws-001"]

    @pytest.mark.parametrize("open_it", [open_to_read, get_db])
    def test_leaves_another_programs_tables_in_the_log_alone(
        self, tmp_path: Path, open_it: Callable[[Path], object]
    ) -> None:
        with contextlib.closing(sqlite3.connect(tmp_path / "cookies.db")) as theirs:
            theirs.execute("PRAGMA journal_mode = WAL")
            theirs.execute("CREATE TABLE cookies (name)")
            place = tmp_path / "copy"
            place.mkdir()
            for suffix in ("", "-wal"):
                (place / f"cookies.db{suffix}").write_bytes((tmp_path / f"cookies.db{suffix}").read_bytes())
        before = contents(place / "cookies.db")
        with pytest.raises(LedgerError, match="another program"):
            open_it(place / "cookies.db")
        assert contents(place / "cookies.db") == before

    def test_sees_what_others_commit_meanwhile(self, database: Path) -> None:
        make(database)
        with contextlib.closing(open_to_read(database)) as db:
            data_version = db.data_version_reader()
            before = data_version()
            make(database, "ws-002")
            assert data_version() != before
            assert ledger_over(db).count() == 2

    @pytest.mark.parametrize("is_open", [False, True])
    def test_cannot_write(self, database: Path, is_open: bool) -> None:
        make(database)
        with contextlib.ExitStack() as stack:
            if is_open:
                stack.enter_context(contextlib.closing(get_db(database)))
            db = stack.enter_context(contextlib.closing(open_to_read(database)))
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                db.execute("DELETE FROM connections")

    @pytest.mark.parametrize("state", ["missing", "empty"])
    def test_of_nothing_makes_nothing(self, database: Path, state: str) -> None:
        if state == "empty":
            database.touch()
        before = contents(database)
        with pytest.raises(LedgerError, match=r"there is no database|is an empty file"):
            open_to_read(database)
        assert contents(database) == before

    def test_brings_an_older_schema_up_to_date(self, database: Path) -> None:
        make_earlier(database)
        assert names(database) == ["ws-001"]


def make_earlier(path: Path) -> None:
    """Make a file of the earlier implementation with one connection."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        for table, columns in EARLIER.items():
            others = ", ".join(sorted(columns - {"id"}))
            db.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY AUTOINCREMENT, {others})")
        db.execute("INSERT INTO connections (ws_id, agent) VALUES ('ws-001', 'octavia')")
        db.commit()


@as_root
class TestSomebodyElse:
    def test_reads_and_leaves_nothing_behind(self, readable: Path) -> None:
        before, bytes_before = listing(readable.parent), readable.read_bytes()
        assert as_user(BOB, lambda: names(readable)) == ["ws-001"]
        assert (listing(readable.parent), readable.read_bytes()) == (before, bytes_before)

    def test_the_owner_can_write_afterwards(self, readable: Path) -> None:
        as_user(BOB, lambda: names(readable))
        as_user(ALICE, lambda: make(readable, "ws-002"))
        assert as_user(BOB, lambda: names(readable)) == ["ws-001", "ws-002"]

    def test_reads_what_the_owner_has_just_committed(self, readable: Path) -> None:
        with open_by_alice(readable):
            before = listing(readable.parent)
            assert set(before) == {"ledger.db", "ledger.db-wal", "ledger.db-shm"}
            assert as_user(BOB, lambda: names(readable)) == ["ws-001", "ws-live"]
            assert listing(readable.parent) == before
        assert set(listing(readable.parent)) == {"ledger.db"}

    def test_reads_in_a_folder_that_it_may_not_write(self, readable: Path) -> None:
        readable.parent.chmod(0o755)
        assert as_user(BOB, lambda: names(readable)) == ["ws-001"]

    @pytest.mark.parametrize("suffix", ["-wal", "-shm"])
    def test_is_told_to_have_it_copied_where_half_of_a_log_is_there(
        self, readable: Path, suffix: str
    ) -> None:
        Path(f"{readable}{suffix}").touch()
        before = listing(readable.parent)

        def read() -> list[str]:
            with pytest.raises(LedgerError) as refused:
                names(readable)
            return [refused.value.message, str(refused.value.remedy)]

        message, remedy = as_user(BOB, read)
        assert "-wal and -shm" in message
        assert remedy == BACK_UP
        assert listing(readable.parent) == before

    def test_is_told_when_it_was_written_meanwhile(self, readable: Path) -> None:
        def read() -> bool:
            with contextlib.closing(open_to_read(readable)) as db:
                data_version = db.data_version_reader()
                os.write(asked[1], b"1")
                os.read(written[0], 1)
                with pytest.raises(LedgerBusy, match="begun to write"):
                    db.rows("SELECT 1")
                with pytest.raises(LedgerBusy, match="begun to write"):
                    list(db.stream("SELECT 1"))
                with pytest.raises(LedgerBusy, match="begun to write"):
                    data_version()
            return True

        asked, written = os.pipe(), os.pipe()
        child = os.fork()
        if not child:
            try:
                os.read(asked[0], 1)
                make(readable, "ws-002")
                os.write(written[1], b"1")
            finally:
                os._exit(0)
        assert as_user(BOB, read)
        os.waitpid(child, 0)
        for number in (*asked, *written):
            os.close(number)

    @pytest.mark.parametrize("looking", [True, False])
    def test_takes_away_a_log_that_it_made_in_the_owners_place(
        self, readable: Path, monkeypatch: pytest.MonkeyPatch, looking: bool
    ) -> None:
        read = names_by_looking if looking else names_without_judging
        # Both files go between the look and the opening, because their last user closes then.
        plain = Database.execute
        for suffix in ("-wal", "-shm"):
            Path(f"{readable}{suffix}").touch()

        def execute(self: Database, sql: str, *arguments: Any) -> sqlite3.Cursor:
            # The first statement of each way to open it.
            if sql.startswith(("PRAGMA query_only", "SELECT ws_id")):
                for suffix in ("-wal", "-shm"):
                    gone = Path(f"{readable}{suffix}")
                    if gone.exists() and gone.stat().st_uid != BOB:
                        gone.unlink()
            return plain(self, sql, *arguments)

        monkeypatch.setattr(Database, "execute", execute)
        assert as_user(BOB, lambda: read(readable)) == ["ws-001"]
        assert set(listing(readable.parent)) == {"ledger.db"}

    def test_cannot_bring_an_older_schema_up_to_date(self, shared_folder: Path) -> None:
        path = shared_folder / "ledger.db"
        as_user(ALICE, lambda: make_earlier(path))
        path.chmod(0o644)
        before = path.read_bytes()

        def read() -> str:
            with pytest.raises(LedgerError) as refused:
                names(path)
            return refused.value.message

        assert "older schema (0; this ws-manager reads" in as_user(BOB, read)
        assert path.read_bytes() == before

    def test_who_may_not_write_is_told(self, readable: Path) -> None:
        def write() -> str:
            with pytest.raises(LedgerError) as refused:
                open_to_write(readable, create=False)
            return refused.value.message

        assert "no permission to read and write" in as_user(BOB, write)

    def test_files_of_roots_writing_are_the_owners(self, readable: Path) -> None:
        with contextlib.closing(get_db(readable)) as db:
            add_connection(ConnectionPool(db), "ws-root", "octavia")
            assert {user for user, _ in listing(readable.parent).values()} == {ALICE}


def names_by_looking(path: Path) -> list[str]:
    """The ws_ids, read as a file is looked at whose contents nobody knows."""
    from ws_manager.repository.sqlite.reading import look_into

    query = "SELECT ws_id FROM connections ORDER BY id"
    return look_into(path, lambda db: [row[0] for row in db.execute(query)])


def names_without_judging(path: Path) -> list[str]:
    """The ws_ids, read by a connection that is opened first of all."""
    from ws_manager.repository.sqlite.reading import open_unchanged as open_to_read

    with contextlib.closing(open_to_read(path)) as db:
        return [row[0] for row in db.rows("SELECT ws_id FROM connections ORDER BY id")]
