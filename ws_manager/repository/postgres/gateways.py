"""The `gateways` table: which gateways have run on this ledger. A lease decides whether one runs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Optional

from ws_manager.models import Gateway
from ws_manager.repository.postgres.database import Database

LATEST = "SELECT id, pid, url, started_at, seen_at FROM gateways ORDER BY number DESC LIMIT 1"
"""The gateway that started last."""


class Gateways:
    """Statements on `gateways`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def insert(self, gateway: Gateway) -> None:
        self._db.execute(
            "INSERT INTO gateways (id, pid, url, started_at, seen_at) VALUES (%s, %s, %s, %s, %s)",
            (gateway.id, gateway.pid, gateway.url, gateway.started_at, gateway.seen_at),
        )

    def seen(self, gateway_id: str, at: str) -> None:
        self._db.execute("UPDATE gateways SET seen_at = %s WHERE id = %s", (at, gateway_id))

    def found(self, gateway_ids: Collection[str]) -> list[Gateway]:
        rows = self._db.rows(
            "SELECT id, pid, url, started_at, seen_at FROM gateways WHERE id = ANY(%s) ORDER BY number DESC",
            (list(gateway_ids),),
        )
        return [Gateway(*row) for row in rows]

    def latest(self) -> Optional[Gateway]:
        row = self._db.row(LATEST)
        return None if row is None else Gateway(*row)

    def seen_since(self, at: str) -> frozenset[str]:
        return frozenset(row[0] for row in self._db.rows("SELECT id FROM gateways WHERE seen_at > %s", (at,)))
