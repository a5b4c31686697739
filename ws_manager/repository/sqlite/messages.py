"""The `messages` table: writing, delivery and outcome. The order of `id` is the order of delivery.

`ws_manager.repository.sqlite.history` reads it for those who look.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Optional

from ws_manager.models import PendingMessage, new_ids
from ws_manager.repository.records import (
    MOST_CHARACTERS,
    DeliveryCounts,
    NewBroadcast,
    NewMessage,
    Position,
    Reading,
)
from ws_manager.repository.sqlite.database import Database
from ws_manager.strict_json import BEYOND_LIMITS, is_beyond_limits

PENDING = "delivered = 0 AND rejected_at IS NULL"
"""The condition for a message that is neither confirmed nor set aside."""

COUNTS = f"total(delivered), total({PENDING}), total(rejected_at IS NOT NULL)"
"""The members of `DeliveryCounts`, of all messages of a query."""

_WIRE = (
    "id, msg_id, msg_type, sender_id, recipient_id, content, sent_at, broadcast_id, traceparent, wants_reply,"
    " reply_to"
)
_BROADCAST_ID = 7
# 500 rows a statement take a third of the time of 500 statements. SQLite takes 32,766 parameters.
_ROWS_A_STATEMENT = 500
_NAMES_A_STATEMENT = 5000
# How a message counts in a reading, in characters: what it takes of memory beside its content; and of one of a
# broadcast, what it does not share with the others.
_BESIDE_CONTENT, _OF_ITS_OWN = 500, 100


@lru_cache(maxsize=2)
def _insert_broadcast(rows: int) -> str:
    """Return the statement that writes `rows` messages that differ only in msg_id and recipient."""
    each = ", ".join(["(?, ?)"] * rows)
    return (
        "WITH shared (msg_type, sender_id, content, sent_at, broadcast_id, traceparent) AS (SELECT ?, ?, ?, ?, ?, ?)"
        " INSERT INTO messages"
        " (msg_id, msg_type, sender_id, recipient_id, content, sent_at, broadcast_id, traceparent)"
        " SELECT each.column1, msg_type, sender_id, each.column2, content, sent_at, broadcast_id, traceparent"
        f" FROM shared CROSS JOIN (VALUES {each}) AS each"
    )


@lru_cache(maxsize=2)
def _insert_each(rows: int) -> str:
    """Return the statement that writes `rows` messages that share only the time and the sender."""
    each = ", ".join(["(?, ?, ?, ?, ?)"] * rows)
    return (
        "WITH shared (sent_at, sender_id) AS (SELECT ?, ?)"
        " INSERT INTO messages (msg_id, msg_type, recipient_id, content, traceparent, sent_at, sender_id)"
        f" SELECT each.*, sent_at, sender_id FROM shared CROSS JOIN (VALUES {each}) AS each"
    )


def set_aside_beyond_limits(db: sqlite3.Connection, at: str) -> None:
    """Set aside what is pending and exceeds the limits of `strict_json`. It must be inside a transaction.

    Only rows that were written before there were limits can exceed them.
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
    """Statements that write messages, deliver them and record their outcomes."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # Writing

    def insert(self, message: NewMessage) -> int:
        cursor = self._db.execute(
            "INSERT INTO messages (msg_id, recipient_id, content, msg_type, sender_id, sent_at, retry_of,"
            " traceparent, wants_reply, reply_to) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            message,
        )
        seq = int(cursor.lastrowid or 0)
        self._db.execute(
            "UPDATE connections SET message_count = message_count + 1 WHERE ws_id = ?",
            (message.recipient_id,),
        )
        return seq

    def insert_each(self, messages: Sequence[NewMessage]) -> None:
        for start in range(0, len(messages), _ROWS_A_STATEMENT):
            some = messages[start : start + _ROWS_A_STATEMENT]
            values = [
                value
                for m in some
                for value in (m.msg_id, m.msg_type, m.recipient_id, m.content, m.traceparent)
            ]
            self._db.execute(_insert_each(len(some)), (some[0].sent_at, some[0].sender_id, *values))
        counts = Counter(message.recipient_id for message in messages)
        self._db.executemany(
            "UPDATE connections SET message_count = message_count + ? WHERE ws_id = ?",
            [(count, ws_id) for ws_id, count in counts.items()],
        )

    def insert_broadcast(self, broadcast: NewBroadcast, ws_ids: Sequence[str]) -> tuple[int, int]:
        """Write a message to each of at least one recipient, and return the first and the last id."""
        ids = new_ids(len(ws_ids), beside=broadcast.broadcast_id)
        shared = (
            broadcast.msg_type,
            broadcast.sender_id,
            broadcast.content,
            broadcast.sent_at,
            broadcast.broadcast_id,
            broadcast.traceparent,
        )
        for start in range(0, len(ws_ids), _ROWS_A_STATEMENT):
            pairs = zip(ids[start : start + _ROWS_A_STATEMENT], ws_ids[start : start + _ROWS_A_STATEMENT])
            values = [value for pair in pairs for value in pair]
            self._db.execute(_insert_broadcast(len(values) // 2), (*shared, *values))
        last = int(self._db.value("SELECT last_insert_rowid()"))
        return last - len(ws_ids) + 1, last

    # Delivery

    def position(self, gateway: str) -> Position:
        return Position(self._db.highest_id("messages"))

    def after(self, position: Position, limit: int) -> Reading:
        # Asked first: what is committed in between is never left out.
        newest = self._db.highest_id("messages")
        messages: list[PendingMessage] = []
        size, before = 0, None
        for row in self._db.stream(
            f"SELECT {_WIRE} FROM messages WHERE id > ? AND {PENDING} ORDER BY id LIMIT ?", (position, limit)
        ):
            if before is not None and row[_BROADCAST_ID] == before.broadcast_id is not None:
                # The messages of a broadcast share in memory what they have in common.
                # By index, because this is done for every message; see `_WIRE`.
                message = PendingMessage._make((row[0], row[1], before[2], before[3], row[4], *before[5:]))
                size += _OF_ITS_OWN
            else:
                message = PendingMessage._make(row)
                size += len(message.content) + _BESIDE_CONTENT
            messages.append(message)
            # Many are read in several calls, not into memory at once.
            if len(messages) == limit or size > MOST_CHARACTERS:
                return Reading(messages, Position(message.seq), False)
            before = message
        return Reading(messages, Position(max(newest, messages[-1].seq) if messages else newest), True)

    def pending(
        self, ws_id: str, after: int, limit: int, characters: int = MOST_CHARACTERS
    ) -> list[PendingMessage]:
        messages: list[PendingMessage] = []
        size = 0
        for row in self._db.stream(
            f"SELECT {_WIRE} FROM messages WHERE recipient_id = ? AND id > ? AND {PENDING}"
            " ORDER BY id LIMIT ?",
            (ws_id, after, limit),
        ):
            message = PendingMessage._make(row)
            messages.append(message)
            size += len(message.content)
            if size > characters:
                break
        return messages

    def count_pending(self, ws_id: str, after: int, limit: int = -1) -> int:
        return int(
            self._db.value(
                "SELECT count(*) FROM (SELECT 1 FROM messages"
                f" WHERE recipient_id = ? AND id > ? AND {PENDING} LIMIT ?)",
                (ws_id, after, limit),
            )
        )

    def count_pending_before(self, ws_id: str, after: int, before: int) -> int:
        return int(
            self._db.value(
                f"SELECT count(*) FROM messages WHERE recipient_id = ? AND id > ? AND id < ? AND {PENDING}",
                (ws_id, after, before),
            )
        )

    # The outcome

    def written(self, ws_id: str, first: int, last: int, at: str) -> None:
        self._db.execute(
            f"UPDATE messages SET written_at = ? WHERE recipient_id = ? AND id BETWEEN ? AND ? AND {PENDING}",
            (at, ws_id, first, last),
        )

    def settled(self, ws_id: str, seq: int, at: str) -> None:
        self._db.execute(
            "UPDATE messages SET written_at = ? WHERE recipient_id = ? AND id = ?", (at, ws_id, seq)
        )

    def refuse(self, seq: int) -> int:
        self._db.execute("UPDATE messages SET refusals = refusals + 1 WHERE id = ?", (seq,))
        return int(self._db.value("SELECT refusals FROM messages WHERE id = ?", (seq,)) or 0)

    def set_aside(self, ws_id: str, first: int, last: Optional[int], reason: str, at: str) -> list[str]:
        span = (ws_id, first, 2**63 - 1 if last is None else last)
        where = f"recipient_id = ? AND id BETWEEN ? AND ? AND {PENDING}"
        rows = self._db.rows(f"SELECT msg_id FROM messages WHERE {where} ORDER BY id", span)
        self._db.execute(
            f"UPDATE messages SET rejected_at = ?, reject_reason = ? WHERE {where}", (at, reason, *span)
        )
        return [row[0] for row in rows]

    def to_retry(
        self, since: str, msg_id: Optional[str] = None, agent: Optional[str] = None
    ) -> list[PendingMessage]:
        where, parameters = "", [since]
        if msg_id is not None:
            where += " AND msg_id = ?"
            parameters.append(msg_id)
        if agent is not None:
            where += " AND recipient_id IN (SELECT ws_id FROM connections WHERE agent = ?)"
            parameters.append(agent)
        rows = self._db.rows(
            f"SELECT {_WIRE} FROM messages AS old WHERE rejected_at >= ?{where} AND NOT EXISTS"
            " (SELECT 1 FROM messages AS newer WHERE newer.recipient_id = old.recipient_id"
            " AND newer.id > old.id AND newer.retry_of = old.msg_id) ORDER BY id",
            parameters,
        )
        return [PendingMessage(*row) for row in rows]

    def retry_of(self, msg_id: str, ws_id: str, seq: int) -> Optional[str]:
        found = self._db.value(
            "SELECT msg_id FROM messages WHERE recipient_id = ? AND id > ? AND retry_of = ? ORDER BY id LIMIT 1",
            (ws_id, seq, msg_id),
        )
        return None if found is None else str(found)

    def delivery_counts(self, msg_ids: Sequence[str]) -> DeliveryCounts:
        totals = [0, 0, 0]
        for start in range(0, len(msg_ids), _NAMES_A_STATEMENT):
            some = msg_ids[start : start + _NAMES_A_STATEMENT]
            rows = self._db.rows(
                f"SELECT {COUNTS} FROM messages WHERE msg_id IN ({', '.join('?' * len(some))})", some
            )
            totals = [total + int(more) for total, more in zip(totals, rows[0])]
        return DeliveryCounts(*totals)

    def count(self) -> int:
        return int(self._db.value("SELECT count(*) FROM messages"))
