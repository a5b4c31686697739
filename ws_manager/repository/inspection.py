"""Looking at a database file without changing it: nothing is created, migrated, or waited for.

For `doctor`, which has to work on any file, and for completion, which must never be in the way.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple, Optional
from urllib.parse import quote

from ws_manager.models import Gateway
from ws_manager.repository.schema import EARLIER, TABLES

_WAIT_SECONDS = 0.2


class Inspection(NamedTuple):
    """What a file says about itself.

    Attributes:
        version: `PRAGMA user_version`.
        missing: tables of ours that it has not.
        foreign: tables that bear a name of ours, and lack columns that even the earlier implementation's had.
        quick_check: what `PRAGMA quick_check` has found, at most ten lines; empty for nothing.
        gateway: the gateway that started last, where one is recorded.
    """

    version: int
    missing: list[str]
    foreign: list[str]
    quick_check: list[str]
    gateway: Optional[Gateway]


def open_read_only(path: Path) -> sqlite3.Connection:
    """Open a database file for reading alone.

    Nobody has the file open while it has no log beside it: it is then read as it stands, because a reader
    that takes part would create the log.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    logged = any(Path(f"{path}{suffix}").exists() for suffix in ("-wal", "-journal"))
    return sqlite3.connect(
        f"file:{quote(str(path))}?{'mode=ro' if logged else 'mode=ro&immutable=1'}",
        uri=True,
        timeout=_WAIT_SECONDS,
        isolation_level=None,
    )


def inspect(path: Path) -> Inspection:
    """Read what a file says about itself.

    Raises:
        sqlite3.Error: it is no database, cannot be opened, or is damaged beyond reading.
    """
    db = open_read_only(path)
    try:
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        present = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        found = [str(row[0]) for row in db.execute("PRAGMA quick_check(10)") if row[0] != "ok"]
        foreign = [
            name
            for name, columns in EARLIER.items()
            if name in present
            and not columns
            <= {row[0] for row in db.execute("SELECT name FROM pragma_table_info(?)", (name,))}
        ]
        gateway = None
        if "gateways" in present and not found:
            row = db.execute(
                "SELECT id, pid, url, started_at, seen_at FROM gateways ORDER BY rowid DESC LIMIT 1"
            ).fetchone()
            gateway = None if row is None else Gateway(*row)
    finally:
        db.close()
    return Inspection(version, [name for name in TABLES if name not in present], foreign, found, gateway)
