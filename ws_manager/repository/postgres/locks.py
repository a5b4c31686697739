"""Who holds what. The server releases it when the holder's session ends, or when its lease has run out."""

from __future__ import annotations

import contextlib
from typing import Optional

from ws_manager.errors import LedgerError
from ws_manager.repository.postgres.database import Database

LEASE_SECONDS = 60
"""For this long after its last note a gateway counts as living, by the clock of the database."""

FORGOTTEN_SECONDS = 3600

# By the clock that all gateways share. `now()` would be the beginning of the transaction.
UNTIL = f"clock_timestamp() + interval '{LEASE_SECONDS} seconds'"
"""When a lease that begins now ends."""


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
    """A gateway's lease, renewed by `Gateways.seen`.

    Args:
        db: the session that begins it. It ends on a session of its own, for another thread may end it.
        gateway_id: of the gateway.
    """

    def __init__(self, db: Database, gateway_id: str) -> None:
        self._url = db.url
        self._gateway_id = gateway_id
        db.execute(f"DELETE FROM leases WHERE until < {UNTIL} - interval '{FORGOTTEN_SECONDS} seconds'")
        db.execute(f"INSERT INTO leases (gateway, until) VALUES (%s, {UNTIL})", (gateway_id,))

    @property
    def descriptors(self) -> tuple[int, ...]:
        """A lease has none."""
        return ()

    def release(self) -> None:
        """End the lease now. Where the database cannot be reached, it ends by itself."""
        with contextlib.suppress(LedgerError):
            db = Database(self._url)
            try:
                db.execute("DELETE FROM leases WHERE gateway = %s", (self._gateway_id,))
            finally:
                db.close()


def living(db: Database) -> frozenset[str]:
    """Return the ids of the gateways whose lease has not run out."""
    return frozenset(row[0] for row in db.rows("SELECT gateway FROM leases WHERE until > clock_timestamp()"))


class Shared:
    """The right to be a gateway, which any number of processes may have here."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """None are needed."""
        return ()

    def release(self) -> None:
        """There is nothing to release."""
