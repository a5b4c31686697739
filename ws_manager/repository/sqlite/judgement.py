"""What a database file is: a ledger of which version, nothing yet, or another program's.

Its tables and columns decide. Any program may set `PRAGMA user_version`, so it can only say that a ledger is
of a newer ws-manager, or that a part of one has gone. In a file that is shared with another program it is that
program's, and the table `ws_manager_schema` holds our version.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ws_manager.errors import LedgerError
from ws_manager.remedies import CHECK_LOCATION, SHARE_FILE

EMPTY, LEDGER, NEWER, DAMAGED, FOREIGN = "empty", "ledger", "newer", "damaged", "foreign"

SHARED_VERSION = "ws_manager_schema"
"""The table with our version in a file whose `user_version` is another program's."""

MARK = ("connections", "epoch")
"""A table and a column that all our versions have, and the earlier implementation did not."""

Columns = Mapping[str, set[str]]


class Judgement(NamedTuple):
    """What a file is.

    Attributes:
        kind: one of the words above.
        version: of the schema that its tables and columns make; 0 for the earlier implementation's, and for no
            ledger.
        claimed: the version that it says it has.
        user_version: `PRAGMA user_version`.
        separate: whether the version is in a table of its own.
        missing: of a ledger: the tables of the claimed version that are not there or lack columns.
        conflicts: of another program's file: its tables that bear names of ours.
    """

    kind: str
    version: int = 0
    claimed: int = 0
    user_version: int = 0
    separate: bool = False
    missing: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()

    def check(self, path: Path, known: int, *, shared: bool = False) -> None:
        """Refuse a file that is not to be used as a ledger.

        Args:
            path: its name.
            known: the newest version that this program knows.
            shared: let a file pass that is another program's, and has no tables with names of ours.

        Raises:
            LedgerError: it is refused.
        """
        if self.kind == NEWER:
            raise LedgerError(
                f"{path} was written by a newer ws-manager (schema {self.claimed}; this one knows {known})",
                hint="upgrade ws-manager",
            )
        if self.kind == DAMAGED:
            raise LedgerError(
                f"{path} is not a ledger any more: of its tables, {', '.join(self.missing)} is missing or changed",
                hint="restore a backup",
            )
        if self.kind != FOREIGN:
            return
        if self.conflicts:
            raise LedgerError(
                f"{path} is not a ledger: the table {self.conflicts[0]} in this file is not ours",
                remedy=CHECK_LOCATION,
            )
        if not shared:
            raise LedgerError(
                f"{path} is not a ledger: it is a database of another program",
                remedy=SHARE_FILE,
            )


def judge(db: sqlite3.Connection, versions: Mapping[int, Columns], earlier: Columns) -> Judgement:
    """Say what the open file is.

    Args:
        db: a connection to it.
        versions: the tables and columns that each version needs beside those of the one before, in order.
        earlier: the tables and columns of the earlier implementation. The first of them makes a file its own.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    known = max(versions)
    ours = {table for needed in versions.values() for table in needed} | {SHARED_VERSION}
    columns: dict[str, set[str]] = {}
    for table, column in db.execute(
        "SELECT lower(t.name), lower(c.name) FROM sqlite_master AS t, pragma_table_info(t.name) AS c"
        f" WHERE t.type = 'table' AND lower(t.name) IN ({', '.join('?' * len(ours))})",
        sorted(ours),
    ):
        columns.setdefault(table, set()).add(column)
    user_version = claimed = int(db.execute("PRAGMA user_version").fetchone()[0])
    separate = "version" in columns.get(SHARED_VERSION, ())
    if separate:
        row = db.execute(f"SELECT max(version) FROM {SHARED_VERSION}").fetchone()
        claimed = row[0] if isinstance(row[0], int) else 0
    found = Judgement(EMPTY, claimed=claimed, user_version=user_version, separate=separate)

    table, column = MARK
    if column in columns.get(table, ()):
        if claimed > known:
            return found._replace(kind=NEWER, version=known)
        version = _version(columns, versions)
        if version >= max(claimed, min(versions)):
            return found._replace(kind=LEDGER, version=version)
        lacking = _lacking(columns, versions, claimed)
        return found._replace(kind=DAMAGED, version=version, missing=lacking)

    strange = tuple(
        name for name, needed in earlier.items() if name in columns and not needed <= columns[name]
    )
    if next(iter(earlier)) in columns and not strange:
        return found._replace(kind=LEDGER)
    if not claimed and not _has_anything(db):
        return found
    conflicts = strange or tuple(sorted(columns.keys() - {SHARED_VERSION}))
    return found._replace(kind=FOREIGN, conflicts=conflicts)


def _version(columns: Columns, versions: Mapping[int, Columns]) -> int:
    """Return the newest version whose tables and columns, and those of all versions before it, exist; 0 for none."""
    reached = 0
    for number, needed in versions.items():
        if any(not names <= columns.get(table, set()) for table, names in needed.items()):
            break
        reached = number
    return reached


def _lacking(columns: Columns, versions: Mapping[int, Columns], claimed: int) -> tuple[str, ...]:
    return tuple(
        table
        for number, needed in versions.items()
        if number <= max(claimed, min(versions))
        for table, names in needed.items()
        if not names <= columns.get(table, set())
    )


def _has_anything(db: sqlite3.Connection) -> bool:
    """Return whether another program has left anything in the file: an object, or its id."""
    return bool(
        db.execute("SELECT EXISTS (SELECT 1 FROM sqlite_master)").fetchone()[0]
        or db.execute("PRAGMA application_id").fetchone()[0]
    )
