"""Statements that go over whole tables: pruning, export and import."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ws_manager.repository.database import Database

_CHUNK = 5000
_GONE = "NOT EXISTS (SELECT 1 FROM messages WHERE recipient_id = ws_id)"
_SENT_NONE = "NOT EXISTS (SELECT 1 FROM messages WHERE sender_id = ws_id)"

PRUNED = {
    "messages": "delivered = 1 AND coalesce(confirmed_at, sent_at) < ?",
    "heartbeat_log": "ts < ?",
    "events": "ts < ?",
    "broadcasts": "sent_at < ? AND NOT EXISTS"
    " (SELECT 1 FROM messages WHERE messages.id BETWEEN first_id AND last_id)",
    "connections": f"status = 'disconnected' AND disconnected_at < ? AND {_GONE} AND {_SENT_NONE}",
}
"""What of each table is over, given a time; in the order in which it has to go."""


class Maintenance:
    """Statements over whole tables of one ledger."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def count_over(self, table: str, cutoff: str) -> int:
        """Return how many rows of a table in `PRUNED` are over since before a time."""
        return int(self._db.value(f"SELECT count(*) FROM {table} WHERE {PRUNED[table]}", (cutoff,)))

    def delete_over(self, table: str, cutoff: str) -> int:
        """Delete them, so many at a time, and return how many they were."""
        deleted = 0
        while True:
            with self._db.transaction():
                count = self._db.execute(
                    f"DELETE FROM {table} WHERE rowid IN"
                    f" (SELECT rowid FROM {table} WHERE {PRUNED[table]} LIMIT {_CHUNK})",
                    (cutoff,),
                ).rowcount
            deleted += count
            if count < _CHUNK:
                return deleted

    def vacuum(self) -> None:
        """Give the room of what was deleted back to the file system."""
        with self._db.translated():
            self._db.execute("VACUUM")
        self._db.checkpoint()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read one state of the ledger throughout the block."""
        with self._db.translated():
            self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("ROLLBACK")

    def tables(self) -> list[str]:
        """Return the names of the ledger's tables."""
        return [
            row[0]
            for row in self._db.rows(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
            )
        ]

    def columns(self, table: str) -> list[str]:
        """Return the names of a table's columns."""
        return [row[0] for row in self._db.rows("SELECT name FROM pragma_table_info(?)", (table,))]

    def rows(self, table: str) -> Iterator[dict[str, Any]]:
        """Give the rows of a table as dicts, in the order of their rowids."""
        columns = self.columns(table)
        for row in self._db.stream(f"SELECT {', '.join(columns)} FROM {table} ORDER BY rowid"):
            yield dict(zip(columns, row))

    def is_empty(self) -> bool:
        """Say whether no table has a row."""
        return not any(self._db.value(f"SELECT EXISTS (SELECT 1 FROM {table})") for table in self.tables())

    def insert(self, table: str, columns: list[str], row: dict[str, Any]) -> None:
        """Write one row as it is; a sequence replaces what the rows have left there."""
        if table == "sqlite_sequence":
            self._db.execute("DELETE FROM sqlite_sequence WHERE name = ?", (row["name"],))
        self._db.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
            [row[column] for column in columns],
        )
