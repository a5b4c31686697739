"""Notices commits, by any session: by a hint, or by looking once a second."""

from __future__ import annotations

import time
from typing import Optional

from ws_manager.repository.postgres.database import Database
from ws_manager.repository.postgres.hints import EVENTS, EVERYTHING, channel_of

_SWEEP_SECONDS = 1.0
_WAIT_SECONDS = 0.02


class Changes:
    """Watches the database of a session.

    A hint may be lost: with a session that is opened again, or with a process that ended between its commit and the
    hint. So once a second it says that something may have happened.

    Args:
        db: the session. It listens from now on.
        gateway: the gateway whose connections are watched; None for everything.
    """

    def __init__(self, db: Database, gateway: Optional[str] = None) -> None:
        self._db = db
        self._gateway = gateway
        self._channels = [EVERYTHING] if gateway is None else [channel_of(gateway), EVENTS]
        self._wide = False
        self._sessions = self._hints = 0
        self._looked_at = time.monotonic()
        for channel in self._channels:
            db.listen(channel)

    def happened(self) -> bool:
        now = time.monotonic()
        self._db.notified(0.0)
        hints = sum(map(self._db.hints, self._channels))
        # What was sent while no session listened is lost.
        if (hints, self._db.sessions) == (
            self._hints,
            self._sessions,
        ) and now - self._looked_at < _SWEEP_SECONDS:
            return False
        self._hints, self._sessions, self._looked_at = hints, self._db.sessions, now
        return True

    def wait(self) -> None:
        self._db.notified(_WAIT_SECONDS)

    def widen(self, everything: bool) -> None:
        if self._gateway is None or everything == self._wide:
            return
        self._wide = everything
        if everything:
            self._channels.append(EVERYTHING)
            self._db.listen(EVERYTHING)
            # Something may have been committed just before.
            self._sessions = 0
        else:
            self._channels.remove(EVERYTHING)
            self._db.unlisten(EVERYTHING)

    def close(self) -> None:
        for channel in self._channels:
            self._db.unlisten(channel)
        self._channels = []
