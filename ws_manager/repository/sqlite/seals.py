"""The seal of a ledger: triggers that refuse every write, of any process and program that has the file open."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from typing import Optional

from ws_manager.repository.copied import Seal, seal_in
from ws_manager.repository.sqlite.schema import VERSIONS

_PREFIX = "ws_manager_seal"
_TABLES = tuple(dict.fromkeys(table for tables in VERSIONS.values() for table in tables))
_WRITES = ("INSERT", "UPDATE", "DELETE")
_SAYS = re.compile(r"RAISE\(ABORT, '((?:[^']|'')*)'\)")


def seal_of(db: sqlite3.Connection) -> Optional[Seal]:
    """Return the seal of a ledger, or None."""
    row = db.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = ?", (_name(_TABLES[0], _WRITES[0]),)
    ).fetchone()
    found = None if row is None else _SAYS.search(row[0])
    return None if found is None else seal_in(found[1].replace("''", "'"))


def put_on(db: sqlite3.Connection, seal: Seal, tables: Iterable[str] = _TABLES) -> None:
    """Seal tables that have no seal. It must be inside a transaction: then nobody writes meanwhile."""
    text = seal.text.replace("'", "''")
    for table in tables:
        for write in _WRITES:
            db.execute(
                f"CREATE TRIGGER {_name(table, write)} BEFORE {write} ON {table}"
                f" BEGIN SELECT RAISE(ABORT, '{text}'); END"
            )


def take_off(db: sqlite3.Connection, tables: Iterable[str] = _TABLES) -> None:
    """Take the seal off tables. It must be inside a transaction."""
    for table in tables:
        for write in _WRITES:
            db.execute(f"DROP TRIGGER IF EXISTS {_name(table, write)}")


def _name(table: str, write: str) -> str:
    return f"{_PREFIX}_{table}_{write.lower()}"
