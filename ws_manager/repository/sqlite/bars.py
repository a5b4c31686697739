"""The `bars` table: the agents and the tokens that a gateway does not let in."""

from __future__ import annotations

from ws_manager.repository.sqlite.database import Database

_AGENT, _TOKEN = "agent", "token"


class Bars:
    """Statements on `bars`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def bar(self, agent: str, at: str) -> bool:
        return self._insert(_AGENT, agent, at)

    def unbar(self, agent: str) -> bool:
        return bool(
            self._db.execute("DELETE FROM bars WHERE kind = ? AND name = ?", (_AGENT, agent)).rowcount
        )

    def revoke(self, token: str, at: str) -> bool:
        return self._insert(_TOKEN, token, at)

    def agents(self) -> list[tuple[str, str]]:
        rows = self._db.rows("SELECT name, at FROM bars WHERE kind = ? ORDER BY name", (_AGENT,))
        return [(str(name), str(at)) for name, at in rows]

    def is_barred(self, agent: str) -> bool:
        return self._has(_AGENT, agent)

    def is_revoked(self, token: str) -> bool:
        return self._has(_TOKEN, token)

    def _insert(self, kind: str, name: str, at: str) -> bool:
        return bool(
            self._db.execute(
                "INSERT INTO bars (kind, name, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (kind, name, at)
            ).rowcount
        )

    def _has(self, kind: str, name: str) -> bool:
        found = self._db.value("SELECT 1 FROM bars WHERE kind = ? AND name = ?", (kind, name))
        return found is not None
