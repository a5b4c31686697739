"""Names in a unique column, by their beginnings and ends."""

from __future__ import annotations

from ws_manager.repository.postgres.database import Database


def names_between(db: Database, table: str, column: str, first: str, end: str, limit: int) -> list[str]:
    """Return the names from one to another, which is left out, in their order."""
    rows = db.rows(
        f"SELECT {column} FROM {table} WHERE {column} >= %s AND {column} < %s ORDER BY {column} LIMIT %s",
        (first, end, limit),
    )
    return [str(row[0]) for row in rows]


def names_ending(db: Database, table: str, column: str, part: str, limit: int) -> list[str]:
    """Return names that end with a text. The whole index is read."""
    # Not LIKE: `%` and `_` may be in a name.
    rows = db.rows(
        f"SELECT {column} FROM {table} WHERE right({column}, %s) = %s ORDER BY {column} LIMIT %s",
        (len(part), part, limit),
    )
    return [str(row[0]) for row in rows]
