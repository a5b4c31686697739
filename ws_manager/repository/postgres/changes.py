"""Notices commits, by any session: by an announcement, or by looking once a second."""

from __future__ import annotations

import time

from ws_manager.repository.postgres.database import CHANNEL, Database

_SWEEP_SECONDS = 1.0
_WAIT_SECONDS = 0.02


class Changes:
    """Watches the database of a session.

    An announcement may be lost: with a session that is opened again, or with a process that ended between its commit
    and the announcement. So once a second it says that something may have happened.

    Args:
        db: the session. It listens from now on.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._listening = 0
        self._announced = True
        self._looked_at = time.monotonic()
        self._listen()

    def happened(self) -> bool:
        """Return whether anything may have been committed since the last call. The first call says yes."""
        now = time.monotonic()
        self._listen()
        self._announced = self._db.notified(0.0) or self._announced
        if not self._announced and now - self._looked_at < _SWEEP_SECONDS:
            return False
        self._announced, self._looked_at = False, now
        return True

    def wait(self) -> None:
        """Wait for an announcement, at most 20 ms."""
        self._listen()
        if self._db.notified(_WAIT_SECONDS):
            self._announced = True

    def close(self) -> None:
        """Listen no longer."""
        if self._listening == self._db.sessions:
            self._db.execute(f"UNLISTEN {CHANNEL}")

    def _listen(self) -> None:
        if self._listening != self._db.sessions:
            self._db.execute(f"LISTEN {CHANNEL}")
            self._listening = self._db.sessions
            self._announced = True
