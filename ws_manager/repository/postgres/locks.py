"""Who holds what. The server releases it when the holder's session ends, or when its lease has run out."""

from __future__ import annotations

import contextlib
from typing import Optional

from ws_manager.errors import LedgerError
from ws_manager.repository.postgres.database import Database

LEASE_SECONDS = 60
"""For this long after its last note a gateway counts as living, by the clock of the database."""


class SessionLock:
    """An advisory lock of a session of its own (section 13.3.5 of PostgreSQL's manual).

    Args:
        url: of the database.
        what: is held.
    """

    def __init__(self, url: str, what: str) -> None:
        self._db: Optional[Database] = None
        self._url = url
        self._what = what

    @property
    def descriptors(self) -> tuple[int, ...]:
        """No child process can inherit a session."""
        return ()

    def acquire(self) -> bool:
        """Take the lock, without waiting. False if it is held."""
        db = Database(self._url)
        if not db.value("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (self._what,)):
            db.close()
            return False
        self._db = db
        return True

    def release(self) -> None:
        """Release the lock, if it is held here."""
        if self._db is not None:
            self._db.close()
            self._db = None


class Lease:
    """A gateway's lease. `Gateways.insert` begins it, `Gateways.seen` renews it.

    Args:
        url: of the database.
        gateway_id: of the gateway.
    """

    def __init__(self, url: str, gateway_id: str) -> None:
        self._url = url
        self._gateway_id = gateway_id

    @property
    def descriptors(self) -> tuple[int, ...]:
        """A lease has none."""
        return ()

    def release(self) -> None:
        """End the lease now. Where the database cannot be reached, it ends by itself."""
        with contextlib.suppress(LedgerError):
            db = Database(self._url)
            try:
                db.execute("UPDATE gateways SET lease_until = clock_timestamp() WHERE id = %s", (self._gateway_id,))
            finally:
                db.close()


class Shared:
    """The right to be a gateway, which any number of processes may have here."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """None are needed."""
        return ()

    def release(self) -> None:
        """There is nothing to release."""
