"""The `asks` table: messages that want an answer, each with its answer once there is one.

A row is kept for a day. The message itself is in `messages`, and may be pruned before.
"""

from __future__ import annotations

from typing import Optional

from psycopg import Rollback

from ws_manager.repository.postgres.database import Database
from ws_manager.repository.working import Ask

_COLUMNS = (
    "asks.seq, asks.msg_id, asks.recipient_id, asks.sender_id, asks.subject, asks.ts, asks.answer_id, asks.answer,"
    " asks.answered_at, coalesce(messages.delivered, 1) = 1, messages.rejected_at, messages.reject_reason"
)


class Asks:
    """Statements on `asks`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def insert(
        self, seq: int, msg_id: str, recipient_id: str, sender_id: Optional[str], subject: str, at: str
    ) -> None:
        self._db.execute(
            "INSERT INTO asks (seq, msg_id, recipient_id, sender_id, subject, ts) VALUES (%s, %s, %s, %s, %s, %s)",
            (seq, msg_id, recipient_id, sender_id, subject, at),
        )

    def find(self, msg_id: str, since: str) -> Optional[Ask]:
        return self._one("asks.msg_id", msg_id, since)

    def find_number(self, seq: int, since: str) -> Optional[Ask]:
        return self._one("asks.seq", seq, since)

    def sender_of(self, seq: int) -> Optional[str]:
        found = self._db.value("SELECT sender_id FROM asks WHERE seq = %s", (seq,))
        return None if found is None else str(found)

    def answer(self, seq: int, answer_id: str, content: str, at: str) -> None:
        self._db.execute(
            "UPDATE asks SET answer_id = %s, answer = %s, answered_at = %s WHERE seq = %s",
            (answer_id, content, at, seq),
        )

    def latest_of(self, agent: str, until: str) -> Optional[str]:
        query = (
            "SELECT ws_id FROM connections WHERE agent = %s AND status = 'active'"
            " ORDER BY last_heartbeat > %s, last_heartbeat DESC, id DESC LIMIT 1"
        )
        while True:
            found = self._db.value(query, (agent, until))
            if found is None or not self._db.in_transaction or self._is_still(found, agent):
                return None if found is None else str(found)

    def _is_still(self, ws_id: str, agent: str) -> bool:
        """Lock a connection if it is still an active one of an agent."""
        # A savepoint: the lock of one that has gone is released, for it would be out of order beside the next one's.
        with self._db.transaction():
            condition = "ws_id = %s AND agent = %s AND status = 'active' FOR NO KEY UPDATE"
            found = self._db.value(f"SELECT 1 FROM connections WHERE {condition}", (ws_id, agent))
            if found is None:
                raise Rollback
        return found is not None

    def _one(self, column: str, value: object, since: str) -> Optional[Ask]:
        if self._db.in_transaction:
            # Apart from the reading: that of a row which was waited for would join the message as it was before.
            self._db.execute(f"SELECT 1 FROM asks WHERE {column} = %s FOR NO KEY UPDATE", (value,))
        row = self._db.row(
            f"SELECT {_COLUMNS} FROM asks LEFT JOIN messages ON messages.id = asks.seq"
            f" WHERE {column} = %s AND asks.ts >= %s",
            (value, since),
        )
        return None if row is None else Ask._make(row)
