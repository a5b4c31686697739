"""Opening a ledger's file: for writing, for reading, or only to say what it is."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Union

from ws_manager.errors import LedgerError
from ws_manager.own_files import real
from ws_manager.remedies import USE_ANOTHER_FILE
from ws_manager.repository.sqlite.database import Database, open_database, replaced, translated_errors
from ws_manager.repository.sqlite.files import (
    check_names,
    check_readable,
    check_writable,
    look,
    may_write,
    missing,
    named,
)
from ws_manager.repository.sqlite.files import create as new_file
from ws_manager.repository.sqlite.judgement import EMPTY, Judgement, judge
from ws_manager.repository.sqlite.reading import look_into, open_unchanged
from ws_manager.repository.sqlite.schema import EARLIER, VERSION, VERSIONS

OLDEST_SQLITE = (3, 34, 0)


def open_to_write(path: Union[str, Path], *, create: bool = True, shared: bool = False) -> Database:
    """Open a database file for reading and writing, and bring its schema up to date.

    Args:
        path: the file. A new one is made with mode 0600, its folder with 0700.
        create: False to refuse a file that does not exist, or is empty.
        shared: put the ledger into a database of another program too, beside that program's tables.

    Raises:
        InvalidInput: the path names no file.
        LedgerError: the file cannot be used, is not a ledger, or a newer ws-manager wrote it.
    """
    _check_sqlite()
    path = named(path)
    status = look(path)
    if status is None and create:
        new_file(real(path))
        status = look(path)
    if status is None:
        raise missing(path)
    check_writable(path, status)
    found = judge_file(path, status)
    if found.kind == EMPTY and not create:
        raise missing(path)
    found.check(path, VERSION, shared=shared)
    db = open_database(path)
    try:
        if (found.version, found.claimed) != (VERSION, VERSION):
            # Imported here: only a file that has to change pays for it.
            from ws_manager.repository.sqlite.migrations import migrate

            migrate(db, shared=shared)
    except sqlite3.Error as error:
        db.close()
        raise LedgerError(
            f"{path} cannot be brought up to date: {error}",
            remedy=USE_ANOTHER_FILE,
        ) from error
    except BaseException:
        db.close()
        raise
    return db


def open_to_read(path: Union[str, Path]) -> Database:
    """Open a ledger for reading alone: nothing is made or changed, but that an older schema is brought up to date.

    Raises:
        InvalidInput: the path names no file.
        LedgerError: there is not a ledger, it cannot be read, or this user may not bring its schema up to date.
    """
    _check_sqlite()
    path = named(path)
    status = look(path)
    if status is None:
        raise missing(path)
    check_readable(path)
    found = judge_file(path, status)
    if found.kind == EMPTY:
        raise missing(path)
    found.check(path, VERSION)
    if found.version < VERSION:
        if not may_write(path):
            raise LedgerError(
                f"{path} has an older schema ({found.version}; this ws-manager reads {VERSION}),"
                " and you may not write to it",
                hint="any command of its owner's brings it up to date",
            )
        open_to_write(path, create=False).close()
    return open_unchanged(path)


def check_file(path: Union[str, Path], *, shared: bool = False) -> None:
    """Refuse a file that cannot be served. Nothing at all, and an empty file, may still become a ledger.

    Raises:
        InvalidInput, LedgerError: as `open_to_write`.
    """
    path = named(path)
    status = look(path)
    if status is not None:
        check_readable(path)
        check_names(path, status)
        judge_file(path, status).check(path, VERSION, shared=shared)


def judge_file(path: Path, status: os.stat_result) -> Judgement:
    """Say what a file is, and leave it as it is.

    Raises:
        LedgerError: it cannot be read, or is not a SQLite database.
    """
    if status.st_size == 0:
        return Judgement(EMPTY)
    with translated_errors(path):
        return look_into(path, judge_open)


def judge_open(db: sqlite3.Connection) -> Judgement:
    """Say what an open file is.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    return judge(db, VERSIONS, EARLIER)


def open_again(path: Path, identity: tuple[int, int]) -> Database:
    """Open a ledger that this process has open already, in another thread.

    Args:
        path: as it was opened.
        identity: of the file that is open.

    Raises:
        LedgerReplaced: the path leads to another file now, or to none.
        LedgerError: as `open_to_write`.
    """
    if not path.exists():
        raise replaced(path)
    db = open_to_write(path, create=False)
    if db.identity != identity:
        db.close()
        raise replaced(path)
    return db


def _check_sqlite() -> None:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise LedgerError(
            f"SQLite {sqlite3.sqlite_version} is too old",
            hint="use a Python with SQLite 3.34 or newer",
        )
