"""Statements for a view of what goes on now. Each is bounded, or answered from an index."""

from __future__ import annotations

import sqlite3
from typing import Optional

from ws_manager.models import AHEAD_SECONDS, UNROUTED
from ws_manager.repository.findings import MOST_COUNTED, ActiveConnection, Backlog, Ended, RecentMessage
from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.sqlite.messages import PENDING

_EVENTS_LOOKED_AT = 10_000
# What is above the last confirmed id is pending or set aside. For an order that is near enough, and the index
# alone gives it. The connections that are shown are counted exactly.
_UNCONFIRMED = (
    "(SELECT count(*) FROM (SELECT 1 FROM messages WHERE recipient_id = connections.ws_id"
    f" AND messages.id > connections.confirmed_seq LIMIT {MOST_COUNTED}))"
)
_ROUND_TRIP = (
    "(SELECT latency_ms FROM heartbeat_log WHERE heartbeat_log.ws_id = connections.ws_id"
    " ORDER BY heartbeat_log.id DESC LIMIT 1)"
)

_ORDER_BY = {
    "pending": f"{_UNCONFIRMED} DESC, id",
    # One in the future was written before the clock was set back: nothing was heard since.
    "idle": f"last_heartbeat > strftime('%Y-%m-%dT%H:%M:%f', 'now', '{AHEAD_SECONDS} seconds') DESC,"
    " last_heartbeat, id",
    "round-trip": f"{_ROUND_TRIP} DESC, id",
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
        where, parameters = _chosen(agent, text)
        rows = self._db.rows(
            "SELECT ws_id, agent, connected_at, last_heartbeat, message_count, confirmed_seq FROM connections"
            f" WHERE {where} ORDER BY {_ORDER_BY[order]} LIMIT ?",
            (*parameters, limit),
        )
        return [ActiveConnection(*row) for row in rows]

    def count(self, agent: Optional[str], text: Optional[str]) -> int:
        where, parameters = _chosen(agent, text)
        return int(self._db.value(f"SELECT count(*) FROM connections WHERE {where}", parameters))

    def whole_backlog(self) -> Backlog:
        return whole_backlog(self._db)

    def backlog(self, ws_id: str, after: int) -> tuple[int, Optional[str]]:
        above = f"FROM messages WHERE recipient_id = ? AND id > ? AND {PENDING}"
        oldest = self._db.value(f"SELECT sent_at {above} ORDER BY id LIMIT 1", (ws_id, after))
        if oldest is None:
            return 0, None
        count = self._db.value(
            f"SELECT count(*) FROM (SELECT 1 {above} LIMIT {MOST_COUNTED})", (ws_id, after)
        )
        return int(count), oldest

    def messages(self, limit: int, characters: int) -> list[RecentMessage]:
        rows = self._db.rows(
            "SELECT id, msg_id, msg_type, sender_id, recipient_id, sent_at, delivered, rejected_at,"
            " substr(content, 1, ?) FROM messages ORDER BY id DESC LIMIT ?",
            (characters, limit),
        )
        return [RecentMessage(*row) for row in rows]

    def count_connections(self) -> int:
        return int(self._db.value("SELECT count(*) FROM connections"))

    def count_sent(self) -> int:
        return self._db.highest_id("messages")

    def endings(self, limit: int) -> list[Ended]:
        rows = self._db.rows(
            "SELECT ts, ws_id, kind, detail FROM events"
            " WHERE id > (SELECT coalesce(max(id), 0) FROM events) - ? AND kind IN ('closed', 'disconnected')"
            " ORDER BY id DESC LIMIT ?",
            (_EVENTS_LOOKED_AT, limit),
        )
        return [Ended(*row) for row in rows]


def _chosen(agent: Optional[str], text: Optional[str]) -> tuple[str, list[str]]:
    """Return the condition for the active connections of an agent, with a text, and its parameters."""
    where, parameters = "status = 'active'", []
    if agent is not None:
        where += " AND agent = ?"
        parameters.append(agent)
    if text is not None:
        where += " AND instr(lower(ws_id || ' ' || agent || ' ' || metadata), lower(?))"
        parameters.append(text)
    return where, parameters


def whole_backlog(db: sqlite3.Connection) -> Backlog:
    """Return what has not arrived, over the whole ledger."""
    # The index alone counts what is above the last confirmed id: what is pending, and some that is set aside.
    unconfirmed, oldest = db.execute(
        "SELECT total(unconfirmed), min(CASE WHEN unconfirmed THEN (SELECT min(m.id) FROM messages AS m"
        " WHERE m.recipient_id = ws_id AND m.id > seq AND m.rejected_at IS NULL) END)"
        " FROM (SELECT ws_id, confirmed_seq AS seq, (SELECT count(*) FROM messages AS m"
        " WHERE m.recipient_id = ws_id AND m.id > confirmed_seq) AS unconfirmed"
        " FROM connections WHERE message_count > 0)"
    ).fetchone()
    set_aside, above = db.execute(
        "SELECT count(*), count(CASE WHEN m.id > c.confirmed_seq THEN 1 END)"
        " FROM messages AS m LEFT JOIN connections AS c ON c.ws_id = m.recipient_id"
        " WHERE m.rejected_at IS NOT NULL"
    ).fetchone()
    (unrouted,) = db.execute(f"SELECT count(*) FROM webhook_events WHERE status = '{UNROUTED}'").fetchone()
    sent_at = db.execute("SELECT sent_at FROM messages WHERE id = ?", (oldest,)).fetchone()
    return Backlog(int(unconfirmed) - above, set_aside, unrouted, None if sent_at is None else sent_at[0])
