"""Opening the ledger, its transactions, its checkpoints and its backup.

Nothing but SQLite itself may open the database, `-wal` or `-shm` file: closing any other descriptor of
them drops SQLite's POSIX locks in this process (sqlite.org/howtocorrupt.html, section 2.2). The one
exception is `ws_manager.repository.sqlite.reading`, where there is a `-wal` and no `-shm`: we hold no lock then.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, Optional, Union

from ws_manager.errors import (
    InvalidInput,
    LedgerBusy,
    LedgerError,
    LedgerFull,
    LedgerReplaced,
    TransactionOpen,
)
from ws_manager.own_files import real
from ws_manager.remedies import CHECK_LOCATION
from ws_manager.repository.copied import seal_in
from ws_manager.repository.sqlite.files import State, check_companions, create

BUSY_SECONDS = 30.0
CHECKPOINT_COMMITS = 1000
_CHECKPOINT_WAIT_MS = 1000
_LOG_BYTES = 512 * 1024
"""To this size the log is cut by the first commit after a checkpoint of all of it: a long read lets it grow.

Not to nothing: small commits into a file that need not grow are a third faster.
"""

Row = tuple[Any, ...]


class Database(sqlite3.Connection):
    """A connection to one ledger, in autocommit mode. Open it with `open_database`.

    It belongs to the thread and the process that opened it.
    """

    path: Path
    """The file, links followed."""

    frozen: Optional[State] = None
    """How the file was when it was opened without any locks; None for every other connection."""

    identity: tuple[int, int]
    """Device and inode of the file: what it is, whatever it is called."""

    _asked: Path
    _pid: int
    _commits = 0

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is written, or nothing.

        One `BEGIN IMMEDIATE` transaction. Inside a transaction of the caller's it is a SAVEPOINT, and the
        caller's commit makes it durable.

        Raises:
            LedgerBusy: another process kept the write lock for 30 seconds.
            TransactionOpen: the caller's transaction read before another process wrote.
            LedgerReplaced: the file is no longer the one that was opened.
            LedgerError: the disk is full, the file is damaged, and so on.
        """
        self.check_process()
        joined = self.in_transaction
        begin, commit, undo = (
            ("SAVEPOINT ws_manager", "RELEASE ws_manager", "ROLLBACK TO ws_manager; RELEASE ws_manager")
            if joined
            else ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
        )
        with self.translated(joined=joined):
            self._begin(begin)
            try:
                self.check_file()
                yield
                self.execute(commit)
            except BaseException:
                # SQLite itself has rolled back where the disk was full or the file damaged.
                if self.in_transaction:
                    for statement in undo.split("; "):
                        self.execute(statement)
                raise
        if not joined:
            self._commits += 1
            if self._commits % CHECKPOINT_COMMITS == 0:
                # The commit is done. If the checkpoint fails, a later one moves the log.
                with contextlib.suppress(LedgerError, sqlite3.Error):
                    self.checkpoint()

    def _begin(self, statement: str) -> None:
        waiting_since = time.monotonic()
        try:
            self.execute(statement)
        except sqlite3.OperationalError as error:
            # SQLITE_BUSY_SNAPSHOT does not wait: an unfinished SELECT of this connection reads an older state.
            # Python 3.9 and 3.10 do not expose SQLite's error code, but the time shows it.
            limit = int(self.execute("PRAGMA busy_timeout").fetchone()[0]) / 1000
            if _is_busy(error) and time.monotonic() - waiting_since < limit / 2:
                raise _transaction_open() from error
            raise

    def rows(self, sql: str, parameters: Union[Sequence[object], dict[str, object]] = ()) -> list[Row]:
        """Return the rows of a query as plain tuples.

        Raises:
            LedgerError: if the file cannot be read.
        """
        self.check_process()
        with self.translated():
            cursor = self.cursor()
            cursor.row_factory = None
            found = cursor.execute(sql, parameters).fetchall()
        if self.frozen is not None:
            self.check_file()
        return found

    def stream(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[Row]:
        """Give the rows of a query one by one. Read it to the end, or drop it, before the next write.

        Raises:
            LedgerError: if the file cannot be read.
        """
        self.check_process()
        cursor = self.cursor()
        cursor.row_factory = None
        try:
            with self.translated():
                yield from cursor.execute(sql, parameters)
        finally:
            cursor.close()
        if self.frozen is not None:
            self.check_file()

    def row(self, sql: str, parameters: Sequence[object] = ()) -> Optional[Row]:
        """Return the first row of a query, or None."""
        rows = self.rows(sql, parameters)
        return rows[0] if rows else None

    def value(self, sql: str, parameters: Sequence[object] = ()) -> Any:  # noqa: ANN401 - whatever the column holds
        """Return the first column of the first row of a query, or None."""
        row = self.row(sql, parameters)
        return row[0] if row else None

    def highest_id(self, table: str) -> int:
        """Return the highest id that a table ever had; 0 if it never had a row."""
        return int(self.value("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)) or 0)

    def checkpoint(self) -> bool:
        """Move what is in the write-ahead log into the database file, and say whether it was tried.

        SQLite before 3.51.3 can corrupt a log that one connection resets while another begins a
        checkpoint (sqlite.org/wal.html, "The WAL-reset bug"). So automatic checkpoints are off, and this
        one runs PASSIVE while a second connection holds the write lock, under which nobody can reset.
        """
        self.check_process()
        self.check_file()
        with self.translated():
            guard = sqlite3.connect(self.path, isolation_level=None, timeout=0)
            try:
                guard.execute("PRAGMA wal_autocheckpoint = 0")
                guard.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_WAIT_MS}")
                try:
                    guard.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as error:
                    if _is_busy(error):
                        return False
                    raise
                try:
                    self.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                finally:
                    guard.execute("ROLLBACK")
            finally:
                guard.close()
        return True

    def data_version_reader(self) -> Callable[[], int]:
        """Return a function that reads `data_version`: it changes when another connection has committed to the file.

        The gateway calls it 500 times a second, so it does only what it must.
        """
        self.check_process()
        cursor = self.cursor()
        cursor.row_factory = None

        def read() -> int:
            if self.frozen is not None:
                self.check_file()
            try:
                return int(cursor.execute("PRAGMA data_version").fetchone()[0])
            except sqlite3.Error:
                # A second try raises our own error.
                return int(self.value("PRAGMA data_version"))

        return read

    def backup_to(self, target: Path) -> None:
        """Copy the ledger as it is now to a new file, mode 0600, while others go on writing.

        Raises:
            InvalidInput: if the target exists.
            LedgerError: if it cannot be written.
        """
        self.check_process()
        if not create(target):
            raise InvalidInput(f"{target} exists already", hint="give the name of a new file")
        try:
            with translated_errors(target):
                copy = sqlite3.connect(target)
                try:
                    self.backup(copy)
                finally:
                    copy.close()
            self.check_file()
        except BaseException:
            # Half a copy would look like a whole one.
            target.unlink()
            raise

    def check_process(self) -> None:
        """Refuse a connection that came along through a fork (sqlite.org/howtocorrupt.html, section 2.6)."""
        if os.getpid() != self._pid:
            raise LedgerError(
                "this database connection was opened before a fork and cannot be used after it",
                hint="call get_db() in the child process",
            )

    def translated(self, *, joined: bool = False) -> contextlib.AbstractContextManager[None]:
        """Turn SQLite's errors into ours; see `translated_errors`."""
        return translated_errors(self.path, joined=joined)

    def check_file(self) -> None:
        """Check that the file is still the one that was opened.

        For a connection without locks (`frozen`), check too that the file was not written meanwhile.

        Raises:
            LedgerReplaced: it was moved, deleted or replaced, or the link that was opened leads elsewhere now.
            LedgerBusy: the connection is without locks, and the file was written.
        """
        try:
            status = os.stat(self._asked)
        except OSError:
            status = None
        if status is None or (status.st_dev, status.st_ino) != self.identity:
            raise replaced(self._asked)
        if self.frozen is not None and State.of(self.path) != self.frozen:
            raise LedgerBusy(
                f"another process has begun to write to {self._asked} while it was read", hint="run it again"
            )


def from_json(*columns: str) -> str:
    """Return a subquery that has the rows of a parameter: JSON text of an array of arrays with these columns.

    One statement for many rows costs a part of a statement for each, and its number of rows is not limited.
    """
    values = ", ".join(f"json_extract(value, '$[{place}]') AS {name}" for place, name in enumerate(columns))
    return f"(SELECT {values} FROM json_each(?))"


def replaced(path: Path) -> LedgerReplaced:
    """Return the error for a database that is not the one any more that was opened."""
    return LedgerReplaced(
        f"{path} was moved, deleted or replaced while it was open; nothing was written",
        hint="open it again (restart the program); restore a copy only while nothing has it open",
    )


def resets_wal_safely(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """Return whether this SQLite is free of the WAL-reset bug (sqlite.org/wal.html): 3.51.3, 3.50.7, 3.44.6."""
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)


def connected(path: Path, mode: str, wait: Optional[float] = None) -> Database:
    """Open a file that is there, and do nothing with it yet.

    Args:
        path: the absolute path that was asked for. What it leads to is opened, and nothing else made of it.
        mode: parameters of SQLite's URI (sqlite.org/uri.html).
        wait: seconds to wait for a lock; None for 30.

    Raises:
        sqlite3.Error: SQLite cannot open it.
        LedgerError: it is not there any more, or what SQLite would write beside it is a link.
    """
    file = real(path)
    state = State.of(file)
    check_companions(file)
    db = sqlite3.connect(
        f"{_uri(file)}?{mode}",
        uri=True,
        timeout=BUSY_SECONDS if wait is None else wait,
        isolation_level=None,
        factory=Database,
    )
    db.path, db._asked, db._pid = file, path, os.getpid()
    db.identity = (state.device, state.inode)
    db.row_factory = sqlite3.Row
    return db


def _uri(file: Path) -> str:
    """Return SQLite's URI of a file (sqlite.org/uri.html, section 3.1).

    `Path.as_uri` would import more for the same result.
    """
    text = str(file).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return "file://" + (text if os.name == "posix" else "/" + text.replace("\\", "/"))


def open_database(path: Path) -> Database:
    """Open a file that is there for writing, make it a write-ahead-log database, and set what every connection needs.

    What is in it is not looked at here: see `ws_manager.repository.sqlite.schema`.

    Args:
        path: the absolute path that was asked for.

    Raises:
        LedgerError: it cannot be opened, or is not a SQLite database.
    """
    with translated_errors(path):
        db = connected(path, "mode=rw")
        try:
            _use_write_ahead_log(db)
            db.execute("PRAGMA wal_autocheckpoint = 0")
            db.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA cache_size = -65536")
            db.execute("PRAGMA mmap_size = 0")
        except BaseException:
            db.close()
            raise
    return db


def _use_write_ahead_log(db: Database) -> None:
    """Switch a new file over. SQLite does not wait for another process that does the same, so we do."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            if db.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                return
            if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] == "wal":
                return
            raise LedgerError(
                f"{db.path} cannot use a write-ahead log",
                hint="keep it on a local file system; network file systems have no shared memory",
            )
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


@contextlib.contextmanager
def translated_errors(path: Path, *, joined: bool = False) -> Iterator[None]:
    """Turn SQLite's errors about the file into ours, each with what to do next.

    Args:
        path: the file that the errors will name.
        joined: True inside a transaction of the caller's, where "busy" cannot be waited out.

    Raises:
        InvalidInput: a value for the file has half of a surrogate pair, which UTF-8 cannot hold.
        LedgerError: the file cannot be used.
    """
    try:
        yield
    except UnicodeEncodeError:
        # For example what the shell passes on for bytes that are not UTF-8.
        raise InvalidInput("a name or a text is not valid Unicode", hint="give it in UTF-8") from None
    except sqlite3.DatabaseError as error:
        seal = seal_in(str(error))
        if seal is not None:
            raise seal.error(str(path)) from None
        # An IntegrityError, say, is a defect of ours: it must not look like a fault of the file.
        if type(error) not in (sqlite3.OperationalError, sqlite3.DatabaseError):
            raise
        explained = _explained(error, path, joined)
        if explained is None:
            raise
        raise explained from error


def _explained(error: sqlite3.DatabaseError, path: Path, joined: bool) -> Optional[LedgerError]:
    text = str(error)
    if _is_busy(error):
        if joined:
            return _transaction_open()
        return LedgerBusy(
            f"another process keeps the write lock of {path}",
            hint="find it (a backup, an open transaction in a shell?) and try again",
            cause="the ledger is busy",
        )
    if _lacks_room(text, path.parent):
        what = "cannot grow: the disk is full"
        hint = "make room and try again; nothing was half written"
        return LedgerFull(f"{path} {what}", hint=hint, cause=f"the ledger {what}")
    for sign, what in (
        ("not a database", "is not a SQLite database"),
        ("no such table", "is not a ledger: a table is missing"),
    ):
        if sign in text:
            return LedgerError(f"{path} {what}", remedy=CHECK_LOCATION, cause=f"the ledger {what}")
    known = (
        ("malformed", "is damaged", "restore a backup; a bare copy of the file lacks its -wal file"),
        ("readonly", "cannot be written", "check its owner and mode, and those of its folder"),
        ("unable to open", "cannot be opened", "check its owner and mode, and those of its folder"),
        ("disk I/O error", "cannot be read or written: disk I/O error", "check the disk and the free space"),
    )
    for sign, what, hint in known:
        if sign in text:
            return LedgerError(f"{path} {what}", hint=hint, cause=f"the ledger {what}")
    return None


def _lacks_room(text: str, folder: Path) -> bool:
    """Return whether an error means that the disk is full; one about the -wal or -shm file does not say so."""
    if "disk is full" in text:
        return True
    if "disk I/O error" not in text and "unable to open" not in text:
        return False
    from ws_manager.repository.sqlite.room import has_room

    return not has_room(folder)


def _transaction_open() -> TransactionOpen:
    return TransactionOpen(
        "your open transaction or SELECT began before another process wrote, so nothing can be written in it",
        hint="begin it with BEGIN IMMEDIATE, and finish every SELECT first",
    )


def _is_busy(error: sqlite3.Error) -> bool:
    # Python 3.9 and 3.10 do not expose SQLite's error code.
    return "database is locked" in str(error) or "database schema is locked" in str(error)
