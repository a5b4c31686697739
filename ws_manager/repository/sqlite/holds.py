"""The `holds` table: who takes a connection's messages over HTTP, and until when."""

from __future__ import annotations

from typing import Optional

from ws_manager.repository.sqlite.database import Database


class Holds:
    """Statements on `holds`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, ws_id: str) -> Optional[tuple[str, str]]:
        row = self._db.row("SELECT hold, until FROM holds WHERE ws_id = ?", (ws_id,))
        return None if row is None else (str(row[0]), str(row[1]))

    def put(self, ws_id: str, hold: str, until: str) -> None:
        self._db.execute(
            "INSERT INTO holds (ws_id, hold, until) VALUES (?, ?, ?)"
            " ON CONFLICT (ws_id) DO UPDATE SET hold = excluded.hold, until = excluded.until",
            (ws_id, hold, until),
        )

    def delete(self, ws_id: str, hold: str) -> bool:
        found = self._db.execute("DELETE FROM holds WHERE ws_id = ? AND hold = ?", (ws_id, hold))
        return bool(found.rowcount)

    def delete_before(self, until: str) -> None:
        self._db.execute("DELETE FROM holds WHERE until < ?", (until,))
