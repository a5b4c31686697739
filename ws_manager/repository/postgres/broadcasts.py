"""To be written."""

from __future__ import annotations

from ws_manager.repository.postgres.database import Database


class Broadcasts:
    """Statements."""

    def __init__(self, db: Database) -> None:
        self._db = db
