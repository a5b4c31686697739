"""The `idempotency_keys` table: the requests that were done lately, by the keys of those who asked."""

from __future__ import annotations

from typing import Optional

from ws_manager.repository.sqlite.database import Database


class Keys:
    """Statements on `idempotency_keys`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, subject: str, operation: str, name: str, since: str) -> Optional[tuple[str, str]]:
        row = self._db.row(
            "SELECT fingerprint, result FROM idempotency_keys"
            " WHERE subject = ? AND operation = ? AND name = ? AND ts >= ?",
            (subject, operation, name, since),
        )
        return None if row is None else (str(row[0]), str(row[1]))

    def insert(self, subject: str, operation: str, name: str, fingerprint: str, result: str, at: str) -> None:
        # One that is too old to count may still be there.
        self._db.execute(
            "INSERT OR REPLACE INTO idempotency_keys (subject, operation, name, fingerprint, result, ts)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (subject, operation, name, fingerprint, result, at),
        )
