"""Opening a database file without writing it: to judge what it is, and to read a ledger.

A connection that takes part in a write-ahead log needs its two files, `-wal` and `-shm`, and makes them where
they are missing. Made by a reader who is not the database's owner they lock the owner out. So:

- Both are there: SQLite uses them, and `mode=ro` makes no file and changes nothing in the database.
- Neither is there: nobody has the file open. `immutable=1` reads only this file, without locks;
  afterwards its size and times must be the same, and neither file may have come.
- Only one is there: a user who may write the file mends that by opening it. No other user can read it as it is.
  To judge a small file with a log alone, a copy of both is read: its tables may be in the log only.
  Copying is the one place where we open the files ourselves; `database.py` says what that costs.
  This process cannot lose a lock by it: a connection to a write-ahead log has made the `-shm`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional, TypeVar

from ws_manager.errors import LedgerBusy, LedgerError
from ws_manager.own_files import may_own, real, user
from ws_manager.remedies import BACK_UP
from ws_manager.repository.sqlite.database import BUSY_SECONDS, Database, connected, translated_errors
from ws_manager.repository.sqlite.files import State, check_companions, may_write

Result = TypeVar("Result")

_LOOK_SECONDS = 10.0
_HALF_SECONDS = 1.0
"""Seconds after which half of a log counts as left behind; opening and closing take far less."""

_PAUSE_SECONDS = 0.005

_LARGEST_PAGE = 65536
"""Bytes (sqlite.org/fileformat.html, section 1.3.2). A larger file than one page has tables in itself."""


def look_into(path: Path, look: Callable[[sqlite3.Connection], Result], wait: float = BUSY_SECONDS) -> Result:
    """Return what `look` finds in a database file, anybody's; the file is left as it is.

    A file without a write-ahead log's two files is read alone; a small one with a log alone is copied, and
    read with that log. If it was written meanwhile, `look` is called again.

    Args:
        path: the file; it has to be there.
        look: gets a connection that reads only.
        wait: seconds to wait for another process's lock.

    Raises:
        sqlite3.Error: it cannot be opened or read.
        LedgerBusy: it was written during every look for 10 seconds.
        LedgerError: it has to be copied, and cannot be.
    """
    file = real(path)
    deadline = time.monotonic() + _LOOK_SECONDS
    while True:
        state = State.of(file)
        frozen = not (state.has_wal and state.has_shm)
        with _copied(file) if _has_log_alone(file, state) else contextlib.nullcontext() as copy:
            mode = "mode=rw" if copy else "mode=ro&immutable=1" if frozen else "mode=ro"
            db = connected(copy or path, mode, wait)
            try:
                found = look(db)
                if not frozen or State.of(file) == state:
                    return found
            except sqlite3.Error:
                if not frozen or State.of(file) == state:
                    raise
            finally:
                db.close()
                if not frozen:
                    _take_away_ours(file)
        if time.monotonic() > deadline:
            raise LedgerBusy(f"something writes to {path} all the time", hint="stop it, and try again")
        time.sleep(_PAUSE_SECONDS)


def open_unchanged(path: Path) -> Database:
    """Open a ledger for commands that only read: nothing in it can be changed with this connection.

    What is read where nobody has the file open is checked after each reading: see `Database.check_file`.

    Raises:
        LedgerError: it cannot be read without being altered, or at all.
    """
    deadline = time.monotonic() + _HALF_SECONDS
    with translated_errors(path):
        while True:
            try:
                db = _open_as_it_is(path)
            except LedgerBusy:
                # Another process has just opened it; its files are used on the next try.
                if time.monotonic() > deadline:
                    raise
                db = None
            if db is not None:
                return db
            if time.monotonic() > deadline:
                raise LedgerError(
                    f"{path} cannot be read at the moment: of its -wal and -shm files one is missing,"
                    " and only its owner, where the folder can be written, may make it",
                    remedy=BACK_UP,
                )
            time.sleep(_PAUSE_SECONDS)


def _open_as_it_is(path: Path) -> Optional[Database]:
    """Open a ledger in the way that the files beside it allow; None if they allow none at this moment.

    Raises:
        LedgerBusy: another process has begun to write.
        LedgerError, sqlite3.Error: it cannot be opened.
    """
    file = real(path)
    state = State.of(file)
    both, neither = state.has_wal and state.has_shm, not (state.has_wal or state.has_shm)
    own = may_own(file) and may_write(file)
    if not (own or both or neither):
        # Others make them, and take them away, one after the other.
        return None
    db = connected(path, "mode=ro" if both else "mode=rw" if own else "mode=ro&immutable=1")
    try:
        db.execute("PRAGMA query_only = ON")
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if neither and not own:
            db.frozen = state
            db.check_file()
    except BaseException:
        db.close()
        raise
    if own or not both or not _is_ours(file, "-wal"):
        return db
    db.close()
    _take_away_ours(file)
    return None


def _has_log_alone(file: Path, state: State) -> bool:
    """Return whether a small file has a log with content, and no shared memory: the log may tell what it is."""
    if not state.has_wal or state.has_shm or state.size > _LARGEST_PAGE:
        return False
    try:
        return os.stat(f"{file}-wal").st_size > 0
    except OSError:
        return False


@contextlib.contextmanager
def _copied(file: Path) -> Iterator[Path]:
    """Copy a database and its log to a folder of mode 0700, which goes when the block ends.

    Raises:
        LedgerError: they cannot be copied, or the log is a link.
    """
    import shutil
    import tempfile

    check_companions(file)
    with tempfile.TemporaryDirectory(prefix="ws-manager-") as folder:
        copy = Path(folder, "copy.db")
        try:
            shutil.copyfile(file, copy)
            # Its owner may take it away meanwhile: the look is then repeated.
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{file}-wal", f"{copy}-wal")
        except OSError as error:
            raise LedgerError(
                f"{file} cannot be copied to look at it: {error.strerror}",
                hint="check that its -wal file can be read, and that the folder for temporary files has room",
            ) from None
        yield copy


def _take_away_ours(file: Path) -> None:
    """Delete an empty log that we, who do not own the database, have made.

    That happens where the last of the others goes between our look and our opening, and takes both files along.
    Nobody else can have written to ours.
    """
    if _is_ours(file, "-wal"):
        for suffix in ("-wal", "-shm"):
            if _is_ours(file, suffix):
                Path(f"{file}{suffix}").unlink(missing_ok=True)


def _is_ours(file: Path, suffix: str) -> bool:
    """Return whether a file beside the database is this user's, who does not own the database, and holds nothing."""
    try:
        status = os.stat(f"{file}{suffix}")
        # The shared memory is never empty, and never holds what is not in the log.
        return status.st_uid == user() != os.stat(file).st_uid and (suffix == "-shm" or not status.st_size)
    except OSError:
        return False
