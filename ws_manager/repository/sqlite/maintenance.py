"""Statements that go over whole tables: pruning, export and import."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

from ws_manager.errors import InvalidInput
from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.sqlite.schema import TABLES

SEQUENCES = "sqlite_sequence"
"""SQLite's own table of the highest ids that were given out, by table."""

_CHUNK = 5000
_OVER = "delivered = 1 AND rejected_at IS NULL AND coalesce(confirmed_at, sent_at) < :cutoff"


def _none_left(which: str) -> str:
    """Say that no message stays that fulfils a condition."""
    return f"NOT EXISTS (SELECT 1 FROM messages WHERE {which} AND NOT ({_OVER}))"


WEBHOOK_DAYS = 30
"""Events of webhooks stay at least so long: until then whoever sent one may send it again."""

PRUNED = {
    "messages": _OVER,
    "heartbeat_log": "ts < :cutoff",
    "events": "ts < :cutoff",
    "broadcasts": f"sent_at < :cutoff AND {_none_left('messages.id BETWEEN first_id AND last_id')}",
    "webhook_events": "status = 'routed' AND received_at < :cutoff AND received_at <"
    f" strftime('%Y-%m-%dT%H:%M:%f', 'now', '-{WEBHOOK_DAYS} days')",
    "connections": "status = 'disconnected' AND disconnected_at < :cutoff"
    f" AND {_none_left('recipient_id = ws_id')} AND {_none_left('sender_id = ws_id')}",
}
"""What of each table is over, given a time; in the order in which it has to go."""


class Maintenance:
    """Statements over whole tables of one ledger."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def count_over(self, table: str, cutoff: str) -> int:
        """Return how many rows of a table in `PRUNED` are over since before a time."""
        row = self._db.rows(f"SELECT count(*) FROM {table} WHERE {PRUNED[table]}", {"cutoff": cutoff})
        return int(row[0][0])

    def delete_over(self, table: str, cutoff: str) -> int:
        """Delete them, so many at a time, and return how many they were.

        They are looked for without the write lock, so that others can write meanwhile, and judged again under it.
        """
        deleted, last = 0, -1
        while True:
            found = [
                row[0]
                for row in self._db.rows(
                    f"SELECT rowid FROM {table} WHERE rowid > :last AND {PRUNED[table]}"
                    f" ORDER BY rowid LIMIT {_CHUNK}",
                    {"cutoff": cutoff, "last": last},
                )
            ]
            if not found:
                return deleted
            with self._db.transaction():
                deleted += self._db.execute(
                    f"DELETE FROM {table} WHERE rowid BETWEEN :first AND :last AND {PRUNED[table]}",
                    {"cutoff": cutoff, "first": found[0], "last": found[-1]},
                ).rowcount
            last = found[-1]

    def trim_heartbeat_log(self, since: str, until: str) -> int:
        """Delete rows of the heartbeat log, from its first to the first between two times; return how many.

        That is done in chunks.
        """
        deleted, over = 0, "ts NOT BETWEEN :since AND :until"
        while True:
            # Without the write lock first: as a rule there is nothing to delete.
            found = self._db.rows(
                f"SELECT rowid, {over} FROM heartbeat_log ORDER BY rowid LIMIT 1",
                {"since": since, "until": until},
            )
            if not found or not found[0][1]:
                return deleted
            first = found[0][0]
            with self._db.transaction():
                deleted += self._db.execute(
                    f"DELETE FROM heartbeat_log WHERE rowid BETWEEN :first AND :last AND {over}",
                    {"first": first, "last": first + _CHUNK - 1, "since": since, "until": until},
                ).rowcount

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

    def columns(self, table: str) -> list[str]:
        """Return the names of a table's columns."""
        return [row[0] for row in self._db.rows("SELECT name FROM pragma_table_info(?)", (table,))]

    def rows(self, table: str) -> Iterator[dict[str, Any]]:
        """Give the rows of a table as dicts, in the order of their rowids; of `SEQUENCES`, those of our tables."""
        columns = self.columns(table)
        names = ", ".join(f"'{name}'" for name in TABLES)
        ours = f" WHERE name IN ({names})" if table == SEQUENCES else ""
        for row in self._db.stream(f"SELECT {', '.join(columns)} FROM {table}{ours} ORDER BY rowid"):
            yield dict(zip(columns, row))

    def is_empty(self) -> bool:
        """Say whether no table of ours has, or ever had, a row."""
        return not any(True for table in (*TABLES, SEQUENCES) for _ in self.rows(table))

    def insert(self, table: str, columns: list[str], row: dict[str, Any]) -> None:
        """Write one row as it is; a sequence replaces what the rows have left there.

        Raises:
            InvalidInput: the table cannot take the row: one like it is there already, or a value is missing.
        """
        try:
            if table == SEQUENCES:
                self._db.execute(f"DELETE FROM {SEQUENCES} WHERE name = ?", (row["name"],))
            self._db.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
                [row[column] for column in columns],
            )
        except (
            sqlite3.IntegrityError,
            sqlite3.InterfaceError,
            sqlite3.ProgrammingError,
            OverflowError,
            UnicodeEncodeError,
        ) as error:
            raise InvalidInput(str(error)) from None
