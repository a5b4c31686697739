"""A ledger's rows as a copy takes them over: see `ws_manager.repository.views.Copying`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Optional

import psycopg

from ws_manager.errors import InvalidInput, LedgerError
from ws_manager.repository.copied import (
    COPIED,
    NUMBERED,
    CopiedTable,
    Counters,
    Seal,
    Values,
)
from ws_manager.repository.postgres import seals
from ws_manager.repository.postgres.database import Database
from ws_manager.repository.ranges import ranges_of, seqs_of

# SQLite finds the messages of a broadcast between these, and here nobody writes them.
_OF_BROADCAST = "(SELECT {}(m.id) FROM messages AS m WHERE m.broadcast_id = broadcasts.broadcast_id)"
_READ = {
    "first_id": f"coalesce(first_id, {_OF_BROADCAST.format('min')})",
    "last_id": f"coalesce(last_id, {_OF_BROADCAST.format('max')})",
    "ranges": "seqs",
}
_WRITTEN = {"ranges": "seqs"}
_NUMBERS = frozenset({"id", "number", "seq"})
_LINE = re.compile(r"COPY \w+, line (\d+)(?:, column (\w+))?")


class Copying:
    """Statements of a copy."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def page(self, table: CopiedTable, after: Optional[Values], limit: int, characters: int) -> list[Values]:
        key, columns = ", ".join(table.key), ", ".join(table.columns)
        behind = "" if after is None else f"WHERE ({key}) > ({', '.join(['%s'] * len(table.key))})"
        read = ", ".join(f"{_READ[name]} AS {name}" if name in _READ else name for name in table.columns)
        next_rows = f"FROM {table.name} {behind} ORDER BY {key} LIMIT %s"
        if table.large is None:
            return self._db.rows(f"SELECT {read} {next_rows}", (*(after or ()), limit))
        size = "8 * cardinality(seqs)" if table.large == "ranges" else f"coalesce(length({table.large}), 0)"
        rows = self._db.rows(
            f"WITH next AS (SELECT {read}, {size} AS size {next_rows}), summed AS"
            f" (SELECT *, sum(size) OVER (ORDER BY {key} ROWS UNBOUNDED PRECEDING) AS total FROM next)"
            f" SELECT {columns} FROM summed WHERE total - size <= %s ORDER BY {key}",
            (*(after or ()), limit, characters),
        )
        if table.large == "ranges":
            place = table.columns.index("ranges")
            return [(*row[:place], ranges_of(row[place])) for row in rows]
        return rows

    def write(self, table: CopiedTable, gone: Sequence[Values], rows: Sequence[Values]) -> None:
        with self._db.transaction():
            self._db.execute("SELECT set_config(%s, 'yes', true)", (seals.COPIES,))
            if seals.seal_of(self._db) is None:
                raise LedgerError(
                    f"{self._db.location} is no unfinished copy any more",
                    hint="another process has finished it",
                )
            if gone:
                arrays = ", ".join(f"%s::{'bigint' if name in _NUMBERS else 'text'}[]" for name in table.key)
                same = " AND ".join(f"{table.name}.{name} = gone.{name}" for name in table.key)
                self._db.execute(
                    f"DELETE FROM {table.name} USING unnest({arrays}) AS gone ({', '.join(table.key)})"
                    f" WHERE {same}",
                    [list(values) for values in zip(*gone)],
                )
            if rows and table.unique is not None:
                place = table.columns.index(table.unique)
                self._db.execute(
                    f"DELETE FROM {table.name} WHERE {table.unique} = ANY(%s)",
                    ([row[place] for row in rows],),
                )
            if rows:
                self._copy(table, rows)

    def _copy(self, table: CopiedTable, rows: Sequence[Values]) -> None:
        columns = [_WRITTEN.get(name, name) for name in table.columns]
        try:
            self._db.copy(table.name, columns, _as_written(table, rows))
        except (InvalidInput, psycopg.DataError, psycopg.IntegrityError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, psycopg.Error) else error
            row, why = _refused(table, rows, cause)
            raise LedgerError(
                f"a row cannot be copied to {self._db.location} ({table.described(row)}): {why}",
                hint="correct it in the source, or delete it there, and run the copy again",
            ) from None

    def counters(self) -> Counters:
        found = {
            table: int(self._db.value(f"SELECT pg_sequence_last_value({_sequence(table, 'id')})") or 0)
            for table in NUMBERED
        }
        connected = self._db.value(
            "SELECT (SELECT count(*) FROM connections) + (SELECT number FROM deleted_connections)"
        )
        return Counters(found, int(connected))

    def finish(self, counters: Counters) -> None:
        with self._db.transaction():
            self._db.execute("SELECT set_config(%s, 'yes', true)", (seals.COPIES,))
            for table, highest in counters.highest.items():
                self._go_on(table, "id", highest)
            for each in COPIED:
                if each.key == ("number",):
                    self._go_on(each.name, "number", 0)
            self._db.execute(
                "UPDATE deleted_connections SET number = greatest(%s - (SELECT count(*) FROM connections), 0)",
                (counters.connected,),
            )
            self._db.execute(f"ANALYZE {', '.join(each.name for each in COPIED)}")
            seals.take_off(self._db)

    def _go_on(self, table: str, column: str, highest: int) -> None:
        """Let the numbers of a column go on above all that were given out."""
        # It stays so even if the transaction is rolled back, and only ever rises.
        sequence = _sequence(table, column)
        self._db.execute(
            f"SELECT setval({sequence}, highest) FROM (SELECT greatest(%s, (SELECT max({column}) FROM {table}),"
            f" pg_sequence_last_value({sequence}), 0) AS highest) AS found WHERE highest > 0",
            (highest,),
        )

    def seal(self) -> Optional[Seal]:
        return seals.seal_of(self._db)

    def put_seal(self, seal: Seal) -> None:
        seals.put_on(self._db, seal)

    def take_seal(self) -> None:
        seals.take_off(self._db)


def _sequence(table: str, column: str) -> str:
    return f"pg_get_serial_sequence('{table}', '{column}')::regclass"


def _as_written(table: CopiedTable, rows: Sequence[Values]) -> Iterator[Values]:
    if table.large != "ranges":
        yield from rows
        return
    place = table.columns.index("ranges")
    for row in rows:
        yield (*row[:place], list(seqs_of(row[place])))


def _refused(table: CopiedTable, rows: Sequence[Values], error: Exception) -> tuple[Values, str]:
    """Return the row that PostgreSQL has refused, and why; without its values."""
    if isinstance(error, psycopg.Error):
        where = _LINE.search(error.diag.context or "")
        if where is not None:
            row, column = rows[int(where[1]) - 1], where[2]
            return row, f"its {column} is not one of this column's values" if column else "it is not unique"
        return rows[0], "or one of those behind it: " + (error.diag.message_primary or type(error).__name__)
    for row in rows:
        for name, value in zip(table.columns, row):
            if isinstance(value, str) and "\0" in value:
                return row, f"its {name} has a NUL character, which PostgreSQL cannot hold"
    return rows[0], f"or one of those behind it: {error}"
