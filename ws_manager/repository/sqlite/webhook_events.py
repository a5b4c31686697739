"""The `webhook_events` table: what webhooks have brought, and whether it became messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Optional

from ws_manager.models import ROUTED, UNROUTED
from ws_manager.repository.sqlite.database import Database

_SUMMARY = (
    "event_id, event_type, agent, msg_type, received_at, status, recipients, routed_at, broadcast_id, reason"
)
NAMES = tuple(_SUMMARY.split(", "))
"""The columns without the payload."""


class WebhookEvents:
    """Statements on `webhook_events`. Every write must be inside `Database.transaction`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, event_id: str) -> Optional[dict[str, Any]]:
        """Return one event as a dict of `NAMES` and `payload`, or None."""
        row = self._db.row(f"SELECT {_SUMMARY}, payload FROM webhook_events WHERE event_id = ?", (event_id,))
        return None if row is None else dict(zip((*NAMES, "payload"), row))

    def put(
        self,
        event_id: str,
        event_type: str,
        agent: Optional[str],
        msg_type: str,
        payload: str,
        at: str,
        reason: Optional[str],
    ) -> None:
        """Write an event that is not routed; of one that is there already, where it is to go.

        With a reason it can be routed neither now nor later; without one it waits for a connection.
        """
        self._db.execute(
            "INSERT INTO webhook_events"
            " (event_id, event_type, agent, msg_type, payload, received_at, reason, status)"
            f" VALUES (?, ?, ?, ?, ?, ?, ?, '{UNROUTED}')"
            " ON CONFLICT (event_id) DO UPDATE SET agent = excluded.agent, msg_type = excluded.msg_type,"
            " reason = excluded.reason",
            (event_id, event_type, agent, msg_type, payload, at, reason),
        )

    def routed(self, event_id: str, broadcast_id: str, recipients: int, at: str) -> None:
        """Note that an event has become messages."""
        self._db.execute(
            f"UPDATE webhook_events SET status = '{ROUTED}', broadcast_id = ?, recipients = ?, routed_at = ?,"
            " reason = NULL WHERE event_id = ?",
            (broadcast_id, recipients, at, event_id),
        )

    def listed(
        self, status: Optional[str], since: str, pattern: Optional[str], limit: int
    ) -> list[dict[str, Any]]:
        """Return events as dicts of `NAMES`, the newest first.

        Args:
            status: `routed` or `unrouted`; None for both.
            since: only what was received since this time (UTC text).
            pattern: only of types that match it, as of SQLite's GLOB; None for all.
            limit: at most so many.
        """
        where, parameters = ["received_at >= ?"], [since]
        if status is not None:
            where.append("status = ?")
            parameters.append(status)
        if pattern is not None:
            where.append("event_type GLOB ?")
            parameters.append(pattern)
        rows = self._db.rows(
            f"SELECT {_SUMMARY} FROM webhook_events WHERE {' AND '.join(where)}"
            " ORDER BY received_at DESC, rowid DESC LIMIT ?",
            (*parameters, limit),
        )
        return [dict(zip(NAMES, row)) for row in rows]

    def unrouted_ids(self, since: str) -> Iterator[str]:
        """Give the ids of the events that wait, received since a time, the oldest first."""
        rows = self._db.rows(
            f"SELECT event_id FROM webhook_events WHERE status = '{UNROUTED}' AND reason IS NULL"
            " AND received_at >= ?"
            " ORDER BY received_at, rowid",
            (since,),
        )
        return (row[0] for row in rows)
