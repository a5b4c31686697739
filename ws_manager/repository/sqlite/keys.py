"""The `idempotency_keys` table: the requests that were done lately, by the keys of those who asked."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from ws_manager.repository.sqlite.database import Database


class Keys:
    """Statements on `idempotency_keys`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(
        self, subject: str, operation: str, names: Collection[str], since: str
    ) -> dict[str, tuple[str, str]]:
        rows = self._db.rows(
            "SELECT name, fingerprint, result FROM idempotency_keys WHERE subject = ? AND operation = ?"
            " AND name IN (SELECT value FROM json_each(?)) AND ts >= ?",
            (subject, operation, json.dumps(list(names)), since),
        )
        return {str(row[0]): (str(row[1]), str(row[2])) for row in rows}

    def insert(self, subject: str, operation: str, done: Sequence[tuple[str, str, str]], at: str) -> None:
        # One that is too old to count may still be there.
        self._db.executemany(
            "INSERT OR REPLACE INTO idempotency_keys (subject, operation, name, fingerprint, result, ts)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [(subject, operation, *each, at) for each in done],
        )
