"""The small tables: `heartbeat_log`, `broadcasts`, `events` and `gateways`."""

from __future__ import annotations

from typing import Optional

from ws_manager.models import Broadcast, Event, Gateway
from ws_manager.repository.database import Database


class Heartbeats:
    """Statements on `heartbeat_log`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def insert(self, ws_id: str, at: str, latency_ms: Optional[int]) -> None:
        """Write one heartbeat; the latency is the round trip in milliseconds, where it was measured."""
        self._db.execute(
            "INSERT INTO heartbeat_log (ws_id, ts, latency_ms) VALUES (?, ?, ?)", (ws_id, at, latency_ms)
        )


class Broadcasts:
    """Statements on `broadcasts`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def insert(self, broadcast: Broadcast, msg_type: str, sender_id: Optional[str], at: str) -> None:
        """Write one call of broadcast."""
        self._db.execute(
            "INSERT INTO broadcasts (broadcast_id, first_id, last_id, recipients, msg_type, sender_id, sent_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                broadcast.broadcast_id,
                broadcast.first_id,
                broadcast.last_id,
                len(broadcast.recipients),
                msg_type,
                sender_id,
                at,
            ),
        )


class Events:
    """Statements on `events`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def insert(
        self,
        kind: str,
        at: str,
        ws_id: Optional[str] = None,
        msg_id: Optional[str] = None,
        detail: Optional[str] = None,
    ) -> None:
        """Write one event, in the transaction that does it."""
        self._db.execute(
            "INSERT INTO events (ts, ws_id, msg_id, kind, detail) VALUES (?, ?, ?, ?, ?)",
            (at, ws_id, msg_id, kind, detail),
        )

    def last_id(self) -> int:
        """Return the highest id that was ever given out, 0 for none."""
        return int(self._db.value("SELECT seq FROM sqlite_sequence WHERE name = 'events'") or 0)

    def after(self, event_id: int) -> list[Event]:
        """Return the events with a higher id, in order."""
        rows = self._db.rows(
            "SELECT id, ts, ws_id, msg_id, kind, detail FROM events WHERE id > ? ORDER BY id", (event_id,)
        )
        return [Event(*row) for row in rows]


class Gateways:
    """Statements on `gateways`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def insert(self, gateway: Gateway) -> None:
        """Write a gateway that has just started."""
        self._db.execute(
            "INSERT INTO gateways (id, pid, url, started_at, seen_at) VALUES (?, ?, ?, ?, ?)",
            (gateway.id, gateway.pid, gateway.url, gateway.started_at, gateway.seen_at),
        )

    def seen(self, gateway_id: str, at: str) -> None:
        """Note that it is still there."""
        self._db.execute("UPDATE gateways SET seen_at = ? WHERE id = ?", (at, gateway_id))

    def latest(self) -> Optional[Gateway]:
        """Return the gateway that started last."""
        row = self._db.row(
            "SELECT id, pid, url, started_at, seen_at FROM gateways ORDER BY rowid DESC LIMIT 1"
        )
        return Gateway(*row) if row else None
