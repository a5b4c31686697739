"""Statements for many messages to many connections at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Optional

from ws_manager.repository.sqlite.database import Database

# SQLite takes 32,766 parameters a statement.
_NAMES_A_STATEMENT = 5000
_ROWS_A_STATEMENT = 500


@lru_cache(maxsize=2)
def _insert(rows: int) -> str:
    """Return the statement that writes so many messages that have only the time in common."""
    each = ", ".join(["(?, ?, ?, ?)"] * rows)
    return (
        "WITH shared (sent_at) AS (SELECT ?)"
        " INSERT INTO messages (msg_id, msg_type, recipient_id, content, sent_at)"
        f" SELECT each.*, sent_at FROM shared CROSS JOIN (VALUES {each}) AS each"
    )


class Bulk:
    """Statements on `connections` and `messages`. Every write must be inside `Database.transaction`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def active_among(self, ws_ids: Collection[str]) -> set[str]:
        """Return those of the given ws_ids that are active."""
        wanted = list(ws_ids)
        active: set[str] = set()
        for start in range(0, len(wanted), _NAMES_A_STATEMENT):
            some = wanted[start : start + _NAMES_A_STATEMENT]
            active.update(
                row[0]
                for row in self._db.rows(
                    "SELECT ws_id FROM connections WHERE status = 'active'"
                    f" AND ws_id IN ({', '.join('?' * len(some))})",
                    some,
                )
            )
        return active

    def insert(self, messages: Sequence[tuple[str, str, Optional[str], str]], at: str) -> None:
        """Write messages of the system's, each given as msg_id, msg_type, recipient_id and content, in order."""
        for start in range(0, len(messages), _ROWS_A_STATEMENT):
            some = messages[start : start + _ROWS_A_STATEMENT]
            self._db.execute(_insert(len(some)), (at, *(value for row in some for value in row)))

    def add_to_counters(self, messages: Mapping[str, int]) -> None:
        """Add to the message counter of each ws_id so many messages."""
        self._db.executemany(
            "UPDATE connections SET message_count = message_count + ? WHERE ws_id = ?",
            [(count, ws_id) for ws_id, count in messages.items()],
        )
