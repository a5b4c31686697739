"""Opening a database file without writing it: to judge what it is, and to read a ledger.

A connection that takes part in a write-ahead log needs its two files, `-wal` and `-shm`, and makes them where
they are missing. Made by a reader who is not the database's owner they lock the owner out. So:

- Both are there: SQLite uses them, and `mode=ro` makes and changes nothing.
- Neither is there: nobody has the file open. `immutable=1` reads the file as it stands, without any locks;
  afterwards its size and times must be the same, and neither file may have come.
- Only one is there: whoever may write mends that by opening the file. Nobody else can read it as it is.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Callable, TypeVar

from ws_manager.errors import LedgerBusy, LedgerError
from ws_manager.own_files import may_own, real, user
from ws_manager.repository.database import BUSY_SECONDS, Database, connected, translated_errors
from ws_manager.repository.files import State, may_write

Result = TypeVar("Result")

_LOOK_SECONDS = 10.0
_PAUSE_SECONDS = 0.005


def look_into(path: Path, look: Callable[[sqlite3.Connection], Result], wait: float = BUSY_SECONDS) -> Result:
    """Return what `look` finds in a database file, anybody's; the file is left as it is.

    A file without both files of a write-ahead log is read as it stands. If it was written meanwhile, `look` is
    called again.

    Args:
        path: the file; it has to be there.
        look: gets a connection that reads only.
        wait: seconds to wait for a lock of somebody else's.

    Raises:
        sqlite3.Error: it cannot be opened or read.
        LedgerBusy: it was written during every look for 10 seconds.
    """
    file = real(path)
    deadline = time.monotonic() + _LOOK_SECONDS
    while True:
        state = State.of(file)
        frozen = not (state.has_wal and state.has_shm)
        db = connected(path, "mode=ro&immutable=1" if frozen else "mode=ro", wait)
        try:
            found = look(db)
            if not frozen or State.of(file) == state:
                return found
        except sqlite3.Error:
            if not frozen or State.of(file) == state:
                raise
        finally:
            db.close()
        if time.monotonic() > deadline:
            raise LedgerBusy(f"something writes to {path} all the time", hint="stop it, and try again")
        time.sleep(_PAUSE_SECONDS)


def open_to_read(path: Path) -> Database:
    """Open a ledger for commands that only read: nothing in it can be changed with this connection.

    What is read where nobody has the file open is checked after each reading: see `Database.check_file`.

    Raises:
        LedgerError: it cannot be read without being altered, or at all.
    """
    file = real(path)
    with translated_errors(path):
        while True:
            state = State.of(file)
            both, neither = state.has_wal and state.has_shm, not (state.has_wal or state.has_shm)
            own = may_own(file) and may_write(file)
            if not (own or both or neither):
                raise LedgerError(
                    f"{path} cannot be read at the moment: of its -wal and -shm files one is missing,"
                    " and only its owner, where the folder can be written, may make it",
                    hint="its owner can make a copy of it with: ws-manager backup FILE",
                )
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
            if own or not both or not _made_by_us(file):
                return db
            # The last of the others has gone between the look and the opening, and took both files along.
            db.close()
            for suffix in ("-wal", "-shm"):
                Path(f"{file}{suffix}").unlink(missing_ok=True)


def _made_by_us(file: Path) -> bool:
    """Say whether the write-ahead log is empty and this user's, who does not own the database.

    Then no one else can have written to it: only we could open it for writing.
    """
    try:
        log = os.stat(f"{file}-wal")
    except OSError:
        return False
    return log.st_size == 0 and log.st_uid == user() != os.stat(file).st_uid
