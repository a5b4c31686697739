"""The `idempotency_keys` table: the requests that were done lately, by the keys of those who asked."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence

from ws_manager.repository.postgres.database import Database

_LOCKS = 256
"""Locks for all keys of one subject and operation.

The server's table of locks has room for some thousands (`max_locks_per_transaction` times `max_connections`), and a
batch has as many keys as it likes. Two keys that have the same lock by chance wait for each other, and nothing more.
"""


class Keys:
    """Statements on `idempotency_keys`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(
        self, subject: str, operation: str, names: Collection[str], since: str
    ) -> dict[str, tuple[str, str]]:
        if self._db.locks:
            self._lock(subject, operation, names)
        rows = self._db.rows(
            "SELECT name, fingerprint, result FROM idempotency_keys WHERE subject = %s AND operation = %s"
            " AND name = ANY(%s) AND ts >= %s",
            (subject, operation, list(names), since),
        )
        return {str(row[0]): (str(row[1]), str(row[2])) for row in rows}

    def insert(self, subject: str, operation: str, done: Sequence[tuple[str, str, str]], at: str) -> None:
        # One that is too old to count may still be there. In the order of names, as `_lock`.
        self._db.execute_many(
            "INSERT INTO idempotency_keys (subject, operation, name, fingerprint, result, ts)"
            " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (subject, operation, name) DO UPDATE"
            " SET fingerprint = excluded.fingerprint, result = excluded.result, ts = excluded.ts",
            [(subject, operation, *each, at) for each in sorted(done)],
        )

    def _lock(self, subject: str, operation: str, names: Collection[str]) -> None:
        """Let a second caller with the same key wait here until it is known whether the first one has done it."""
        # `unnest` keeps the order, in which the locks are then taken.
        numbers = sorted({zlib.crc32(name.encode()) % _LOCKS for name in names})
        self._db.execute(
            "SELECT count(pg_advisory_xact_lock(hashtextextended(name, 0))::text) FROM unnest(%s::text[]) AS name",
            ([f"key:{subject}:{operation}:{number}" for number in numbers],),
        )
