"""Statements that go over whole tables: pruning, export and import."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ws_manager.errors import InvalidInput
from ws_manager.repository.copied import seal_in
from ws_manager.repository.findings import TABLES, RowRefused, TableColumns
from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.sqlite.messages import set_aside_beyond_limits
from ws_manager.repository.sqlite.migrations import note_broadcasts
from ws_manager.repository.sqlite.schema import VERSION, columns_since

if TYPE_CHECKING:
    import sqlite_utils

SEQUENCES = "sqlite_sequence"
"""SQLite's own table of the highest ids that were given out, by table."""

_CHUNK = 5000
_OVER = "delivered = 1 AND rejected_at IS NULL AND coalesce(confirmed_at, sent_at) < :cutoff"


def _none_left(which: str) -> str:
    """Return SQL that is true if pruning leaves no message that meets a condition."""
    return f"NOT EXISTS (SELECT 1 FROM messages WHERE {which} AND NOT ({_OVER}))"


_OF_BROADCAST = (
    "messages.id BETWEEN broadcasts.first_id AND broadcasts.last_id"
    " AND messages.broadcast_id = broadcasts.broadcast_id"
)

NAMES_BROADCASTS = 5
"""From this version of the schema on each message names its broadcast."""

WEBHOOK_DAYS = 30
"""Days that webhook events stay at least: until then their sender may send them again."""

PRUNED = {
    "receipts": "ts < :cutoff",
    "messages": _OVER,
    "heartbeat_log": "ts < :cutoff",
    "events": "ts < :cutoff",
    "broadcasts": f"sent_at < :cutoff AND {_none_left(_OF_BROADCAST)}",
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
        self._version = VERSION

    def count_over(self, table: str, cutoff: str) -> int:
        with self._db.translated():
            return int(self._tables()[table].count_where(PRUNED[table], {"cutoff": cutoff}))

    def delete_over(self, table: str, cutoff: str) -> int:
        # They are looked for without the write lock, so that others can write meanwhile, and judged again under it.
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

    def trim(self, log: str, since: str, until: str) -> int:
        deleted, over = 0, "ts NOT BETWEEN :since AND :until"
        while True:
            # Without the write lock first: as a rule there is nothing to delete.
            found = self._db.rows(
                f"SELECT rowid, {over} FROM {log} ORDER BY rowid LIMIT 1",
                {"since": since, "until": until},
            )
            if not found or not found[0][1]:
                return deleted
            first = found[0][0]
            with self._db.transaction():
                deleted += self._db.execute(
                    f"DELETE FROM {log} WHERE rowid BETWEEN :first AND :last AND {over}",
                    {"first": first, "last": first + _CHUNK - 1, "since": since, "until": until},
                ).rowcount

    def vacuum(self) -> None:
        with self._db.translated():
            self._db.execute("VACUUM")
        self._db.checkpoint()

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        names = ", ".join(f"'{name}'" for name in TABLES)
        for table in (*TABLES, SEQUENCES):
            # Others may keep tables of their own in the file.
            ours = f"name IN ({names})" if table == SEQUENCES else None
            with self._db.translated():
                for row in self._tables()[table].rows_where(ours, order_by="rowid"):
                    yield table, row
        if self._db.frozen is not None:
            self._db.check_file()

    def columns(self, version: int) -> dict[str, TableColumns]:
        if not 1 <= version <= VERSION:
            raise InvalidInput(
                f"the export has schema {version}, and this ws-manager knows {VERSION}",
                hint="upgrade ws-manager",
            )
        self._version = version
        found = {}
        with self._db.translated():
            for table in (*TABLES, SEQUENCES):
                names = list(self._tables()[table].columns_dict)
                later = columns_since(version, table)
                found[table] = TableColumns(frozenset(names) - later, frozenset(later))
        return found

    def is_empty(self) -> bool:
        # Tables that are empty now, but were not always, have left a number in the sequences.
        return next(self.rows(), None) is None

    def insert(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        for index, row in enumerate(rows):
            try:
                self._insert(table, row)
            except InvalidInput as error:
                raise RowRefused(error.message, index) from None

    def _insert(self, table: str, row: dict[str, Any]) -> None:
        # Not with sqlite-utils: its `insert` commits.
        try:
            if table == SEQUENCES:
                if row["name"] not in TABLES or not isinstance(row["seq"], int):
                    raise InvalidInput("it is not the highest id of a table of this version")
                self._db.execute(f"DELETE FROM {SEQUENCES} WHERE name = ?", (row["name"],))
            self._db.execute(
                f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
                list(row.values()),
            )
        except (
            sqlite3.IntegrityError,
            sqlite3.InterfaceError,
            sqlite3.ProgrammingError,
            OverflowError,
            UnicodeEncodeError,
        ) as error:
            seal = seal_in(str(error))
            if seal is not None:
                raise seal.error(str(self._db.path)) from None
            raise InvalidInput(str(error)) from None

    def complete_import(self, at: str) -> None:
        # PostgreSQL lets many write at once: there, other messages may lie between a broadcast's first and last.
        if self._version < NAMES_BROADCASTS:
            note_broadcasts(self._db)
        set_aside_beyond_limits(self._db, at)

    def _tables(self) -> sqlite_utils.Database:
        # Imported here: it costs as much as all else that a command loads.
        from sqlite_utils import Database as Tables

        self._db.check_process()
        return Tables(self._db, recursive_triggers=False)
