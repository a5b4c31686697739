"""Who holds what. The server releases it when the holder's session ends, or when its lease has run out."""

from __future__ import annotations

import contextlib
import socket
from typing import Optional

from ws_manager.errors import LedgerError
from ws_manager.models import utc_now
from ws_manager.repository.postgres.database import Database

FORGOTTEN_SECONDS = 3600

_PATIENCE = 4
"""Whole seconds: a renewal that does not succeed soon is tried again, on another session."""


# `now()` would be the beginning of the transaction.
_UNTIL = "clock_timestamp() + %(seconds)s * interval '1 second'"


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
    """A gateway's lease. It is renewed on a session of its own: nothing else may delay that.

    Args:
        db: the session that begins it.
        gateway_id: of the gateway.
        seconds: how long it lasts after it was renewed, by the clock that all gateways share, the database's.
    """

    def __init__(self, db: Database, gateway_id: str, seconds: float) -> None:
        self._url = db.url
        self._gateway_id = gateway_id
        self._seconds = seconds
        self._db: Optional[Database] = None
        with db.transaction():
            db.execute(
                "DELETE FROM leases WHERE until < clock_timestamp() - %s * interval '1 second'",
                (FORGOTTEN_SECONDS,),
            )
            self._begin(db)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """A lease has none."""
        return ()

    @property
    def lease(self) -> Lease:
        """What has to be renewed: this."""
        return self

    def renew(self) -> bool:
        """Let it last anew from now on, and note that the gateway runs. False if it had run out: it begins again."""
        if self._db is None:
            self._db = Database(self._url, _PATIENCE)
        db = self._db
        with db.transaction():
            lasted = db.execute(
                f"UPDATE leases SET until = {_UNTIL} WHERE gateway = %(gateway)s AND until > clock_timestamp()",
                self._parameters,
            )
            if not lasted:
                self._begin(db)
            db.execute("UPDATE gateways SET seen_at = %s WHERE id = %s", (utc_now(), self._gateway_id))
        return bool(lasted)

    def break_off(self) -> None:
        """Let a renewal fail that is under way, also where the database does not answer."""
        if self._db is not None:
            self._db.break_off()

    def release(self) -> None:
        """End the lease now. Where the database cannot be reached, it ends by itself."""
        with contextlib.suppress(LedgerError):
            db = Database(self._url, _PATIENCE)
            try:
                # Its agents' time to come back elsewhere counts from now on.
                with db.transaction():
                    db.execute(
                        "UPDATE gateways SET seen_at = %s WHERE id = %s", (utc_now(), self._gateway_id)
                    )
                    db.execute("DELETE FROM leases WHERE gateway = %s", (self._gateway_id,))
            finally:
                db.close()
        if self._db is not None:
            self._db.close()

    def _begin(self, db: Database) -> None:
        db.execute(
            f"INSERT INTO leases (gateway, until, host) VALUES (%(gateway)s, {_UNTIL}, %(host)s)"
            " ON CONFLICT (gateway) DO UPDATE SET until = excluded.until",
            self._parameters,
        )

    @property
    def _parameters(self) -> dict[str, object]:
        return {"gateway": self._gateway_id, "seconds": self._seconds, "host": socket.gethostname()}


def living(db: Database, *, here: bool = False) -> frozenset[str]:
    """Return the ids of the gateways whose lease has not run out: all, or those on this machine."""
    rows = db.rows("SELECT gateway, host FROM leases WHERE until > clock_timestamp()")
    return frozenset(gateway for gateway, host in rows if not here or host == socket.gethostname())


class Shared:
    """The right to be a gateway, which any number of processes may have here."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """None are needed."""
        return ()

    def release(self) -> None:
        """There is nothing to release."""
