"""What the shell completes: names that begin with what was typed, in a few indexed reads of a ledger of any size."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Callable

from ws_manager.errors import LedgerError
from ws_manager.repository.sqlite.inspection import WAIT_SECONDS
from ws_manager.repository.sqlite.reading import look_into

MOST = 100
"""The most names to offer: nobody reads more."""

_LOOKED_AT = 5000
_LOOKED_INTO = 1000
_BEHIND_ALL = "\U0010ffff"


def complete(path: Path, kind: str, prefix: str) -> list[str]:
    """Return names of a kind that begin with a prefix; see `ws_manager.repository.store.Engine.complete`.

    Raises:
        LedgerError: the file cannot be read, or is not a ledger.
    """
    try:
        return look_into(path, lambda db: _KINDS[kind](db, prefix), WAIT_SECONDS)
    except (sqlite3.Error, OSError) as error:
        raise LedgerError(f"{path} cannot be read: {error}") from error


def _ws_ids(db: sqlite3.Connection, prefix: str, *, active: bool) -> list[str]:
    """Return connections, only the active ones or all; in the order of their names."""
    return _names(
        db,
        "SELECT ws_id FROM (SELECT ws_id, status FROM connections WHERE ws_id >= ? AND ws_id < ?"
        f" ORDER BY ws_id LIMIT {_LOOKED_AT}) {'WHERE status = ?' if active else ''} LIMIT {MOST}",
        (prefix, prefix + _BEHIND_ALL, *(["active"] if active else [])),
    )


def _agents(db: sqlite3.Connection, prefix: str) -> list[str]:
    """Return agents, each once; a step in the index for each, however many connections it has."""
    following = "SELECT min(agent) FROM connections WHERE agent >= ? AND agent < ?"
    return _names(
        db,
        f"WITH RECURSIVE found (agent) AS ({following} UNION ALL"
        " SELECT (SELECT min(agent) FROM connections WHERE agent > found.agent AND agent < ?)"
        f" FROM found WHERE found.agent IS NOT NULL LIMIT {MOST})"
        " SELECT agent FROM found WHERE agent IS NOT NULL",
        (prefix, prefix + _BEHIND_ALL, prefix + _BEHIND_ALL),
    )


def _metadata(db: sqlite3.Connection, _prefix: str) -> list[str]:
    """Return the metadata of active connections as JSON text, each text once. Only the first connections are read."""
    return _names(
        db,
        "SELECT DISTINCT metadata FROM"
        f" (SELECT metadata FROM connections WHERE status = 'active' LIMIT {_LOOKED_INTO})",
        (),
    )


def _msg_ids(db: sqlite3.Connection, prefix: str) -> list[str]:
    """Return messages: the newest if nothing was typed yet."""
    return _ids(db, "messages", "msg_id", prefix)


def _broadcast_ids(db: sqlite3.Connection, prefix: str) -> list[str]:
    """Return broadcasts: the newest if nothing was typed yet."""
    return _ids(db, "broadcasts", "broadcast_id", prefix)


def _ids(db: sqlite3.Connection, table: str, column: str, prefix: str) -> list[str]:
    if not prefix:
        return _names(db, f"SELECT {column} FROM {table} ORDER BY rowid DESC LIMIT 20", ())
    return _names(
        db,
        f"SELECT {column} FROM {table} WHERE {column} >= ? AND {column} < ? ORDER BY {column} LIMIT {MOST}",
        (prefix, prefix + _BEHIND_ALL),
    )


def _names(db: sqlite3.Connection, sql: str, parameters: tuple[str, ...]) -> list[str]:
    return [str(row[0]) for row in db.execute(sql, parameters)]


_KINDS: dict[str, Callable[[sqlite3.Connection, str], list[str]]] = {
    "agent": _agents,
    "ws_id": lambda db, prefix: _ws_ids(db, prefix, active=False),
    "active ws_id": lambda db, prefix: _ws_ids(db, prefix, active=True),
    "msg_id": _msg_ids,
    "broadcast_id": _broadcast_ids,
    "metadata": _metadata,
}
