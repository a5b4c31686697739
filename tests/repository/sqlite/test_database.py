"""Opening a file, its transactions, its checkpoints and its backup."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests.support import open_db
from ws_manager import (
    ConnectionPool,
    InvalidInput,
    LedgerBusy,
    LedgerError,
    LedgerReplaced,
    TransactionOpen,
    add_connection,
    broadcast,
    get_message_history,
    send_message,
)
from ws_manager.repository.sqlite.database import CHECKPOINT_COMMITS, Database
from ws_manager.repository.sqlite.opening import open_to_read, open_to_write

posix = pytest.mark.skipif(os.name != "posix", reason="modes and forks are POSIX")


def mode(path: Path) -> int:
    """The permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def beside(database: Path, suffix: str) -> Path:
    """The -wal or -shm file of a database."""
    return database.with_name(database.name + suffix)


@pytest.fixture
def other(database: Path, db: Database) -> Iterator[sqlite3.Connection]:
    """A plain connection to the same file, that never waits, as another process would have."""
    connection = sqlite3.connect(database, isolation_level=None, timeout=0)
    yield connection
    connection.close()


@pytest.fixture
def connected(db: Database, pool: ConnectionPool) -> Database:
    """`db`, with ws-001 of octavia active."""
    add_connection(pool, "ws-001", "octavia")
    return db


def messages(db: sqlite3.Connection) -> int:
    """The number of rows in `messages`."""
    return int(db.execute("SELECT count(*) FROM messages").fetchone()[0])


class TestCreation:
    @posix
    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
    def test_file_is_private_in_a_private_folder_under_any_umask(
        self, tmp_path: Path, run_python: Callable[..., str], umask: int
    ) -> None:
        database = tmp_path / "new" / "deep" / "ledger.db"
        run_python(
            f"import os, stat, sys; os.umask({umask})\n"
            "from ws_manager import *\n"
            "db = get_db(sys.argv[1]); add_connection(ConnectionPool(db), 'ws-001', 'octavia')\n"
            "modes = [stat.S_IMODE(os.stat(sys.argv[1] + s).st_mode) for s in ('', '-wal', '-shm')]\n"
            "assert modes == [0o600] * 3, modes\n"
            "db.close()",
            database,
        )
        assert [mode(database), mode(database.parent), mode(database.parent.parent)] == [0o600, 0o700, 0o700]

    @posix
    def test_folder_that_was_there_keeps_its_mode(self, tmp_path: Path) -> None:
        folder = tmp_path / "shared"
        folder.mkdir()
        folder.chmod(0o755)
        open_db(folder / "ledger.db").close()
        assert mode(folder) == 0o755

    @posix
    def test_file_that_was_there_keeps_its_mode(self, database: Path) -> None:
        database.touch()
        database.chmod(0o640)
        open_db(database).close()
        assert mode(database) == 0o640

    def test_no_code_but_sqlite_opens_the_file(self, database: Path, run_python: Callable[..., str]) -> None:
        printed = run_python(
            """
import os, sqlite3, sys
names = [sys.argv[1] + suffix for suffix in ("", "-wal", "-shm", "-journal")]
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)) and os.fsdecode(arguments[0]) in names:
        print(names.index(os.fsdecode(arguments[0])), arguments[2] & os.O_EXCL > 0, arguments[2] & os.O_CREAT > 0)
sys.addaudithook(hook)
from pathlib import Path
from ws_manager import *
for _ in range(2):
    db = get_db(sys.argv[1])
    pool = ConnectionPool(db)
    add_connection(pool, "ws-001", "octavia")
    broadcast(pool, db, "hello")
    pool.attach("ws-001", lambda message: None)
    heartbeat_check(pool, db, 0)
    db.checkpoint()
    pool.detach("ws-001")
    db.close()
    db = get_db(Path(sys.argv[1]))
    db.backup_to(Path(sys.argv[1] + f".backup-{_}"))
    db.close()
""",
            database,
        )
        # O_EXCL never opens a file that is there: each opening tries it once, and only the first succeeds.
        assert set(printed.splitlines()) == {"0 True True"}

    def test_waits_while_another_makes_the_file(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # SQLite itself does not wait here: it refuses at once to switch the journal of a file that is locked.
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            monkeypatch.setattr(
                "ws_manager.repository.sqlite.database.time.sleep", lambda seconds: other.execute("ROLLBACK")
            )
            with contextlib.closing(open_db(database)) as db:
                assert db.value("PRAGMA journal_mode") == "wal"

    def test_relative_path_survives_a_change_of_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        db = open_db(Path("ledger.db"))
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        add_connection(ConnectionPool(db), "ws-001", "octavia")
        db.close()
        assert (tmp_path / "ledger.db").exists()

    def test_tilde_is_the_home_folder(self, tmp_path: Path) -> None:
        open_db(Path("~/ledger.db")).close()
        assert (tmp_path / "home" / "ledger.db").exists()

    @pytest.mark.parametrize(
        "name", ["a b.db", "50%20.db", "what?mode=memory.db", "x#y.db", "größe.db", "a&b=c.db"]
    )
    def test_any_name_will_do(self, tmp_path: Path, name: str) -> None:
        for _ in range(2):
            with contextlib.closing(open_db(tmp_path / name)) as db:
                add_connection(ConnectionPool(db), "ws-001", "octavia")
        with contextlib.closing(open_to_read(tmp_path / name)) as db:
            assert ConnectionPool(db).count() == 1
        assert [path.name for path in tmp_path.iterdir()] == [name]

    @posix
    def test_name_that_is_not_unicode(self, tmp_path: Path) -> None:
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.db"))
        open_db(path).close()
        open_to_read(path).close()
        assert [os.fsencode(file.name) for file in tmp_path.iterdir()] == [b"\xff.db"]

    def test_path_may_be_text(self, database: Path) -> None:
        open_db(str(database)).close()  # type: ignore[arg-type]
        assert database.exists()

    def test_missing_file_is_refused_where_none_may_be_made(self, database: Path) -> None:
        with pytest.raises(LedgerError, match="there is no database at"):
            open_to_write(database, create=False)
        assert not database.exists()


class TestConnection:
    @pytest.mark.parametrize(
        ("pragma", "value"),
        [
            ("journal_mode", "wal"),
            ("wal_autocheckpoint", 0),
            ("journal_size_limit", 512 * 1024),
            ("synchronous", 2),
            ("busy_timeout", 30_000),
            ("cache_size", -65536),
            ("mmap_size", 0),
        ],
    )
    def test_settings_of_every_connection(self, db: Database, pragma: str, value: object) -> None:
        assert db.value(f"PRAGMA {pragma}") == value

    def test_autocommits(self, db: Database) -> None:
        assert db.isolation_level is None
        db.execute("INSERT INTO events (kind) VALUES ('test')")
        assert not db.in_transaction

    def test_is_a_sqlite_connection_with_named_columns(self, db: Database) -> None:
        assert isinstance(db, sqlite3.Connection)
        assert db.execute("SELECT 1 AS one").fetchone()["one"] == 1

    def test_reopening_finds_what_was_written(self, database: Path, connected: Database) -> None:
        again = open_db(database)
        assert ConnectionPool(again).count() == 1
        again.close()

    @posix
    def test_refused_after_a_fork(self, connected: Database) -> None:
        pool = ConnectionPool(connected)

        def use() -> None:
            for call in (
                lambda: pool.get("ws-001"),
                lambda: send_message(pool, connected, "ws-001", 1),
                lambda: connected.checkpoint(),
                lambda: connected.backup_to(connected.path.with_name("copy.db")),
            ):
                with pytest.raises(LedgerError, match="before a fork"):
                    call()

        in_child(use)
        assert messages(connected) == 0


def in_child(function: Callable[[], None], *, unprivileged: bool = False) -> None:
    """Run a function in a forked process, without root's rights if asked, and fail if it fails."""
    child = os.fork()
    if not child:
        status = 1
        try:
            if unprivileged and os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach; `tmp_path` is for its owner alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


class TestUnusableFiles:
    def refused(self, path: Path) -> LedgerError:
        """Open a file, and return the error, after a look at its form."""
        with pytest.raises(LedgerError) as raised:
            db = open_db(path)
            with contextlib.closing(db):
                send_message(ConnectionPool(db), db, "ws-001", 1)
        assert str(path) in raised.value.message
        assert "\n" not in raised.value.message
        assert raised.value.hint
        return raised.value

    def test_folder(self, tmp_path: Path) -> None:
        assert "is a folder" in self.refused(tmp_path).message

    def test_not_sqlite(self, database: Path) -> None:
        database.write_text("agents: octavia, cipher\n" * 100)
        assert "is not a SQLite database" in self.refused(database).message
        assert database.read_text().startswith("agents")

    @pytest.mark.parametrize("size", [50, 200, 5000, 20480])
    def test_truncated(self, database: Path, size: int) -> None:
        open_db(database).close()
        with database.open("r+b") as file:
            file.truncate(size)
        assert "is" in self.refused(database).message

    def test_newer_schema(self, database: Path) -> None:
        with contextlib.closing(open_db(database)) as db:
            db.execute("PRAGMA user_version = 1000")
        error = self.refused(database)
        assert "newer ws-manager" in error.message
        assert error.hint == "upgrade ws-manager"

    def test_database_of_another_program(self, database: Path) -> None:
        with contextlib.closing(sqlite3.connect(database)) as plain:
            plain.execute("CREATE TABLE bookmarks (url)")
            plain.execute("PRAGMA user_version = 1")
        assert "is not a ledger" in self.refused(database).message

    def test_file_where_a_folder_should_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert "cannot create" in self.refused(tmp_path / "file" / "ledger.db").message

    @posix
    def test_read_only(self, open_folder: Path) -> None:
        database = open_folder / "ledger.db"
        open_db(database).close()
        database.chmod(0o444)

        def use() -> None:
            assert "no permission" in self.refused(database).message

        in_child(use, unprivileged=True)

    @posix
    def test_folder_that_cannot_be_written(self, open_folder: Path) -> None:
        def use() -> None:
            assert "cannot create" in self.refused(open_folder / "ledger.db").message

        open_folder.chmod(0o555)
        in_child(use, unprivileged=True)

    @posix
    def test_folder_that_cannot_be_entered(self, open_folder: Path) -> None:
        database = open_folder / "closed" / "ledger.db"
        open_db(database).close()
        database.parent.chmod(0o600)

        def use() -> None:
            self.refused(database)
            with pytest.raises(LedgerError):
                open_to_write(database, create=False)

        in_child(use, unprivileged=True)
        database.parent.chmod(0o700)

    @pytest.mark.parametrize("path", ["", ":memory:", "file:ledger.db", "file::memory:?cache=shared"])
    def test_what_is_no_file(self, path: str) -> None:
        with pytest.raises(InvalidInput, match="not the path of a file"):
            open_db(path)  # type: ignore[arg-type]

    def test_full_disk(self, connected: Database) -> None:
        pages = connected.value("PRAGMA page_count")
        connected.execute(f"PRAGMA max_page_count = {pages}")
        pool = ConnectionPool(connected)
        with pytest.raises(LedgerError, match="disk is full"):
            send_message(pool, connected, "ws-001", "x" * 200_000)
        assert not connected.in_transaction
        assert messages(connected) == 0


class TestReplacedFile:
    def test_unlinked(self, database: Path, connected: Database) -> None:
        database.unlink()
        with pytest.raises(LedgerReplaced, match="moved, deleted or replaced"):
            send_message(ConnectionPool(connected), connected, "ws-001", 1)

    def test_replaced(self, tmp_path: Path, database: Path, connected: Database) -> None:
        replacement = tmp_path / "replacement.db"
        open_db(replacement).close()
        replacement.replace(database)
        with pytest.raises(LedgerReplaced):
            send_message(ConnectionPool(connected), connected, "ws-001", 1)
        assert messages(connected) == 0

    def test_nothing_is_written_into_the_new_file(
        self, tmp_path: Path, database: Path, connected: Database
    ) -> None:
        replacement = tmp_path / "replacement.db"
        open_db(replacement).close()
        replacement.replace(database)
        with contextlib.suppress(LedgerReplaced):
            connected.checkpoint()
        with contextlib.suppress(LedgerReplaced):
            send_message(ConnectionPool(connected), connected, "ws-001", 1)
        connected.close()
        with contextlib.closing(sqlite3.connect(f"file:{database}?immutable=1", uri=True)) as plain:
            assert messages(plain) == 0
            assert plain.execute("PRAGMA integrity_check").fetchone()[0] == "ok"

    def test_moved_and_put_back(self, tmp_path: Path, database: Path, connected: Database) -> None:
        database.rename(tmp_path / "away.db")
        with pytest.raises(LedgerReplaced):
            send_message(ConnectionPool(connected), connected, "ws-001", 1)
        (tmp_path / "away.db").rename(database)
        assert send_message(ConnectionPool(connected), connected, "ws-001", 1)


class TestTransaction:
    def test_takes_the_write_lock_at_once(self, db: Database, other: sqlite3.Connection) -> None:
        with db.transaction(), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")

    def test_commits(self, db: Database, other: sqlite3.Connection) -> None:
        with db.transaction():
            db.execute("INSERT INTO events (kind) VALUES ('test')")
        assert other.execute("SELECT count(*) FROM events").fetchone() == (1,)

    def test_error_undoes_everything(self, db: Database) -> None:
        with pytest.raises(KeyError), db.transaction():
            db.execute("INSERT INTO events (kind) VALUES ('test')")
            raise KeyError
        assert db.value("SELECT count(*) FROM events") == 0
        assert not db.in_transaction

    def test_error_of_an_inner_one_undoes_the_inner_one(self, db: Database) -> None:
        with db.transaction():
            db.execute("INSERT INTO events (kind) VALUES ('outer')")
            with contextlib.suppress(KeyError), db.transaction():
                db.execute("INSERT INTO events (kind) VALUES ('inner')")
                raise KeyError
        assert db.rows("SELECT kind FROM events") == [("outer",)]

    def test_callers_rollback_undoes_ours(self, connected: Database) -> None:
        connected.execute("BEGIN")
        send_message(ConnectionPool(connected), connected, "ws-001", 1)
        connected.execute("ROLLBACK")
        assert messages(connected) == 0

    def test_callers_commit_makes_ours_durable(self, connected: Database, other: sqlite3.Connection) -> None:
        connected.execute("BEGIN")
        send_message(ConnectionPool(connected), connected, "ws-001", 1)
        assert messages(other) == 0
        connected.execute("COMMIT")
        assert messages(other) == 1

    def test_our_error_leaves_the_callers_work(self, connected: Database, other: sqlite3.Connection) -> None:
        connected.execute("CREATE TRIGGER no BEFORE INSERT ON messages BEGIN SELECT RAISE(ABORT, 'no'); END")
        connected.execute("BEGIN IMMEDIATE")
        connected.execute("INSERT INTO events (kind) VALUES ('of the caller')")
        with pytest.raises(sqlite3.IntegrityError, match="no"):
            broadcast(ConnectionPool(connected), connected, 1)
        assert connected.in_transaction
        connected.execute("COMMIT")
        kinds = [row[0] for row in other.execute("SELECT kind FROM events")]
        assert kinds == ["registered", "of the caller"]
        assert other.execute("SELECT count(*) FROM broadcasts").fetchone() == (0,)

    def test_snapshot_that_is_too_old(self, connected: Database, other: sqlite3.Connection) -> None:
        connected.execute("BEGIN")
        connected.execute("SELECT * FROM messages").fetchall()
        other.execute("INSERT INTO events (kind) VALUES ('meanwhile')")
        with pytest.raises(TransactionOpen) as raised:
            send_message(ConnectionPool(connected), connected, "ws-001", 1)
        assert "BEGIN IMMEDIATE" in str(raised.value.hint)
        connected.execute("ROLLBACK")
        assert send_message(ConnectionPool(connected), connected, "ws-001", 1)

    def test_lock_that_is_held_too_long(self, connected: Database, other: sqlite3.Connection) -> None:
        other.execute("BEGIN IMMEDIATE")
        connected.execute("PRAGMA busy_timeout = 1")
        with pytest.raises(LedgerBusy, match="keeps the write lock"):
            send_message(ConnectionPool(connected), connected, "ws-001", 1)
        other.execute("ROLLBACK")
        assert send_message(ConnectionPool(connected), connected, "ws-001", 1)

    def test_reading_needs_no_lock(self, connected: Database, other: sqlite3.Connection) -> None:
        other.execute("BEGIN IMMEDIATE")
        connected.execute("PRAGMA busy_timeout = 1")
        assert ConnectionPool(connected).get("ws-001") is not None
        assert get_message_history(connected) == []

    def test_defect_does_not_look_like_a_fault_of_the_file(self, db: Database) -> None:
        with pytest.raises(sqlite3.IntegrityError), db.transaction():
            db.execute("INSERT INTO events (kind) VALUES (NULL)")

    def test_streamed_rows(self, connected: Database) -> None:
        rows = connected.stream("SELECT ws_id FROM connections WHERE agent = ?", ("octavia",))
        assert list(rows) == [("ws-001",)]


class TestCheckpoint:
    def test_none_is_automatic(self, database: Path, connected: Database) -> None:
        pool, size = ConnectionPool(connected), database.stat().st_size
        for _ in range(40):  # 8 MB: twice what SQLite would wait for
            send_message(pool, connected, "ws-001", "x" * 200_000)
        assert beside(database, "-wal").stat().st_size > 8_000_000
        assert database.stat().st_size == size

    def test_moves_the_log_into_the_file(self, database: Path, connected: Database) -> None:
        size = database.stat().st_size
        send_message(ConnectionPool(connected), connected, "ws-001", "x" * 200_000)
        assert connected.checkpoint()
        assert database.stat().st_size > size + 200_000

    def test_is_passive_and_nobody_can_write_meanwhile(
        self, connected: Database, other: sqlite3.Connection
    ) -> None:
        seen = []

        def trace(statement: str) -> None:
            if "checkpoint" in statement:
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    other.execute("BEGIN IMMEDIATE")
                seen.append(statement)

        connected.set_trace_callback(trace)
        connected.checkpoint()
        assert seen == ["PRAGMA wal_checkpoint(PASSIVE)"]

    def test_releases_the_write_lock(self, connected: Database, other: sqlite3.Connection) -> None:
        connected.checkpoint()
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")

    def test_is_skipped_while_another_writes(
        self, database: Path, connected: Database, other: sqlite3.Connection
    ) -> None:
        size = database.stat().st_size
        other.execute("BEGIN IMMEDIATE")
        assert not connected.checkpoint()
        assert database.stat().st_size == size

    def test_log_that_a_reader_let_grow_becomes_small_again(
        self, database: Path, connected: Database, other: sqlite3.Connection
    ) -> None:
        connected.execute("PRAGMA synchronous = OFF")
        pool, log = ConnectionPool(connected), beside(database, "-wal")
        other.execute("BEGIN")
        before = other.execute("SELECT count(*) FROM messages").fetchone()
        for _ in range(150):
            send_message(pool, connected, "ws-001", "x" * 200_000)
            connected.checkpoint()
        assert log.stat().st_size > 30_000_000
        assert other.execute("SELECT count(*) FROM messages").fetchone() == before
        other.execute("ROLLBACK")

        connected.checkpoint()
        writer = open_db(database)
        send_message(ConnectionPool(writer), writer, "ws-001", "by another connection")
        assert log.stat().st_size <= 512 * 1024
        assert [row[0] for row in writer.rows("PRAGMA integrity_check")] == ["ok"]
        assert len(get_message_history(writer, limit=1000)) == 151
        writer.close()

    def test_log_stays_bounded(self, database: Path, connected: Database) -> None:
        connected.execute("PRAGMA synchronous = OFF")
        pool, log = ConnectionPool(connected), beside(database, "-wal")
        for _ in range(CHECKPOINT_COMMITS):
            pool.increment_message_count("ws-001")
        after_one = log.stat().st_size
        for _ in range(3 * CHECKPOINT_COMMITS):
            pool.increment_message_count("ws-001")
        assert log.stat().st_size < 1.5 * after_one

    def test_none_before_that_many_commits(self, connected: Database) -> None:
        connected.execute("PRAGMA synchronous = OFF")
        pool, checkpoints = ConnectionPool(connected), []
        connected.set_trace_callback(
            lambda statement: checkpoints.append(statement) if "checkpoint" in statement else None
        )
        for _ in range(CHECKPOINT_COMMITS - 10):
            pool.increment_message_count("ws-001")
        assert checkpoints == []

    def test_commit_stands_when_its_checkpoint_fails(self, connected: Database) -> None:
        connected.execute("PRAGMA synchronous = OFF")
        pool, denied = ConnectionPool(connected), []

        def deny(action: int, name: object, *_: object) -> int:
            if action != sqlite3.SQLITE_PRAGMA or name != "wal_checkpoint":
                return sqlite3.SQLITE_OK
            denied.append(name)
            return sqlite3.SQLITE_DENY

        connected.set_authorizer(deny)
        for _ in range(CHECKPOINT_COMMITS):
            assert send_message(pool, connected, "ws-001", 1)
        assert denied
        assert messages(connected) == CHECKPOINT_COMMITS

    @pytest.mark.skipif(sys.platform == "win32", reason="processes are slow to start there")
    def test_others_write_and_checkpoint_at_once(
        self, database: Path, connected: Database, run_together: Callable[..., list[str]]
    ) -> None:
        run_together(
            """
from ws_manager import *
db = get_db(sys.argv[1])
db.execute("PRAGMA synchronous = OFF")
pool = ConnectionPool(db)
for n in range(300):
    send_message(pool, db, "ws-001", n)
    if n % 20 == 0:
        db.checkpoint()
db.close()
""",
            4,
            database,
        )
        assert messages(connected) == 4 * 300
        assert connected.value("PRAGMA integrity_check") == "ok"


class TestBackup:
    def test_holds_everything(self, tmp_path: Path, connected: Database) -> None:
        send_message(ConnectionPool(connected), connected, "ws-001", "hello")
        connected.backup_to(tmp_path / "copy.db")
        with contextlib.closing(open_db(tmp_path / "copy.db")) as copy:
            assert get_message_history(copy) == get_message_history(connected)
            assert ConnectionPool(copy).get("ws-001") == ConnectionPool(connected).get("ws-001")

    @posix
    def test_is_private(self, tmp_path: Path, db: Database) -> None:
        db.backup_to(tmp_path / "copy.db")
        assert mode(tmp_path / "copy.db") == 0o600

    def test_overwrites_nothing(self, tmp_path: Path, db: Database) -> None:
        (tmp_path / "copy.db").write_text("mine")
        with pytest.raises(InvalidInput, match="exists already"):
            db.backup_to(tmp_path / "copy.db")
        assert (tmp_path / "copy.db").read_text() == "mine"


def test_an_unfinished_select_is_named_as_the_cause(database: Path, db: Database) -> None:
    with db.transaction():
        for number in range(300):
            db.execute("INSERT INTO events (kind) VALUES (?)", (str(number),))
    reading = db.execute("SELECT * FROM events")
    reading.fetchone()
    other = open_db(database)
    with other.transaction():
        other.execute("INSERT INTO events (kind) VALUES ('x')")
    other.close()
    with pytest.raises(TransactionOpen, match="SELECT"), db.transaction():
        pass
    reading.close()
