"""The `bars` table: the agents and the tokens that a gateway does not let in.

Whoever looks inside a transaction shares a lock, and whoever changes the table has it alone. So a registration that
has seen no bar is committed before the bar is written, which then ends it.
"""

from __future__ import annotations

from ws_manager.repository.postgres.database import Database

LOCK = "bars"
"""The name of the lock."""

_AGENT, _TOKEN = "agent", "token"


class Bars:
    """Statements on `bars`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def bar(self, agent: str, at: str) -> bool:
        return self._insert(_AGENT, agent, at)

    def unbar(self, agent: str) -> bool:
        self._db.lock(LOCK)
        return bool(self._db.execute("DELETE FROM bars WHERE kind = %s AND name = %s", (_AGENT, agent)))

    def revoke(self, token: str, at: str) -> bool:
        return self._insert(_TOKEN, token, at)

    def agents(self) -> list[tuple[str, str]]:
        rows = self._db.rows("SELECT name, at FROM bars WHERE kind = %s ORDER BY name", (_AGENT,))
        return [(str(name), str(at)) for name, at in rows]

    def is_barred(self, agent: str) -> bool:
        return self._has(_AGENT, agent)

    def is_revoked(self, token: str) -> bool:
        return self._has(_TOKEN, token)

    def _insert(self, kind: str, name: str, at: str) -> bool:
        self._db.lock(LOCK)
        return bool(
            self._db.execute(
                "INSERT INTO bars (kind, name, at) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (kind, name, at),
            )
        )

    def _has(self, kind: str, name: str) -> bool:
        if self._db.locks:
            self._db.lock_shared(LOCK)
        found = self._db.value("SELECT 1 FROM bars WHERE kind = %s AND name = %s", (kind, name))
        return found is not None
