"""The `events` table: what happened to connections and messages, in the order of its ids."""

from __future__ import annotations

from typing import Optional

from ws_manager.models import Event
from ws_manager.repository.records import Position
from ws_manager.repository.sqlite.database import Database

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
        self._db.execute(
            "INSERT INTO events (ts, ws_id, msg_id, kind, detail) VALUES (?, ?, ?, ?, ?)",
            (at, ws_id, msg_id, kind, detail),
        )

    def position(self) -> Position:
        return Position(self._db.highest_id("events"))

    def after(self, position: Position) -> tuple[list[Event], Position]:
        # Usually nothing has come: the sequence shows that without reading the table.
        if self.position() == position:
            return [], position
        rows = self._db.rows(f"SELECT {_COLUMNS} FROM events WHERE id > ? ORDER BY id", (position,))
        return [Event(*row) for row in rows], Position(rows[-1][0]) if rows else position

    def of(self, ws_id: str, since: str, until: str, limit: int) -> list[Event]:
        rows = self._db.rows(
            f"SELECT {_COLUMNS} FROM events WHERE ws_id = ? AND ts BETWEEN ? AND ? ORDER BY id DESC LIMIT ?",
            (ws_id, since, until, limit),
        )
        return [Event(*row) for row in reversed(rows)]
