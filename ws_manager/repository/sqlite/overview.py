"""Statements for a view of what goes on now. Each is bounded, or answered from an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Optional

from ws_manager.models import AHEAD_SECONDS
from ws_manager.repository.sqlite.database import Database

MOST_PENDING = 10_000
"""Pending messages of one connection are counted up to here."""

_CHANGES_A_STATEMENT = 500
_EVENTS_LOOKED_AT = 10_000
_PENDING = "delivered = 0 AND rejected_at IS NULL"
# What is above the last confirmed id is pending or set aside. For an order that is near enough, and the
# index alone tells it; the connections that are shown are counted by their rows.
_UNCONFIRMED = (
    "(SELECT count(*) FROM (SELECT 1 FROM messages WHERE recipient_id = connections.ws_id"
    f" AND messages.id > connections.confirmed_seq LIMIT {MOST_PENDING}))"
)
_ROUND_TRIP = (
    "(SELECT latency_ms FROM heartbeat_log WHERE heartbeat_log.ws_id = connections.ws_id"
    " ORDER BY heartbeat_log.id DESC LIMIT 1)"
)

ORDERS = {
    "pending": f"{_UNCONFIRMED} DESC, id",
    # One in the future was written before the clock was set back: nothing was heard since.
    "idle": f"last_heartbeat > strftime('%Y-%m-%dT%H:%M:%f', 'now', '{AHEAD_SECONDS} seconds') DESC,"
    " last_heartbeat, id",
    "round-trip": f"{_ROUND_TRIP} DESC, id",
    "sent": "message_count DESC, id",
    "age": "connected_at, id",
    "agent": "agent, id",
}
"""By what connections can be ordered: the most, the longest, or the first name, comes first."""


class ActiveConnection(NamedTuple):
    """The columns of an active connection that a view shows."""

    ws_id: str
    agent: str
    connected_at: str
    last_heartbeat: str
    message_count: int
    confirmed_seq: int


class RecentMessage(NamedTuple):
    """A message whose content is cut: its first characters as the ledger has them."""

    seq: int
    msg_id: str
    msg_type: str
    sender_id: Optional[str]
    recipient_id: str
    sent_at: str
    delivered: int
    rejected_at: Optional[str]
    content_start: str


class Ended(NamedTuple):
    """An event that says why a socket or a connection ended."""

    ts: str
    ws_id: str
    kind: str
    detail: Optional[str]


class Live:
    """Reads over one ledger."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def connections(
        self, order: str, limit: int, agent: Optional[str], text: Optional[str]
    ) -> list[ActiveConnection]:
        """Return active connections.

        Args:
            order: a key of `ORDERS`.
            limit: at most so many.
            agent: only this agent's.
            text: only those with it in their ws_id, agent or metadata; upper and lower case are the same.
        """
        where, parameters = _chosen(agent, text)
        rows = self._db.rows(
            "SELECT ws_id, agent, connected_at, last_heartbeat, message_count, confirmed_seq FROM connections"
            f" WHERE {where} ORDER BY {ORDERS[order]} LIMIT ?",
            (*parameters, limit),
        )
        return [ActiveConnection(*row) for row in rows]

    def count(self, agent: Optional[str], text: Optional[str]) -> int:
        """Return how many `connections` there would be without a limit."""
        where, parameters = _chosen(agent, text)
        return int(self._db.value(f"SELECT count(*) FROM connections WHERE {where}", parameters))

    def backlog(self, ws_id: str, after: int) -> tuple[int, Optional[str]]:
        """Return how many messages of a connection above an id are pending, and when the oldest was sent.

        It counts to `MOST_PENDING` and no further.
        """
        above = f"FROM messages WHERE recipient_id = ? AND id > ? AND {_PENDING}"
        oldest = self._db.value(f"SELECT sent_at {above} ORDER BY id LIMIT 1", (ws_id, after))
        if oldest is None:
            return 0, None
        count = self._db.value(
            f"SELECT count(*) FROM (SELECT 1 {above} LIMIT {MOST_PENDING})", (ws_id, after)
        )
        return int(count), oldest

    def confirmed_seqs(self) -> dict[int, int]:
        """Return the last confirmed message id of each active connection, by the connection's own id."""
        return dict(self._db.rows("SELECT id, confirmed_seq FROM connections WHERE status = 'active'"))

    def count_confirmed(self, changes: Sequence[tuple[int, int]]) -> int:
        """Return how many messages connections have dealt with since.

        Args:
            changes: id of a connection, and the last message id that it had confirmed then.
        """
        total = 0
        for start in range(0, len(changes), _CHANGES_A_STATEMENT):
            chunk = changes[start : start + _CHANGES_A_STATEMENT]
            total += int(
                self._db.value(
                    f"WITH change (id, seq) AS (VALUES {', '.join(['(?, ?)'] * len(chunk))})"
                    " SELECT total((SELECT count(*) FROM messages WHERE recipient_id = connections.ws_id"
                    " AND messages.id > change.seq AND messages.id <= connections.confirmed_seq))"
                    " FROM change JOIN connections ON connections.id = change.id",
                    [value for change in chunk for value in change],
                )
            )
        return total

    def messages(self, limit: int, characters: int) -> list[RecentMessage]:
        """Return the newest messages, newest first, with so many characters of their content."""
        rows = self._db.rows(
            "SELECT id, msg_id, msg_type, sender_id, recipient_id, sent_at, delivered, rejected_at,"
            " substr(content, 1, ?) FROM messages ORDER BY id DESC LIMIT ?",
            (characters, limit),
        )
        return [RecentMessage(*row) for row in rows]

    def endings(self, limit: int) -> list[Ended]:
        """Return the newest of the last 10,000 events that say why something ended, newest first."""
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
