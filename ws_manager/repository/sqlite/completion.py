"""What completion offers: names that begin with what was typed, in a few indexed reads of any size of ledger."""

from __future__ import annotations

import sqlite3

MOST = 100
"""Names that are offered at most: nobody reads more."""

_LOOKED_AT = 5000
_LOOKED_INTO = 1000
_BEHIND_ALL = "\U0010ffff"


def ws_ids(db: sqlite3.Connection, prefix: str, *, active: bool) -> list[str]:
    """Return connections, only the active ones or all; in the order of their names."""
    return _names(
        db,
        "SELECT ws_id FROM (SELECT ws_id, status FROM connections WHERE ws_id >= ? AND ws_id < ?"
        f" ORDER BY ws_id LIMIT {_LOOKED_AT}) {'WHERE status = ?' if active else ''} LIMIT {MOST}",
        (prefix, prefix + _BEHIND_ALL, *(["active"] if active else [])),
    )


def agents(db: sqlite3.Connection, prefix: str) -> list[str]:
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


def metadata(db: sqlite3.Connection) -> list[str]:
    """Return the metadata of active connections as JSON text, each once: of so many as can be read at once."""
    return _names(
        db,
        "SELECT DISTINCT metadata FROM"
        f" (SELECT metadata FROM connections WHERE status = 'active' LIMIT {_LOOKED_INTO})",
        (),
    )


def msg_ids(db: sqlite3.Connection, prefix: str) -> list[str]:
    """Return messages: the newest where nothing was typed yet."""
    return _ids(db, "messages", "msg_id", prefix)


def broadcast_ids(db: sqlite3.Connection, prefix: str) -> list[str]:
    """Return broadcasts: the newest where nothing was typed yet."""
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
