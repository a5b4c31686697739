"""The `messages` table: writing, delivery and outcome. The order of `id` is the order of delivery of each connection.

An id is given while the recipient's row in `connections` is locked, and the lock lasts until the commit: so for each
connection the order of ids is the order of commits. Between connections it says nothing.
`ws_manager.repository.postgres.history` reads the table for those who look.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Optional, cast

from ws_manager.models import PendingMessage, new_ids
from ws_manager.repository.postgres.database import Database
from ws_manager.repository.postgres.hints import channel_of
from ws_manager.repository.postgres.snapshots import MESSAGES, NEW, Seen, current
from ws_manager.repository.records import (
    MOST_CHARACTERS,
    DeliveryCounts,
    NewBroadcast,
    NewMessage,
    Position,
    Reading,
)

PENDING = "delivered = 0 AND rejected_at IS NULL"
"""The condition for a message that is neither confirmed nor set aside."""

COUNTS = (
    f"count(*) FILTER (WHERE delivered = 1), count(*) FILTER (WHERE {PENDING}),"
    " count(*) FILTER (WHERE rejected_at IS NOT NULL)"
)
"""The members of `DeliveryCounts`, of all messages of a query."""

_WIRE = (
    "id, msg_id, msg_type, sender_id, recipient_id, content, sent_at, broadcast_id, traceparent,"
    " coalesce(wants_reply, 0) = 1 AS wants_reply, reply_to"
)
_BROADCAST_ID, _COPY, _SIZE = 7, 11, 12
# How a message counts in a reading, in bytes: what it takes of memory beside its content; and of one of a broadcast,
# what it does not share with the others.
_BESIDE_CONTENT, _OF_ITS_OWN = 500, 100

_LOCKED = (
    "WITH locked AS MATERIALIZED (SELECT id, ws_id FROM connections WHERE ws_id = ANY(%s)"
    " ORDER BY id FOR NO KEY UPDATE)"
)
"""Connections, locked in the order of their ids: in any other, two transactions would wait for each other."""

# The index on `gateway` and `tx` leads to what is new for a gateway, and to nothing else.
_NEW = f"gateway = %(gateway)s AND {NEW} AND {PENDING}"
# From an id on, in the order of ids. Without an indexed condition on `tx`, because many pieces of one large commit
# would each find and sort all of it.
_LEFT = (
    "id > %(last)s AND gateway = %(gateway)s AND NOT pg_visible_in_snapshot(tx, %(past)s::pg_snapshot)"
    f" AND pg_visible_in_snapshot(tx, %(now)s::pg_snapshot) AND {PENDING}"
)


def _piece(where: str, order: str) -> str:
    """Return the query for the next messages of a reading, as far as their contents fit into memory.

    The content of a broadcast is read once. The last columns: whether a row goes without a content for that reason,
    and the size of the reading up to it.
    """
    of_one = "broadcast_id IS NOT NULL AND row_number() OVER (PARTITION BY broadcast_id ORDER BY id) > 1"
    return (
        f"WITH next AS MATERIALIZED (SELECT {_WIRE} FROM messages WHERE {where} ORDER BY {order} LIMIT %(limit)s),"
        f" marked AS (SELECT *, {of_one} AS copy FROM next),"
        f" weighed AS (SELECT *, CASE WHEN copy THEN {_OF_ITS_OWN} ELSE octet_length(content) + {_BESIDE_CONTENT}"
        " END AS size FROM marked),"
        " summed AS (SELECT *, sum(size) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING)::bigint AS total FROM weighed)"
        " SELECT id, msg_id, msg_type, sender_id, recipient_id, CASE WHEN copy THEN NULL ELSE content END, sent_at,"
        " broadcast_id, traceparent, wants_reply, reply_to, copy, total"
        f" FROM summed WHERE total - size <= {MOST_CHARACTERS} ORDER BY id"
    )


# `+ 0` keeps the planner from looking for the first ones by the ids.
_FIRST_PIECE, _NEXT_PIECE = _piece(_NEW, "id + 0"), _piece(_LEFT, "id")


class Messages:
    """Statements that write messages, deliver them and record their outcomes."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # Writing

    def insert(self, message: NewMessage) -> int:
        # The id is given behind the join: when the recipient's row is locked. A recipient that is not there has none.
        row = self._db.row(
            "WITH counted AS (UPDATE connections SET message_count = message_count + 1"
            " WHERE ws_id = %(recipient_id)s RETURNING gateway)"
            " INSERT INTO messages (msg_id, recipient_id, content, msg_type, sender_id, sent_at, retry_of,"
            " traceparent, wants_reply, reply_to, gateway)"
            " SELECT %(msg_id)s, %(recipient_id)s, %(content)s, %(msg_type)s, %(sender_id)s, %(sent_at)s,"
            " %(retry_of)s, %(traceparent)s, %(wants_reply)s::integer, %(reply_to)s, counted.gateway"
            " FROM (VALUES (1)) AS once LEFT JOIN counted ON true RETURNING id, gateway",
            {**message._asdict(), "wants_reply": int(message.wants_reply)},
        )
        assert row is not None
        self._wake([row[1]])
        return int(row[0])

    def insert_each(self, messages: Sequence[NewMessage]) -> None:
        if not messages:
            return
        with self._db.transaction():
            gateways = self._count(Counter(message.recipient_id for message in messages))
            columns = "msg_id", "msg_type", "recipient_id", "content", "traceparent", "sent_at", "sender_id"
            values = attrgetter(*columns)
            self._db.copy(
                "messages",
                (*columns, "gateway"),
                ((*values(message), gateways.get(message.recipient_id)) for message in messages),
            )

    def insert_broadcasts(self, broadcasts: Sequence[NewBroadcast], ws_ids: Sequence[str]) -> None:
        """Write a message of each broadcast to each of at least one recipient."""
        gateways = self._count(dict.fromkeys(ws_ids, len(broadcasts)))
        columns = (
            "msg_id",
            "recipient_id",
            "gateway",
            "msg_type",
            "sender_id",
            "content",
            "sent_at",
            "broadcast_id",
            "traceparent",
        )
        self._db.copy(
            "messages",
            columns,
            (
                (msg_id, ws_id, gateways.get(ws_id), *shared)
                for new, shared in (
                    (
                        new,
                        (
                            new.msg_type,
                            new.sender_id,
                            new.content,
                            new.sent_at,
                            new.broadcast_id,
                            new.traceparent,
                        ),
                    )
                    for new in broadcasts
                )
                for msg_id, ws_id in zip(new_ids(len(ws_ids), beside=new.broadcast_id), ws_ids)
            ),
        )

    def _count(self, counts: Mapping[str, int]) -> dict[str, str]:
        """Add to the message counters of connections, and return the gateways of those that have one."""
        rows = self._db.rows(
            f"{_LOCKED}, counted AS (UPDATE connections SET message_count = message_count + new.count FROM locked"
            " JOIN unnest(%s::text[], %s::bigint[]) AS new (ws_id, count) ON new.ws_id = locked.ws_id"
            " WHERE connections.id = locked.id RETURNING connections.ws_id, gateway)"
            # As arrays: one row for each connection would take longer.
            " SELECT gateway, array_agg(ws_id) FROM counted WHERE gateway IS NOT NULL GROUP BY gateway",
            (list(counts), list(counts), list(counts.values())),
        )
        self._wake(gateway for gateway, _ in rows)
        return {ws_id: gateway for gateway, ws_ids in rows for ws_id in ws_ids}

    def _wake(self, gateways: Iterable[Optional[str]]) -> None:
        """Let gateways have a hint of what is written for their connections."""
        self._db.concerns(channel_of(gateway) for gateway in gateways if gateway is not None)

    # Delivery

    def position(self, gateway: str) -> Position:
        return Position(Seen(current(self._db, MESSAGES, gateway), gateway=gateway))

    def after(self, position: Position, limit: int) -> Reading:
        seen = cast("Seen", position)
        if seen.now is not None:
            # What is left of an earlier reading: much may have been committed behind it.
            messages, last = self._next(_NEXT_PIECE, seen, limit)
            if messages:
                reached = seen.reached() if last is None else seen._replace(last=last)
                return Reading(messages, Position(reached), False)
            seen = seen.reached()
        now = current(self._db, MESSAGES, seen.gateway)
        if now == seen.past:
            return Reading([], Position(seen), True)
        seen = seen._replace(now=now)
        messages, last = self._next(_FIRST_PIECE, seen, limit)
        reached = seen.reached() if last is None else seen._replace(last=last)
        return Reading(messages, Position(reached), last is None)

    def _next(self, query: str, seen: Seen, limit: int) -> tuple[list[PendingMessage], Optional[int]]:
        """Return messages of a reading, and the id of the last one if there may be more."""
        messages: list[PendingMessage] = []
        first_of: dict[str, PendingMessage] = {}
        row = None
        for row in self._db.rows(query, {**seen._asdict(), "limit": limit}):
            if row[_COPY]:
                # The messages of a broadcast share in memory what they have in common.
                first = first_of[row[_BROADCAST_ID]]
                message = PendingMessage._make((row[0], row[1], first[2], first[3], row[4], *first[5:]))
            else:
                message = PendingMessage._make(row[:_COPY])
                if message.broadcast_id is not None:
                    first_of[message.broadcast_id] = message
            messages.append(message)
        ended = row is not None and (len(messages) == limit or row[_SIZE] > MOST_CHARACTERS)
        return messages, messages[-1].seq if ended else None

    def pending(
        self, ws_id: str, after: int, limit: int, characters: int = MOST_CHARACTERS
    ) -> list[PendingMessage]:
        # The server leaves out what certainly is too much, for bytes are not fewer than characters.
        rows = self._db.rows(
            f"WITH next AS MATERIALIZED (SELECT {_WIRE}, octet_length(content) AS size FROM messages"
            f" WHERE recipient_id = %s AND id > %s AND {PENDING} ORDER BY id LIMIT %s),"
            " summed AS (SELECT *, sum(size) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) AS total FROM next)"
            " SELECT * FROM summed WHERE total - size <= 4 * %s::bigint ORDER BY id",
            (ws_id, after, limit, characters),
        )
        messages: list[PendingMessage] = []
        size = 0
        for row in rows:
            message = PendingMessage._make(row[:_COPY])
            messages.append(message)
            size += len(message.content)
            if size > characters:
                break
        return messages

    def count_pending(self, ws_id: str, after: int, limit: int = -1) -> int:
        return int(
            self._db.value(
                "SELECT count(*) FROM (SELECT 1 FROM messages"
                f" WHERE recipient_id = %s AND id > %s AND {PENDING} LIMIT %s) AS found",
                (ws_id, after, None if limit < 0 else limit),
            )
        )

    def count_pending_before(self, ws_id: str, after: int, before: int) -> int:
        return int(
            self._db.value(
                f"SELECT count(*) FROM messages WHERE recipient_id = %s AND id > %s AND id < %s AND {PENDING}",
                (ws_id, after, before),
            )
        )

    # The outcome

    def written(self, ws_id: str, first: int, last: int, at: str) -> None:
        self._db.execute(
            f"UPDATE messages SET written_at = %s WHERE recipient_id = %s AND id BETWEEN %s AND %s AND {PENDING}",
            (at, ws_id, first, last),
        )

    def settled(self, ws_id: str, seq: int, at: str) -> None:
        self._db.execute(
            "UPDATE messages SET written_at = %s WHERE recipient_id = %s AND id = %s", (at, ws_id, seq)
        )

    def refuse(self, seq: int) -> int:
        found = self._db.value(
            "UPDATE messages SET refusals = refusals + 1 WHERE id = %s RETURNING refusals", (seq,)
        )
        return int(found or 0)

    def set_aside(self, ws_id: str, first: int, last: Optional[int], reason: str, at: str) -> list[str]:
        rows = self._db.rows(
            "WITH aside AS (UPDATE messages SET rejected_at = %s, reject_reason = %s"
            f" WHERE recipient_id = %s AND id BETWEEN %s AND %s AND {PENDING} RETURNING id, msg_id)"
            " SELECT msg_id FROM aside ORDER BY id",
            (at, reason, ws_id, first, 2**63 - 1 if last is None else last),
        )
        return [row[0] for row in rows]

    def to_retry(
        self, since: str, msg_id: Optional[str] = None, agent: Optional[str] = None
    ) -> list[PendingMessage]:
        where = ""
        parameters: list[object] = [since]
        if msg_id is not None:
            where += " AND msg_id = %s"
            parameters.append(msg_id)
        if agent is not None:
            where += " AND recipient_id IN (SELECT ws_id FROM connections WHERE agent = %s)"
            parameters.append(agent)
        if self._db.locks:
            # Each recipient gets a message next. Another may have sent to them while this waited for their locks.
            rows = self._db.rows(
                f"SELECT DISTINCT recipient_id FROM messages AS old WHERE rejected_at >= %s{where}",
                parameters,
            )
            recipients = [row[0] for row in rows]
            self._db.execute(f"{_LOCKED} SELECT 1 FROM locked", (recipients,))
            where += " AND recipient_id = ANY(%s)"
            parameters.append(recipients)
        rows = self._db.rows(
            f"SELECT {_WIRE} FROM messages AS old WHERE rejected_at >= %s{where} AND NOT EXISTS"
            " (SELECT 1 FROM messages AS newer WHERE newer.recipient_id = old.recipient_id"
            " AND newer.id > old.id AND newer.retry_of = old.msg_id) ORDER BY id",
            parameters,
        )
        return [PendingMessage._make(row) for row in rows]

    def retry_of(self, msg_id: str, ws_id: str, seq: int) -> Optional[str]:
        found = self._db.value(
            "SELECT msg_id FROM messages WHERE recipient_id = %s AND id > %s AND retry_of = %s ORDER BY id LIMIT 1",
            (ws_id, seq, msg_id),
        )
        return None if found is None else str(found)

    def delivery_counts(self, msg_ids: Sequence[str]) -> DeliveryCounts:
        row = self._db.row(f"SELECT {COUNTS} FROM messages WHERE msg_id = ANY(%s)", (list(msg_ids),))
        assert row is not None
        return DeliveryCounts(*row)

    def count(self) -> int:
        return int(self._db.value("SELECT count(*) FROM messages"))
