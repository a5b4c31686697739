"""The `heartbeat_log` table: signs of life, with the round trip where it was measured."""

from __future__ import annotations

from typing import Optional

from ws_manager.repository.postgres.database import Database
from ws_manager.repository.records import LoggedHeartbeat


class HeartbeatLog:
    """Statements on `heartbeat_log`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def latest(self, ws_id: str) -> Optional[LoggedHeartbeat]:
        row = self._db.row(
            "SELECT ts, latency_ms FROM heartbeat_log WHERE ws_id = %s ORDER BY id DESC LIMIT 1", (ws_id,)
        )
        return None if row is None else LoggedHeartbeat(*row)

    def insert(self, ws_id: str, at: str, latency_ms: Optional[int]) -> None:
        self._db.execute(
            "INSERT INTO heartbeat_log (ws_id, ts, latency_ms) VALUES (%s, %s, %s)", (ws_id, at, latency_ms)
        )
