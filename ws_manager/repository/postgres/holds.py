"""The `holds` table: who takes a connection's messages over HTTP, and until when."""

from __future__ import annotations

from typing import Optional

from ws_manager.repository.postgres.database import Database


class Holds:
    """Statements on `holds`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, ws_id: str) -> Optional[tuple[str, str]]:
        if self._db.locks:
            # Not the row: one that is taken now may not be there yet.
            self._db.lock("hold", ws_id)
        row = self._db.row("SELECT hold, until FROM holds WHERE ws_id = %s", (ws_id,))
        return None if row is None else (str(row[0]), str(row[1]))

    def put(self, ws_id: str, hold: str, until: str) -> None:
        self._db.execute(
            "INSERT INTO holds (ws_id, hold, until) VALUES (%s, %s, %s)"
            " ON CONFLICT (ws_id) DO UPDATE SET hold = excluded.hold, until = excluded.until",
            (ws_id, hold, until),
        )

    def delete(self, ws_id: str, hold: str) -> bool:
        return bool(self._db.execute("DELETE FROM holds WHERE ws_id = %s AND hold = %s", (ws_id, hold)))

    def delete_before(self, until: str) -> None:
        # One transaction at a time, and not what another is taking or deleting: two that wait for each other's holds
        # would be a deadlock.
        if self._db.value("SELECT pg_try_advisory_xact_lock(hashtextextended('holds', 0))"):
            self._db.execute(
                "DELETE FROM holds WHERE ws_id = ANY(ARRAY(SELECT ws_id FROM holds WHERE until < %s"
                " FOR UPDATE SKIP LOCKED))",
                (until,),
            )
