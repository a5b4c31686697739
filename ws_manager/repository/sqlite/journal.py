"""The small tables: `heartbeat_log`, `broadcasts`, `events` and `gateways`."""

from __future__ import annotations

from typing import Any, Optional

from ws_manager.models import Broadcast, Event, Gateway
from ws_manager.repository.sqlite.database import Database

_BROADCAST = "broadcast_id, first_id, last_id, recipients, msg_type, sender_id, sent_at"


class Heartbeats:
    """Statements on `heartbeat_log`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def latest(self, ws_id: str) -> Optional[tuple[str, Optional[int]]]:
        """Return time and latency in ms of a connection's last logged heartbeat."""
        row = self._db.row(
            "SELECT ts, latency_ms FROM heartbeat_log WHERE ws_id = ? ORDER BY id DESC LIMIT 1", (ws_id,)
        )
        return (row[0], row[1]) if row else None

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
            f"INSERT INTO broadcasts ({_BROADCAST}) VALUES (?, ?, ?, ?, ?, ?, ?)",
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

    def find(self, broadcast_id: str) -> Optional[dict[str, Any]]:
        """Return one call as a dict of its columns, or None."""
        row = self._db.row(f"SELECT {_BROADCAST} FROM broadcasts WHERE broadcast_id = ?", (broadcast_id,))
        return None if row is None else dict(zip(_BROADCAST.split(", "), row))


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

    def of(self, ws_id: str, since: str, until: str, limit: int) -> list[Event]:
        """Return a connection's newest events between two times, oldest first."""
        rows = self._db.rows(
            "SELECT id, ts, ws_id, msg_id, kind, detail FROM events"
            " WHERE ws_id = ? AND ts BETWEEN ? AND ? ORDER BY id DESC LIMIT ?",
            (ws_id, since, until, limit),
        )
        return [Event(*row) for row in reversed(rows)]


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
