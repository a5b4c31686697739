"""The `broadcasts` table: one row for each call of broadcast.

`first_id` and `last_id` are the lowest and the highest id of its messages; NULL if there are none. They are
this engine's own: they lead to a broadcast's messages without an index on `messages.broadcast_id`, which every
broadcast would have to pay for. A query reads that range and compares the `broadcast_id` in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from ws_manager.models import Message
from ws_manager.repository.findings import BroadcastState
from ws_manager.repository.records import DeliveryCounts, NewBroadcast, Recipients
from ws_manager.repository.sqlite.database import Database, Row
from ws_manager.repository.sqlite.history import COLUMNS, ITS_MESSAGES, message_of
from ws_manager.repository.sqlite.messages import COUNTS, Messages
from ws_manager.repository.sqlite.names import names_between, names_ending


class Broadcasts:
    """Statements on `broadcasts`, and on the messages of one of them."""

    def __init__(self, db: Database, messages: Messages) -> None:
        self._db = db
        self._messages = messages

    def insert(self, broadcasts: Sequence[NewBroadcast], recipients: Recipients) -> None:
        first = last = None
        for new in broadcasts:
            if recipients.ws_ids:
                first, last = self._messages.insert_broadcast(new, recipients.ws_ids)
            self._db.execute(
                "INSERT INTO broadcasts"
                " (broadcast_id, first_id, last_id, recipients, msg_type, sender_id, sent_at, traceparent)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    new.broadcast_id,
                    first,
                    last,
                    len(recipients.ws_ids),
                    new.msg_type,
                    new.sender_id,
                    new.sent_at,
                    new.traceparent,
                ),
            )
        if not recipients.ws_ids:
            return
        # The recipients of the last broadcast. If that is everybody, they need not be looked up among its messages.
        whom = "ws_id IN (SELECT recipient_id FROM messages WHERE id BETWEEN ? AND ?)"
        parameters: list[object] = [first, last]
        if recipients.everybody:
            whom, parameters = "status = 'active'", []
            if recipients.agent is not None:
                whom, parameters = f"{whom} AND agent = ?", [recipients.agent]
        self._db.execute(
            f"UPDATE connections SET message_count = message_count + ? WHERE {whom}",
            (len(broadcasts), *parameters),
        )

    def find(self, broadcast_id: str) -> Optional[BroadcastState]:
        found = self._states("WHERE broadcast_id = ?", (broadcast_id,))
        return found[0] if found else None

    def names(self, first: str, end: str, limit: int) -> list[str]:
        return names_between(self._db, "broadcasts", "broadcast_id", first, end, limit)

    def names_ending(self, part: str, limit: int) -> list[str]:
        return names_ending(self._db, "broadcasts", "broadcast_id", part, limit)

    def recipients(self, broadcast_id: str) -> list[str]:
        rows = self._db.rows(
            f"SELECT recipient_id FROM messages WHERE {ITS_MESSAGES} ORDER BY id", {"broadcast": broadcast_id}
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
        where = ["1"]
        parameters: list[object] = []
        if after is not None:
            where.append("rowid < (SELECT rowid FROM broadcasts WHERE broadcast_id = ?)")
            parameters.append(after)
        sender = {"agent": sender_agent, "ws_id": sender_id}
        wanted = {column: value for column, value in sender.items() if value is not None}
        if wanted:
            conditions = "".join(f" AND {column} = ?" for column in wanted)
            where.append(f"EXISTS (SELECT 1 FROM connections WHERE ws_id = broadcasts.sender_id{conditions})")
            parameters += wanted.values()
        return self._states(f"WHERE {' AND '.join(where)} ORDER BY rowid DESC LIMIT ?", (*parameters, limit))

    def delivery_counts(self, broadcast_id: str) -> DeliveryCounts:
        rows = self._db.rows(
            f"SELECT {COUNTS} FROM messages WHERE {ITS_MESSAGES}", {"broadcast": broadcast_id}
        )
        return DeliveryCounts(*map(int, rows[0]))

    def confirmation_times(self, broadcast_id: str) -> tuple[Optional[str], Optional[str]]:
        rows = self._db.rows(
            f"SELECT min(confirmed_at), max(confirmed_at) FROM messages WHERE {ITS_MESSAGES}",
            {"broadcast": broadcast_id},
        )
        return rows[0][0], rows[0][1]

    def unconfirmed(self, broadcast_id: str, limit: int) -> list[Message]:
        rows = self._db.rows(
            f"SELECT {COLUMNS} FROM messages WHERE {ITS_MESSAGES} AND delivered = 0 ORDER BY id LIMIT :limit",
            {"broadcast": broadcast_id, "limit": limit},
        )
        return [message_of(row) for row in rows]

    def _states(self, which: str, parameters: tuple[object, ...]) -> list[BroadcastState]:
        rows = self._db.rows(
            "SELECT broadcast_id, recipients, msg_type, sender_id, sent_at, traceparent"
            f" FROM broadcasts {which}",
            parameters,
        )
        states = []
        for row in rows:
            values: Row = (*row[:-1], self.delivery_counts(row[0]), row[-1])
            states.append(BroadcastState(*values))
        return states
