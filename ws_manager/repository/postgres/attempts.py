"""The tables `workers` and `attempts`: which process works on a connection's messages, and what it has begun."""

from __future__ import annotations

from typing import Optional

from ws_manager.repository.postgres.database import Database


class Attempts:
    """Statements on `workers` and `attempts`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def worker(self, ws_id: str) -> Optional[tuple[str, int]]:
        row = self._db.row("SELECT worker, max_attempts FROM workers WHERE ws_id = %s", (ws_id,))
        return None if row is None else (str(row[0]), int(row[1]))

    def put_worker(self, ws_id: str, worker: Optional[tuple[str, int]]) -> None:
        for table, key in (("attempts", "seq"), ("workers", "ws_id")):
            # What another deletes just now is left to it: nobody waits for that.
            self._db.execute(
                f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE NOT EXISTS"
                f" (SELECT 1 FROM connections WHERE connections.ws_id = {table}.ws_id) FOR UPDATE SKIP LOCKED)"
            )
        if worker is None:
            self._db.execute("DELETE FROM workers WHERE ws_id = %s", (ws_id,))
            return
        self._db.execute(
            "INSERT INTO workers (ws_id, worker, max_attempts) VALUES (%s, %s, %s) ON CONFLICT (ws_id)"
            " DO UPDATE SET worker = excluded.worker, max_attempts = excluded.max_attempts",
            (ws_id, *worker),
        )

    def find(self, seq: int) -> tuple[int, bool]:
        row = self._db.row("SELECT ended, running FROM attempts WHERE seq = %s", (seq,))
        return (0, False) if row is None else (int(row[0]), bool(row[1]))

    def running(self, ws_id: str) -> list[tuple[int, int]]:
        rows = self._db.rows(
            "SELECT seq, ended FROM attempts WHERE ws_id = %s AND running = 1 ORDER BY seq", (ws_id,)
        )
        return [(int(row[0]), int(row[1])) for row in rows]

    def put(self, ws_id: str, seq: int, ended: int, *, running: bool) -> None:
        self._db.execute(
            "INSERT INTO attempts (seq, ws_id, ended, running) VALUES (%s, %s, %s, %s) ON CONFLICT (seq)"
            " DO UPDATE SET ws_id = excluded.ws_id, ended = excluded.ended, running = excluded.running",
            (seq, ws_id, ended, int(running)),
        )

    def forget(self, ws_id: str) -> None:
        self._db.execute(
            "DELETE FROM attempts WHERE ws_id = %s AND NOT EXISTS (SELECT 1 FROM messages"
            " WHERE messages.id = attempts.seq AND delivered = 0 AND rejected_at IS NULL)",
            (ws_id,),
        )
