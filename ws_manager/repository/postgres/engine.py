"""What can be asked about a database of PostgreSQL without a ledger being open there; see `Engine`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Optional

from ws_manager.errors import InvalidInput, LedgerError
from ws_manager.remedies import CHECK_LOCATION
from ws_manager.repository.postgres.database import Database
from ws_manager.repository.postgres.locks import Shared
from ws_manager.repository.postgres.schema import VERSION, check, mend, migrate, restored, version_of
from ws_manager.repository.postgres.store import PostgresStore
from ws_manager.settings import DatabaseUrl, located

if TYPE_CHECKING:
    from ws_manager.repository.findings import Finding
    from ws_manager.repository.store import Hold
    from ws_manager.settings import Location


class PostgresEngine:
    """Ledgers in databases of PostgreSQL."""

    def exists(self, location: Location) -> bool:
        with _session(location) as db:
            return version_of(db) > 0

    def check(self, location: Location, *, shared: bool = False) -> None:
        with _session(location) as db:
            check(db, version_of(db))

    def open_to_write(
        self, location: Location, *, create: bool = True, shared: bool = False
    ) -> PostgresStore:
        if shared:
            raise InvalidInput(
                "--shared is for a database file", hint="leave it out: PostgreSQL keeps schemas apart"
            )
        store = _opened(location, create=create)
        try:
            if restored(store.db):
                mend(store.db)
        except BaseException:
            store.close()
            raise
        return store

    def open_to_read(self, location: Location) -> PostgresStore:
        return _opened(location, create=False)

    def hold_gateway(self, location: Location) -> Optional[Hold]:
        return Shared()

    def caveats(self, location: Location) -> list[str]:
        return []

    def engine_caveat(self) -> Optional[str]:
        return None

    def complete(self, location: Location, kind: str, prefix: str) -> list[str]:
        from ws_manager.repository.postgres.completion import complete

        return complete(_url(location), kind, prefix)

    def examine(self, location: Location) -> Iterator[Finding]:
        from ws_manager.repository.postgres.doctor import examine

        return examine(_url(location))


def _url(location: Location) -> str:
    where = located(location)
    assert isinstance(where, DatabaseUrl)
    return where.url


@contextlib.contextmanager
def _session(location: Location) -> Iterator[Database]:
    db = Database(_url(location))
    try:
        yield db
    finally:
        db.close()


def _opened(location: Location, *, create: bool) -> PostgresStore:
    db = Database(_url(location))
    try:
        found = version_of(db)
        check(db, found)
        if not found and not create:
            raise LedgerError(
                f"there is no ledger in {db.location}",
                remedy=CHECK_LOCATION,
                cause="there is no ledger",
            )
        if found != VERSION:
            migrate(db)
    except BaseException:
        db.close()
        raise
    return PostgresStore(db)
