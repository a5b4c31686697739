"""A ledger's rows as a copy takes them over: see `ws_manager.repository.views.Copying`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Optional

from ws_manager.errors import LedgerError
from ws_manager.repository.copied import (
    FREE_TEXTS,
    NUMBERED,
    CopiedTable,
    Counters,
    Seal,
    Values,
)
from ws_manager.repository.ranges import ranges_of, seqs_of
from ws_manager.repository.sqlite import seals
from ws_manager.repository.sqlite.database import Database

# The names of this engine, and what the earlier implementation wrote otherwise: fractions of milliseconds.
_READ = {"number": "rowid", "latency_ms": "CAST(round(latency_ms) AS INTEGER)"}
_WRITTEN = {"number": "rowid"}


class Copying:
    """Statements of a copy."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def page(self, table: CopiedTable, after: Optional[Values], limit: int, characters: int) -> list[Values]:
        key = ", ".join(table.key)
        columns = ", ".join(f"{_READ[name]} AS {name}" if name in _READ else name for name in table.columns)
        behind = ""
        if after is not None:
            names = ", ".join(_READ.get(name, name) for name in table.key)
            behind = f"WHERE ({names}) > ({', '.join('?' * len(table.key))})"
        next_rows = f"FROM {table.name} {behind} ORDER BY {key} LIMIT ?"
        if table.large is None:
            rows = self._db.rows(f"SELECT {columns} {next_rows}", (*(after or ()), limit))
        else:
            rows = self._db.rows(
                f"WITH next AS (SELECT {columns}, coalesce(length({table.large}), 0) AS size {next_rows}), summed AS"
                f" (SELECT *, sum(size) OVER (ORDER BY {key} ROWS UNBOUNDED PRECEDING) AS total FROM next)"
                f" SELECT {', '.join(table.columns)} FROM summed WHERE total - size <= ? ORDER BY {key}",
                (*(after or ()), limit, characters),
            )
        texts = [place for place, name in enumerate(table.columns) if name in FREE_TEXTS]
        if table.large == "ranges":
            place = table.columns.index("ranges")
            return [(*row[:place], ranges_of(seqs_of(row[place]))) for row in rows]
        return [_readable(row, texts) for row in rows] if texts else rows

    def write(self, table: CopiedTable, gone: Sequence[Values], rows: Sequence[Values]) -> None:
        columns = [_WRITTEN.get(name, name) for name in table.columns]
        key = " AND ".join(f"{_WRITTEN.get(name, name)} = ?" for name in table.key)
        with self._db.transaction():
            seal = seals.seal_of(self._db)
            if seal is None:
                raise LedgerError(
                    f"{self._db.path} is no unfinished copy any more", hint="another process has finished it"
                )
            seals.take_off(self._db, [table.name])
            self._db.executemany(f"DELETE FROM {table.name} WHERE {key}", gone)
            if table.unique is not None:
                place = table.columns.index(table.unique)
                self._db.executemany(
                    f"DELETE FROM {table.name} WHERE {table.unique} = ?", [(row[place],) for row in rows]
                )
            try:
                self._db.executemany(
                    f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
                    rows,
                )
            except sqlite3.IntegrityError as error:
                raise LedgerError(
                    f"rows of {table.name} cannot be written to {self._db.path}: {error}",
                    hint="look whether another program writes to the copy",
                ) from None
            seals.put_on(self._db, seal, [table.name])

    def counters(self) -> Counters:
        return Counters(
            {table: self._db.highest_id(table) for table in NUMBERED}, self._db.highest_id("connections")
        )

    def finish(self, counters: Counters) -> None:
        with self._db.transaction():
            for table, highest in counters.highest.items():
                highest = max(highest, self._db.highest_id(table))
                self._db.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
                self._db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, highest))
            seals.take_off(self._db)

    def seal(self) -> Optional[Seal]:
        with self._db.translated():
            return seals.seal_of(self._db)

    def put_seal(self, seal: Seal) -> None:
        with self._db.transaction():
            seals.put_on(self._db, seal)

    def take_seal(self) -> None:
        with self._db.transaction():
            seals.take_off(self._db)


def _readable(row: Values, texts: Sequence[int]) -> Values:
    """Return a row without NUL in some of its texts."""
    if not any(row[place] and "\0" in row[place] for place in texts):
        return row
    return tuple(
        value.replace("\0", "\ufffd") if place in texts and value else value
        for place, value in enumerate(row)
    )
