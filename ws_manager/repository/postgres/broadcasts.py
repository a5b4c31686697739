"""The `broadcasts` table: one row for each call of broadcast.

Its messages are those with its `broadcast_id`. `first_id` and `last_id` stay NULL: ids of broadcasts that are written
at the same time alternate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from ws_manager.models import Message
from ws_manager.repository.findings import BroadcastState
from ws_manager.repository.postgres.database import Database
from ws_manager.repository.postgres.messages import COUNTS, Messages
from ws_manager.repository.postgres.names import names_between, names_ending
from ws_manager.repository.records import DeliveryCounts, NewBroadcast, Recipients

_COLUMNS = (
    "msg_id, msg_type, sender_id, recipient_id, content, sent_at, delivered = 1, id, confirmed_at, rejected_at,"
    " reject_reason, retry_of, refusals, written_at, broadcast_id, traceparent, coalesce(wants_reply, 0) = 1,"
    " reply_to"
)
"""The columns of a message, in the order of `Message`."""


class Broadcasts:
    """Statements on `broadcasts`, and on the messages of one of them."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._messages = Messages(db)

    def insert(self, broadcasts: Sequence[NewBroadcast], recipients: Recipients) -> None:
        with self._db.transaction():
            # First the recipients' locks: for as long as this waits for them, it holds nothing.
            if recipients.ws_ids:
                self._messages.insert_broadcasts(broadcasts, recipients.ws_ids)
            self._db.execute_many(
                "INSERT INTO broadcasts (broadcast_id, recipients, msg_type, sender_id, sent_at, traceparent)"
                " VALUES (%s, %s, %s, %s, %s, %s)",
                [
                    (
                        new.broadcast_id,
                        len(recipients.ws_ids),
                        new.msg_type,
                        new.sender_id,
                        new.sent_at,
                        new.traceparent,
                    )
                    for new in broadcasts
                ],
            )

    def find(self, broadcast_id: str) -> Optional[BroadcastState]:
        found = self._states("WHERE broadcast_id = %s", (broadcast_id,))
        return found[0] if found else None

    def names(self, first: str, end: str, limit: int) -> list[str]:
        return names_between(self._db, "broadcasts", "broadcast_id", first, end, limit)

    def names_ending(self, part: str, limit: int) -> list[str]:
        return names_ending(self._db, "broadcasts", "broadcast_id", part, limit)

    def recipients(self, broadcast_id: str) -> list[str]:
        rows = self._db.rows(
            "SELECT recipient_id FROM messages WHERE broadcast_id = %s ORDER BY id", (broadcast_id,)
        )
        return [row[0] for row in rows]

    def latest(
        self,
        limit: int,
        after: Optional[str] = None,
        *,
        sender_agent: Optional[str] = None,
        sender_id: Optional[str] = None,
    ) -> list[BroadcastState]:
        where = ["true"]
        parameters: list[object] = []
        if after is not None:
            where.append("number < (SELECT number FROM broadcasts WHERE broadcast_id = %s)")
            parameters.append(after)
        sender = {"agent": sender_agent, "ws_id": sender_id}
        wanted = {column: value for column, value in sender.items() if value is not None}
        if wanted:
            conditions = "".join(f" AND {column} = %s" for column in wanted)
            where.append(f"EXISTS (SELECT 1 FROM connections WHERE ws_id = broadcasts.sender_id{conditions})")
            parameters += wanted.values()
        return self._states(
            f"WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT %s", (*parameters, limit)
        )

    def delivery_counts(self, broadcast_id: str) -> DeliveryCounts:
        row = self._db.row(f"SELECT {COUNTS} FROM messages WHERE broadcast_id = %s", (broadcast_id,))
        assert row is not None
        return DeliveryCounts(*row)

    def confirmation_times(self, broadcast_id: str) -> tuple[Optional[str], Optional[str]]:
        row = self._db.row(
            "SELECT min(confirmed_at), max(confirmed_at) FROM messages WHERE broadcast_id = %s",
            (broadcast_id,),
        )
        assert row is not None
        return row[0], row[1]

    def unconfirmed(self, broadcast_id: str, limit: int) -> list[Message]:
        rows = self._db.rows(
            f"SELECT {_COLUMNS} FROM messages WHERE broadcast_id = %s AND delivered = 0 ORDER BY id LIMIT %s",
            (broadcast_id, limit),
        )
        return [Message(*row) for row in rows]

    def _states(self, which: str, parameters: tuple[object, ...]) -> list[BroadcastState]:
        rows = self._db.rows(
            "WITH found AS MATERIALIZED (SELECT broadcast_id, recipients, msg_type, sender_id, sent_at, traceparent,"
            f" number FROM broadcasts {which})"
            f" SELECT found.*, counts.* FROM found CROSS JOIN LATERAL (SELECT {COUNTS} FROM messages"
            " WHERE messages.broadcast_id = found.broadcast_id) AS counts ORDER BY number DESC",
            parameters,
        )
        return [BroadcastState._make((*row[:5], DeliveryCounts(*row[7:]), row[5])) for row in rows]
