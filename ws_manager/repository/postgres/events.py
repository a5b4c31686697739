"""The `events` table: what happened to connections and messages. For each connection in the order of the ids."""

from __future__ import annotations

from typing import Optional, cast

from ws_manager.models import Event
from ws_manager.repository.postgres.database import Database
from ws_manager.repository.postgres.hints import EVENTS as EVENTS_CHANNEL
from ws_manager.repository.postgres.snapshots import BETWEEN, EVENTS, Seen, current
from ws_manager.repository.records import Position

_COLUMNS = "id, ts, ws_id, msg_id, kind, detail"


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
        self._db.concerns([EVENTS_CHANNEL])
        self._db.execute(
            "INSERT INTO events (ts, ws_id, msg_id, kind, detail) VALUES (%s, %s, %s, %s, %s)",
            (at, ws_id, msg_id, kind, detail),
        )

    def position(self) -> Position:
        return Position(Seen(current(self._db, EVENTS)))

    def after(self, position: Position) -> tuple[list[Event], Position]:
        past, now = cast("Seen", position).past, current(self._db, EVENTS)
        # Usually nothing has come: the snapshot shows that without reading more.
        if now == past:
            return [], position
        rows = self._db.rows(
            f"SELECT {_COLUMNS} FROM events WHERE {BETWEEN} ORDER BY id", Seen(past, now)._asdict()
        )
        return [Event._make(row) for row in rows], Position(Seen(now))

    def of(self, ws_id: str, since: str, until: str, limit: int) -> list[Event]:
        rows = self._db.rows(
            f"SELECT {_COLUMNS} FROM events WHERE ws_id = %s AND ts BETWEEN %s AND %s ORDER BY id DESC LIMIT %s",
            (ws_id, since, until, limit),
        )
        return [Event._make(row) for row in reversed(rows)]
