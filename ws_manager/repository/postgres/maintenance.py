"""Statements that go over whole tables: pruning, export and import."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from ws_manager.errors import InvalidInput
from ws_manager.models import seconds_before, utc_now
from ws_manager.repository.findings import TABLES, RowRefused, TableColumns
from ws_manager.repository.postgres.database import SCHEMA, Database
from ws_manager.repository.postgres.feed import EVENTS, RECEIPTS
from ws_manager.repository.postgres.schema import VERSION
from ws_manager.strict_json import BEYOND_LIMITS, is_beyond_limits

SEQUENCES = "sqlite_sequence"
"""What an export calls the table of the highest ids that were given out, by table: SQLite has it under this name."""

WEBHOOK_DAYS = 30
"""Days that webhook events stay at least: until then their sender may send them again."""

_CHUNK = 5000
_PAGE = 200
_PENDING = "delivered = 0 AND rejected_at IS NULL"
_OVER = "delivered = 1 AND rejected_at IS NULL AND coalesce(confirmed_at, sent_at) < %(cutoff)s"


def _none_left(which: str) -> str:
    """Return SQL that is true if pruning leaves no message that meets a condition."""
    return f"NOT EXISTS (SELECT 1 FROM messages WHERE {which} AND NOT ({_OVER}))"


PRUNED = {
    "receipts": "ts < %(cutoff)s",
    "messages": _OVER,
    "heartbeat_log": "ts < %(cutoff)s",
    "events": "ts < %(cutoff)s",
    "broadcasts": f"sent_at < %(cutoff)s AND {_none_left('messages.broadcast_id = broadcasts.broadcast_id')}",
    "webhook_events": "status = 'routed' AND received_at < %(cutoff)s AND received_at < %(webhooks)s",
    "connections": "status = 'disconnected' AND disconnected_at < %(cutoff)s"
    f" AND {_none_left('recipient_id = ws_id')} AND {_none_left('sender_id = ws_id')}",
}
"""What of each table is over, given a time; in the order in which it has to go."""

_KEYS = {"broadcasts": "number", "webhook_events": "number", "gateways": "number", "asks": "seq"}
"""The column by which a table's rows are in order, where it is not `id`."""

_COLUMNS = {
    "connections": "id ws_id agent metadata connected_at last_heartbeat status message_count disconnected_at epoch"
    " confirmed_seq close_code close_reason gateway token",
    "messages": "id msg_id msg_type sender_id recipient_id content sent_at delivered confirmed_at rejected_at"
    " reject_reason retry_of refusals written_at broadcast_id traceparent wants_reply reply_to",
    "heartbeat_log": "id ws_id ts latency_ms",
    "broadcasts": "broadcast_id first_id last_id recipients msg_type sender_id sent_at traceparent",
    "events": "id ts ws_id msg_id kind detail",
    "gateways": "id pid url started_at seen_at",
    "webhook_events": "event_id event_type agent msg_type payload received_at status recipients routed_at"
    " broadcast_id reason",
    "bars": "kind name at",
    SEQUENCES: "name seq",
}
"""The columns of each table in an export of the current version: what every engine has, and nothing else."""

_ADDED = {
    2: {"messages": "written_at"},
    3: {"webhook_events": _COLUMNS["webhook_events"]},
    4: {"webhook_events": "reason"},
    5: {"messages": "broadcast_id"},
    7: {"bars": _COLUMNS["bars"], "connections": "token"},
    10: {"messages": "traceparent", "broadcasts": "traceparent"},
    11: {"messages": "wants_reply reply_to"},
}
"""The columns that versions of an export have added."""

_NAMES_BROADCASTS = 5
"""From this version on each message names its broadcast."""

_NUMBERED = ("connections", "messages", "heartbeat_log", "events")
"""The tables of an export whose ids come from a sequence."""

# SQLite finds the messages of a broadcast between these.
_OF_BROADCAST = "(SELECT {}(id) FROM messages WHERE messages.broadcast_id = broadcasts.broadcast_id)"
_EXPORTED = {
    "first_id": f"coalesce(first_id, {_OF_BROADCAST.format('min')}) AS first_id",
    "last_id": f"coalesce(last_id, {_OF_BROADCAST.format('max')}) AS last_id",
}


class Maintenance:
    """Statements over whole tables of one ledger."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._version = VERSION
        self._highest: dict[str, int] = {}

    def count_over(self, table: str, cutoff: str) -> int:
        return int(self._db.value(f"SELECT count(*) FROM {table} WHERE {PRUNED[table]}", _times(cutoff)))

    def delete_over(self, table: str, cutoff: str) -> int:
        # They are looked for without locks, so that others can write meanwhile, and judged again under them.
        key, deleted, last = _KEYS.get(table, "id"), 0, -1
        while True:
            rows = self._db.rows(
                f"SELECT {key} FROM {table} WHERE {key} > %(last)s AND {PRUNED[table]} ORDER BY {key} LIMIT {_CHUNK}",
                {**_times(cutoff), "last": last},
            )
            if not rows:
                return deleted
            keys = [row[0] for row in rows]
            with self._db.transaction():
                # What another session has just changed is judged as it is now.
                chosen = (
                    f"SELECT {key} FROM {table} WHERE {key} = ANY(%(keys)s) AND {PRUNED[table]}"
                    f" ORDER BY {key} FOR UPDATE"
                )
                deleted += self._delete(table, key, chosen, {**_times(cutoff), "keys": keys})
            last = keys[-1]

    def trim(self, log: str, since: str, until: str) -> int:
        over, deleted = "(ts < %(since)s OR ts > %(until)s)", 0
        if log == "idempotency_keys":
            key, chosen = "ctid", f"SELECT ctid FROM {log} WHERE {over}"
        else:
            key = _KEYS.get(log, "id")
            # The rows before the first that stays; those that are like it may follow among the same.
            first = f"(SELECT {key}, ts FROM {log} ORDER BY {key} LIMIT {_CHUNK}) AS found"
            chosen = (
                f"SELECT {key} FROM {log} WHERE {over} AND {key} IN (SELECT {key} FROM {first} WHERE {over})"
            )
        # What another gateway is deleting is left to it.
        chosen += f" LIMIT {_CHUNK} FOR UPDATE SKIP LOCKED"
        values: dict[str, object] = {"since": since, "until": until}
        while self._is_over(log, over, values):
            with self._db.transaction():
                some_deleted = self._delete(log, key, chosen, values)
            if not some_deleted:
                break
            deleted += some_deleted
        return deleted

    def _is_over(self, log: str, over: str, values: dict[str, object]) -> bool:
        """Return whether the first row of a log is over: as a rule it is not, and nothing is locked."""
        if log == "idempotency_keys":
            return bool(self._db.value(f"SELECT EXISTS (SELECT 1 FROM {log} WHERE {over})", values))
        key = _KEYS.get(log, "id")
        return bool(self._db.value(f"SELECT {over} FROM {log} ORDER BY {key} LIMIT 1", values))

    def _delete(self, table: str, key: str, chosen: str, values: dict[str, object]) -> int:
        """Delete rows of a table, and note the last of them where the feed has to know."""
        delete = f"DELETE FROM {table} WHERE {key} = ANY(ARRAY({chosen}))"
        if table not in (EVENTS, RECEIPTS):
            return self._db.execute(delete, values)
        return int(
            self._db.value(
                f"WITH gone AS ({delete} RETURNING tx, id), noted AS (INSERT INTO deleted (name, tx, id)"
                f" SELECT '{table}', tx, id FROM gone ORDER BY tx DESC, id DESC LIMIT 1"
                " ON CONFLICT (name) DO UPDATE SET tx = excluded.tx, id = excluded.id"
                " WHERE (deleted.tx, deleted.id) < (excluded.tx, excluded.id)) SELECT count(*) FROM gone",
                values,
            )
        )

    def vacuum(self) -> None:
        # Ours alone: others may keep theirs in the database.
        tables = self._db.rows(
            "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = %s", (SCHEMA,)
        )
        self._db.execute(f"VACUUM (ANALYZE) {', '.join(f'{SCHEMA}.{row[0]}' for row in tables)}")

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for table in TABLES:
            for row in self._rows_of(table):
                yield table, row
        for table in _NUMBERED:
            highest = self._db.value(f"SELECT pg_sequence_last_value({_sequence(table)})")
            if highest is not None:
                yield SEQUENCES, {"name": table, "seq": highest}

    def _rows_of(self, table: str) -> Iterator[dict[str, Any]]:
        names = _COLUMNS[table].split()
        columns = ", ".join(_EXPORTED.get(name, name) for name in names)
        if table == "bars":
            for row in self._db.rows(f"SELECT {columns} FROM bars ORDER BY at, kind, name"):
                yield dict(zip(names, row))
            return
        key, last = _KEYS.get(table, "id"), -1
        while True:
            found = self._db.rows(
                f"SELECT {key}, {columns} FROM {table} WHERE {key} > %s ORDER BY {key} LIMIT {_PAGE}", (last,)
            )
            for _key, *values in found:
                yield dict(zip(names, values))
            if len(found) < _PAGE:
                return
            last = found[-1][0]

    def columns(self, version: int) -> dict[str, TableColumns]:
        if not 1 <= version <= VERSION:
            raise InvalidInput(
                f"the export has schema {version}, and this ws-manager knows {VERSION}",
                hint="upgrade ws-manager",
            )
        self._version, self._highest = version, {}
        found = {}
        for table, names in _COLUMNS.items():
            later = {
                name
                for number, added in _ADDED.items()
                if number > version
                for name in added.get(table, "").split()
            }
            found[table] = TableColumns(frozenset(names.split()) - later, frozenset(later))
        return found

    def is_empty(self) -> bool:
        if self._db.locks:
            # Nobody else may write until it is over: others would come between the ids of an import. That may wait
            # for its lines.
            self._db.may_stand_still()
            tables = self._db.rows(
                "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = %s", (SCHEMA,)
            )
            self._db.execute(f"LOCK TABLE {', '.join(row[0] for row in tables)} IN SHARE ROW EXCLUSIVE MODE")
        # Tables that are empty now, but were not always, have left a number in the sequences.
        return next(self.rows(), None) is None

    def insert(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        if len(rows) > 1 and table != SEQUENCES:
            with contextlib.suppress(InvalidInput, psycopg.Error), self._db.transaction():
                # Many at once, for each statement is a way to the server and back.
                names = list(rows[0])
                self._db.copy(table, names, [[row[name] for name in names] for row in rows])
                return
        # One by one, which also tells the row that is refused.
        for index, row in enumerate(rows):
            try:
                self._insert(table, row)
            except InvalidInput as error:
                raise RowRefused(error.message, index) from None

    def _insert(self, table: str, row: dict[str, Any]) -> None:
        if table == SEQUENCES:
            name, seq = row["name"], row["seq"]
            if name not in TABLES or not isinstance(seq, int):
                raise InvalidInput("it is not the highest id of a table of this version")
            # Set at the end: a sequence that was set stays so, even if the import is rolled back.
            self._highest[name] = seq
            return
        try:
            self._db.execute(
                f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})",
                list(row.values()),
            )
        except (psycopg.IntegrityError, psycopg.DataError, psycopg.ProgrammingError) as error:
            raise InvalidInput(error.diag.message_primary or str(error)) from None

    def complete_import(self, at: str) -> None:
        if self._version < _NAMES_BROADCASTS:
            self._note_broadcasts()
        self._set_aside_beyond_limits(at)
        for table in _NUMBERED:
            # `is_called`: whether the number was given out. No table may give out one that was given out before.
            self._db.execute(
                f"SELECT setval({_sequence(table)}, greatest(highest, 1), highest > 0) FROM (SELECT greatest(%s,"
                f" (SELECT max(id) FROM {table}), pg_sequence_last_value({_sequence(table)}), 0) AS highest) AS found"
                " WHERE highest > 0",
                (self._highest.get(table, 0),),
            )
        # Those that were deleted before the export count as such: see `Connections.count_ever`.
        self._db.execute(
            "UPDATE deleted_connections SET number = greatest(number, coalesce(pg_sequence_last_value("
            f"{_sequence('connections')}), 0) - (SELECT count(*) FROM connections))"
        )
        self._version, self._highest = VERSION, {}

    def _note_broadcasts(self) -> None:
        """Write the broadcast of each message that lacks it: those between the bounds of a broadcast are its own."""
        self._db.execute(
            "UPDATE messages SET broadcast_id = broadcasts.broadcast_id FROM broadcasts"
            " WHERE messages.id BETWEEN broadcasts.first_id AND broadcasts.last_id AND messages.broadcast_id IS NULL"
        )

    def _set_aside_beyond_limits(self, at: str) -> None:
        """Set aside what is pending and exceeds the limits of `strict_json`: it was written before there were any."""
        last = -1
        while True:
            rows = self._db.rows(
                f"SELECT id, content FROM messages WHERE {_PENDING} AND id > %s ORDER BY id LIMIT {_PAGE}",
                (last,),
            )
            if not rows:
                return
            found = [row[0] for row in rows if is_beyond_limits(row[1])]
            if found:
                self._db.execute(
                    "INSERT INTO events (ts, ws_id, msg_id, kind, detail) SELECT %s, recipient_id, msg_id,"
                    " 'set_aside', %s FROM messages WHERE id = ANY(%s) ORDER BY id",
                    (at, BEYOND_LIMITS, found),
                )
                self._db.execute(
                    "UPDATE messages SET rejected_at = %s, reject_reason = %s WHERE id = ANY(%s)",
                    (at, BEYOND_LIMITS, found),
                )
            last = rows[-1][0]


def _times(cutoff: str) -> dict[str, object]:
    return {"cutoff": cutoff, "webhooks": seconds_before(utc_now(), WEBHOOK_DAYS * 86400)}


def _sequence(table: str) -> str:
    return f"pg_get_serial_sequence('{table}', 'id')::regclass"
