"""The `messages` table: one row per message and recipient. The order of `id` is the order of delivery."""

from __future__ import annotations

import sqlite3
from functools import lru_cache
from typing import Any, Optional

from ws_manager.models import PendingMessage, new_ids
from ws_manager.repository.sqlite.database import Database
from ws_manager.strict_json import BEYOND_LIMITS, is_beyond_limits

_WIRE = "id, msg_id, msg_type, sender_id, recipient_id, content, sent_at"
COLUMNS = f"{_WIRE}, delivered, confirmed_at, rejected_at, reject_reason, retry_of, refusals, written_at"
NAMES = COLUMNS.split(", ")
"""The columns of a message, in the order of `COLUMNS`."""

_READ_CHARACTERS = 1024 * 1024
PENDING = "delivered = 0 AND rejected_at IS NULL"

# A third of the time of one statement a row; two parameters each, and SQLite takes 32,766 of them.
_ROWS_A_STATEMENT = 500


@lru_cache(maxsize=2)
def _insert_many(rows: int) -> str:
    """Return the statement that writes so many messages that differ in their id and recipient alone."""
    each = ", ".join(["(?, ?)"] * rows)
    return (
        "WITH shared (msg_type, sender_id, content, sent_at) AS (SELECT ?, ?, ?, ?)"
        " INSERT INTO messages (msg_id, msg_type, sender_id, recipient_id, content, sent_at)"
        " SELECT each.column1, msg_type, sender_id, each.column2, content, sent_at"
        f" FROM shared CROSS JOIN (VALUES {each}) AS each"
    )


def set_aside_beyond_limits(db: sqlite3.Connection, at: str) -> None:
    """Set aside what is pending and exceeds the limits of `strict_json`. It must be inside a transaction.

    Only rows that came in before there were limits can be like that.
    """
    db.create_function("ws_manager_beyond_limits", 1, is_beyond_limits, deterministic=True)
    found = db.execute(
        f"SELECT id, recipient_id, msg_id FROM messages WHERE {PENDING} AND ws_manager_beyond_limits(content)"
        " ORDER BY id"
    ).fetchall()
    db.executemany(
        "INSERT INTO events (ts, ws_id, msg_id, kind, detail) VALUES (?, ?, ?, 'set_aside', ?)",
        [(at, row[1], row[2], BEYOND_LIMITS) for row in found],
    )
    db.executemany(
        "UPDATE messages SET rejected_at = ?, reject_reason = ? WHERE id = ?",
        [(at, BEYOND_LIMITS, row[0]) for row in found],
    )


class Messages:
    """Statements on `messages`. Every write must be inside `Database.transaction`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def insert(
        self, msg_id: str, recipient_id: str, content: str, msg_type: str, sender_id: Optional[str], at: str
    ) -> int:
        """Write one message and return its id."""
        cursor = self._db.execute(
            "INSERT INTO messages (msg_id, msg_type, sender_id, recipient_id, content, sent_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (msg_id, msg_type, sender_id, recipient_id, content, at),
        )
        return int(cursor.lastrowid or 0)

    def insert_many(
        self, recipients: list[str], content: str, msg_type: str, sender_id: Optional[str], at: str
    ) -> tuple[int, int]:
        """Write one message to each recipient (at least one) and return the first and the last id."""
        ids = new_ids(len(recipients))
        for start in range(0, len(recipients), _ROWS_A_STATEMENT):
            pairs = zip(ids[start : start + _ROWS_A_STATEMENT], recipients[start : start + _ROWS_A_STATEMENT])
            values = [value for pair in pairs for value in pair]
            self._db.execute(_insert_many(len(values) // 2), (msg_type, sender_id, content, at, *values))
        last = int(self._db.value("SELECT last_insert_rowid()"))
        return last - len(recipients) + 1, last

    def last_id(self) -> int:
        """Return the highest id that was ever given out, 0 for none."""
        return int(self._db.value("SELECT seq FROM sqlite_sequence WHERE name = 'messages'") or 0)

    def after(self, seq: int, limit: int) -> list[PendingMessage]:
        """Return everybody's pending messages above an id, in order: at most `limit`, at most 1 MiB."""
        return self._read(
            f"SELECT {_WIRE} FROM messages WHERE id > ? AND {PENDING} ORDER BY id LIMIT ?", (seq, limit)
        )

    def pending(
        self, ws_id: str, after: int, limit: int, characters: int = _READ_CHARACTERS
    ) -> list[PendingMessage]:
        """Return the pending messages of one connection above an id, in order.

        At most `limit`, and no more once their contents have so many characters.
        """
        return self._read(
            f"SELECT {_WIRE} FROM messages WHERE recipient_id = ? AND id > ? AND {PENDING}"
            " ORDER BY id LIMIT ?",
            (ws_id, after, limit),
            characters,
        )

    def _read(
        self, sql: str, parameters: tuple[object, ...], characters: int = _READ_CHARACTERS
    ) -> list[PendingMessage]:
        messages: list[PendingMessage] = []
        size = 0
        for row in self._db.stream(sql, parameters):
            message = PendingMessage(*row)
            messages.append(message)
            size += len(message.content)
            # Many large messages are read in several calls, not into memory at once.
            if size > characters:
                break
        return messages

    def count_pending(self, ws_id: str, after: int, limit: int = -1) -> int:
        """Return how many pending messages of one connection have a higher id, counted up to a limit."""
        return int(
            self._db.value(
                "SELECT count(*) FROM (SELECT 1 FROM messages"
                f" WHERE recipient_id = ? AND id > ? AND {PENDING} LIMIT ?)",
                (ws_id, after, limit),
            )
        )

    def count_pending_before(self, ws_id: str, after: int, before: int) -> int:
        """Return how many pending messages of one connection lie between two ids, both left out."""
        return int(
            self._db.value(
                f"SELECT count(*) FROM messages WHERE recipient_id = ? AND id > ? AND id < ? AND {PENDING}",
                (ws_id, after, before),
            )
        )

    def confirm(self, ws_id: str, first: int, last: int, at: str, written_at: Optional[str] = None) -> int:
        """Mark what is pending between two ids as delivered, and return how many that were."""
        return self._db.execute(
            "UPDATE messages SET delivered = 1, confirmed_at = ?, written_at = coalesce(?, written_at)"
            f" WHERE recipient_id = ? AND id BETWEEN ? AND ? AND {PENDING}",
            (at, written_at, ws_id, first, last),
        ).rowcount

    def written(self, ws_id: str, first: int, last: int, at: str) -> None:
        """Note when what is pending between two ids was written to a socket."""
        self._db.execute(
            f"UPDATE messages SET written_at = ? WHERE recipient_id = ? AND id BETWEEN ? AND ? AND {PENDING}",
            (at, ws_id, first, last),
        )

    def to_retry(self, since: str, msg_id: Optional[str] = None) -> list[PendingMessage]:
        """Return what was set aside since a time and not sent again yet; one message, or all, in order."""
        where, parameters = ("", ()) if msg_id is None else (" AND msg_id = ?", (msg_id,))
        return [
            PendingMessage(*row)
            for row in self._db.rows(
                f"SELECT {_WIRE} FROM messages AS old WHERE rejected_at >= ?{where} AND NOT EXISTS"
                " (SELECT 1 FROM messages AS newer WHERE newer.recipient_id = old.recipient_id"
                " AND newer.id > old.id AND newer.retry_of = old.msg_id) ORDER BY id",
                (since, *parameters),
            )
        ]

    def insert_retry(self, msg_id: str, old: PendingMessage, at: str) -> None:
        """Write a set-aside message once more, as a new one."""
        self._db.execute(
            "INSERT INTO messages (msg_id, msg_type, sender_id, recipient_id, content, sent_at, retry_of)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (msg_id, old.msg_type, old.sender_id, old.recipient_id, old.content, at, old.msg_id),
        )

    def refuse(self, seq: int) -> int:
        """Count a socket that closed on a message, and return how many those are."""
        self._db.execute("UPDATE messages SET refusals = refusals + 1 WHERE id = ?", (seq,))
        return int(self._db.value("SELECT refusals FROM messages WHERE id = ?", (seq,)) or 0)

    def set_aside(self, ws_id: str, first: int, last: int, reason: str, at: str) -> list[str]:
        """Take what is pending between two ids out of delivery, and return the msg_ids."""
        span = (ws_id, first, last)
        where = f"recipient_id = ? AND id BETWEEN ? AND ? AND {PENDING}"
        msg_ids = [
            row[0] for row in self._db.rows(f"SELECT msg_id FROM messages WHERE {where} ORDER BY id", span)
        ]
        self._db.execute(
            f"UPDATE messages SET rejected_at = ?, reject_reason = ? WHERE {where}", (at, reason, *span)
        )
        return msg_ids

    def history(self, ws_id: Optional[str], limit: int) -> list[dict[str, Any]]:
        """Return the newest messages as dicts, newest first; of one connection, received or sent.

        Two limited reads of two indexes: an OR over both columns would read the whole table.
        """
        if ws_id is None:
            rows = self._db.rows(f"SELECT {COLUMNS} FROM messages ORDER BY id DESC LIMIT ?", (limit,))
        else:
            newest = f"SELECT * FROM (SELECT {COLUMNS} FROM messages WHERE {{}} = ? ORDER BY id DESC LIMIT ?)"
            rows = self._db.rows(
                f"{newest.format('recipient_id')} UNION {newest.format('sender_id')}"
                " ORDER BY id DESC LIMIT ?",
                (ws_id, limit, ws_id, limit, limit),
            )
        return [dict(zip(NAMES, row)) for row in rows]

    def find(self, msg_id: str) -> Optional[dict[str, Any]]:
        """Return one message as a dict of its columns, or None."""
        row = self._db.row(f"SELECT {COLUMNS} FROM messages WHERE msg_id = ?", (msg_id,))
        return None if row is None else dict(zip(NAMES, row))

    def unconfirmed_between(self, first: int, last: int, limit: int) -> list[dict[str, Any]]:
        """Return the messages between two ids that are pending or set aside, in order."""
        rows = self._db.rows(
            f"SELECT {COLUMNS} FROM messages WHERE id BETWEEN ? AND ? AND delivered = 0 ORDER BY id LIMIT ?",
            (first, last, limit),
        )
        return [dict(zip(NAMES, row)) for row in rows]

    def confirmation_times(self, first: int, last: int) -> tuple[Optional[str], Optional[str]]:
        """Return when the first and the last of the messages between two ids were confirmed."""
        row = self._db.row(
            "SELECT min(confirmed_at), max(confirmed_at) FROM messages WHERE id BETWEEN ? AND ?",
            (first, last),
        )
        return (row[0], row[1]) if row else (None, None)

    def count(self) -> int:
        """Return the number of messages in the ledger."""
        return int(self._db.value("SELECT count(*) FROM messages"))

    def delivery_counts(self, first: int, last: int) -> tuple[int, int, int]:
        """Return how many between two ids are confirmed, pending and set aside."""
        row = self._db.row(
            f"SELECT total(delivered), total({PENDING}), total(rejected_at IS NOT NULL)"
            " FROM messages WHERE id BETWEEN ? AND ?",
            (first, last),
        )
        confirmed, pending, aside = row or (0, 0, 0)
        return int(confirmed), int(pending), int(aside)
