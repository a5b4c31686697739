"""Statements for a view of what goes on now. Each is bounded, or answered from an index."""

from __future__ import annotations

from typing import Optional

from ws_manager.models import AHEAD_SECONDS, UNROUTED, seconds_before, utc_now
from ws_manager.repository.findings import MOST_COUNTED, ActiveConnection, Backlog, Ended, RecentMessage
from ws_manager.repository.postgres.database import Database
from ws_manager.repository.postgres.texts import contains

_EVENTS_LOOKED_AT = 10_000
_PENDING = "delivered = 0 AND rejected_at IS NULL"
_ORDER_BY = {
    "pending": "(SELECT count(*) FROM (SELECT 1 FROM messages WHERE recipient_id = connections.ws_id"
    f" AND id > connections.confirmed_seq AND {_PENDING} LIMIT {MOST_COUNTED}) AS found) DESC, id",
    # One in the future was written before the clock was set back: nothing was heard since.
    "idle": "last_heartbeat > %s DESC, last_heartbeat, id",
    "round-trip": "(SELECT latency_ms FROM heartbeat_log WHERE heartbeat_log.ws_id = connections.ws_id"
    " ORDER BY heartbeat_log.id DESC LIMIT 1) DESC NULLS LAST, id",
    "sent": "message_count DESC, id",
    "age": "connected_at, id",
    "agent": "agent, id",
}


class Overview:
    """Statements for a view of what goes on now."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def connections(
        self, order: str, limit: int, agent: Optional[str], text: Optional[str]
    ) -> list[ActiveConnection]:
        where, parameters = self._chosen(agent, text)
        ahead = [seconds_before(utc_now(), -AHEAD_SECONDS)] if order == "idle" else []
        rows = self._db.rows(
            "SELECT ws_id, agent, connected_at, last_heartbeat, message_count, confirmed_seq FROM connections"
            f" WHERE {where} ORDER BY {_ORDER_BY[order]} LIMIT %s",
            (*parameters, *ahead, limit),
        )
        return [ActiveConnection(*row) for row in rows]

    def count(self, agent: Optional[str], text: Optional[str]) -> int:
        where, parameters = self._chosen(agent, text)
        return int(self._db.value(f"SELECT count(*) FROM connections WHERE {where}", parameters))

    def whole_backlog(self) -> Backlog:
        return whole_backlog(self._db)

    def backlog(self, ws_id: str, after: int) -> tuple[int, Optional[str]]:
        above = f"FROM messages WHERE recipient_id = %s AND id > %s AND {_PENDING}"
        oldest = self._db.value(f"SELECT sent_at {above} ORDER BY id LIMIT 1", (ws_id, after))
        if oldest is None:
            return 0, None
        count = self._db.value(
            f"SELECT count(*) FROM (SELECT 1 {above} LIMIT {MOST_COUNTED}) AS found", (ws_id, after)
        )
        return int(count), oldest

    def messages(self, limit: int, characters: int) -> list[RecentMessage]:
        rows = self._db.rows(
            "SELECT id, msg_id, msg_type, sender_id, recipient_id, sent_at, delivered, rejected_at,"
            " substr(content, 1, %s) FROM messages ORDER BY id DESC LIMIT %s",
            (characters, limit),
        )
        return [RecentMessage(*row) for row in rows]

    def count_connections(self) -> int:
        return int(self._db.value("SELECT count(*) FROM connections"))

    def count_sent(self) -> int:
        # What was rolled back has used numbers up: it counts too. An exact number would be a hot row in every send.
        found = self._db.value(
            "SELECT pg_sequence_last_value(pg_get_serial_sequence('messages', 'id')::regclass)"
        )
        return int(found or 0)

    def endings(self, limit: int) -> list[Ended]:
        rows = self._db.rows(
            "SELECT ts, ws_id, kind, detail FROM events"
            " WHERE id > (SELECT coalesce(max(id), 0) FROM events) - %s AND kind IN ('closed', 'disconnected')"
            " ORDER BY id DESC LIMIT %s",
            (_EVENTS_LOOKED_AT, limit),
        )
        return [Ended(*row) for row in rows]

    def _chosen(self, agent: Optional[str], text: Optional[str]) -> tuple[str, list[object]]:
        """Return the condition for the active connections of an agent, with a text, and its parameters."""
        where, parameters = ["status = 'active'"], list[object]()
        if agent is not None:
            where.append("agent = %s")
            parameters.append(agent)
        if text is not None:
            condition, values = contains(self._db, "(ws_id || ' ' || agent || ' ' || metadata)", [text])
            where.append(condition)
            parameters += values
        return " AND ".join(where), parameters


def whole_backlog(db: Database) -> Backlog:
    """Return what has not arrived, over the whole ledger."""
    # The index of what is pending answers both.
    pending = db.row(f"SELECT count(*), min(id) FROM messages WHERE {_PENDING}")
    others = db.row(
        "SELECT (SELECT count(*) FROM messages WHERE rejected_at IS NOT NULL),"
        f" (SELECT count(*) FROM webhook_events WHERE status = '{UNROUTED}')"
    )
    assert pending is not None
    assert others is not None
    sent_at = db.value("SELECT sent_at FROM messages WHERE id = %s", (pending[1],))
    return Backlog(int(pending[0]), int(others[0]), int(others[1]), sent_at)
