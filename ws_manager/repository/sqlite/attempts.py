"""The tables `workers` and `attempts`: which process works on a connection's messages, and what it has begun."""

from __future__ import annotations

from typing import Optional

from ws_manager.repository.sqlite.database import Database


class Attempts:
    """Statements on `workers` and `attempts`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def worker(self, ws_id: str) -> Optional[tuple[str, int]]:
        row = self._db.row("SELECT worker, max_attempts FROM workers WHERE ws_id = ?", (ws_id,))
        return None if row is None else (str(row[0]), int(row[1]))

    def put_worker(self, ws_id: str, worker: Optional[tuple[str, int]]) -> None:
        gone = "WHERE ws_id NOT IN (SELECT ws_id FROM connections)"
        self._db.execute(f"DELETE FROM attempts {gone}")
        self._db.execute(f"DELETE FROM workers {gone}")
        self._db.execute("DELETE FROM workers WHERE ws_id = ?", (ws_id,))
        if worker is not None:
            self._db.execute(
                "INSERT INTO workers (ws_id, worker, max_attempts) VALUES (?, ?, ?)", (ws_id, *worker)
            )

    def find(self, seq: int) -> tuple[int, bool]:
        row = self._db.row("SELECT ended, running FROM attempts WHERE seq = ?", (seq,))
        return (0, False) if row is None else (int(row[0]), bool(row[1]))

    def running(self, ws_id: str) -> list[tuple[int, int]]:
        rows = self._db.rows(
            "SELECT seq, ended FROM attempts WHERE ws_id = ? AND running = 1 ORDER BY seq", (ws_id,)
        )
        return [(int(row[0]), int(row[1])) for row in rows]

    def put(self, ws_id: str, seq: int, ended: int, *, running: bool) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO attempts (seq, ws_id, ended, running) VALUES (?, ?, ?, ?)",
            (seq, ws_id, ended, int(running)),
        )

    def forget(self, ws_id: str) -> None:
        self._db.execute(
            "DELETE FROM attempts WHERE ws_id = ? AND seq IN (SELECT attempts.seq FROM attempts LEFT JOIN messages"
            " ON messages.id = attempts.seq WHERE attempts.ws_id = ? AND (messages.id IS NULL"
            " OR messages.delivered = 1 OR messages.rejected_at IS NOT NULL))",
            (ws_id, ws_id),
        )
