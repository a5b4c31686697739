"""The `webhook_events` table: what webhooks have brought, and whether it became messages."""

from __future__ import annotations

import re
from typing import Optional

from ws_manager.models import ROUTED, UNROUTED
from ws_manager.repository.findings import StoredEvent
from ws_manager.repository.sqlite.database import Database

_SUMMARY = (
    "event_id, event_type, agent, msg_type, received_at, status, recipients, routed_at, broadcast_id, reason"
)


class WebhookEvents:
    """Statements on `webhook_events`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, event_id: str) -> Optional[StoredEvent]:
        row = self._db.row(f"SELECT {_SUMMARY} FROM webhook_events WHERE event_id = ?", (event_id,))
        return None if row is None else StoredEvent(*row)

    def payload(self, event_id: str) -> str:
        return str(self._db.value("SELECT payload FROM webhook_events WHERE event_id = ?", (event_id,)))

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
        self._db.execute(
            "INSERT INTO webhook_events"
            " (event_id, event_type, agent, msg_type, payload, received_at, reason, status)"
            f" VALUES (?, ?, ?, ?, ?, ?, ?, '{UNROUTED}')"
            " ON CONFLICT (event_id) DO UPDATE SET agent = excluded.agent, msg_type = excluded.msg_type,"
            " reason = excluded.reason",
            (event_id, event_type, agent, msg_type, payload, at, reason),
        )

    def routed(self, event_id: str, broadcast_id: str, recipients: int, at: str) -> None:
        self._db.execute(
            f"UPDATE webhook_events SET status = '{ROUTED}', broadcast_id = ?, recipients = ?, routed_at = ?,"
            " reason = NULL WHERE event_id = ?",
            (broadcast_id, recipients, at, event_id),
        )

    def listed(
        self,
        status: Optional[str],
        since: str,
        pattern: Optional[str],
        limit: int,
        after: Optional[str] = None,
    ) -> list[StoredEvent]:
        where, parameters = ["received_at >= ?"], [since]
        if status is not None:
            where.append("status = ?")
            parameters.append(status)
        if pattern is not None:
            where.append("event_type GLOB ?")
            # In a pattern only `*` stands for something else.
            parameters.append(re.sub(r"[?[]", r"[\g<0>]", pattern))
        if after is not None:
            where.append(
                "(received_at, rowid) < (SELECT received_at, rowid FROM webhook_events WHERE event_id = ?)"
            )
            parameters.append(after)
        rows = self._db.rows(
            f"SELECT {_SUMMARY} FROM webhook_events WHERE {' AND '.join(where)}"
            " ORDER BY received_at DESC, rowid DESC LIMIT ?",
            (*parameters, limit),
        )
        return [StoredEvent(*row) for row in rows]

    def waiting(self, since: str) -> list[str]:
        rows = self._db.rows(
            f"SELECT event_id FROM webhook_events WHERE status = '{UNROUTED}' AND reason IS NULL"
            " AND received_at >= ?"
            " ORDER BY received_at, rowid",
            (since,),
        )
        return [row[0] for row in rows]
