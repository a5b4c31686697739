"""The `asks` table: messages that want an answer, each with its answer once there is one.

A row is kept for a day. The message itself is in `messages`, and may be pruned before.
"""

from __future__ import annotations

from typing import Optional

from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.working import Ask

_FOUND = (
    "SELECT asks.seq, asks.msg_id, asks.recipient_id, asks.sender_id, asks.subject, asks.ts, asks.answer_id,"
    " asks.answer, asks.answered_at, coalesce(messages.delivered, 1), messages.rejected_at,"
    " messages.reject_reason FROM asks LEFT JOIN messages ON messages.id = asks.seq WHERE asks.ts >= ? AND "
)
_DELIVERED = 9


class Asks:
    """Statements on `asks`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def insert(
        self, seq: int, msg_id: str, recipient_id: str, sender_id: Optional[str], subject: str, at: str
    ) -> None:
        self._db.execute(
            "INSERT INTO asks (seq, msg_id, recipient_id, sender_id, subject, ts) VALUES (?, ?, ?, ?, ?, ?)",
            (seq, msg_id, recipient_id, sender_id, subject, at),
        )

    def find(self, msg_id: str, since: str) -> Optional[Ask]:
        return self._one(f"{_FOUND} asks.msg_id = ?", (since, msg_id))

    def find_number(self, seq: int, since: str) -> Optional[Ask]:
        return self._one(f"{_FOUND} asks.seq = ?", (since, seq))

    def sender_of(self, seq: int) -> Optional[str]:
        found = self._db.value("SELECT sender_id FROM asks WHERE seq = ?", (seq,))
        return None if found is None else str(found)

    def answer(self, seq: int, answer_id: str, content: str, at: str) -> None:
        self._db.execute(
            "UPDATE asks SET answer_id = ?, answer = ?, answered_at = ? WHERE seq = ?",
            (answer_id, content, at, seq),
        )

    def latest_of(self, agent: str, until: str) -> Optional[str]:
        found = self._db.value(
            "SELECT ws_id FROM connections WHERE agent = ? AND status = 'active'"
            " ORDER BY last_heartbeat > ?, last_heartbeat DESC, id DESC LIMIT 1",
            (agent, until),
        )
        return None if found is None else str(found)

    def _one(self, sql: str, values: tuple[object, ...]) -> Optional[Ask]:
        row = self._db.row(sql, values)
        if row is None:
            return None
        found = Ask._make(row)
        return found._replace(delivered=bool(row[_DELIVERED]))
