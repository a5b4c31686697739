"""Which engine keeps a ledger. It is decided here and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ws_manager.errors import InvalidInput
from ws_manager.settings import DatabaseUrl, located

if TYPE_CHECKING:
    from ws_manager.repository.sqlite.database import Database
    from ws_manager.repository.store import Engine, Store
    from ws_manager.settings import Location

_POSTGRES = ("postgresql", "postgres")


def engine_of(location: Location) -> Engine:
    """Return the engine for a location.

    Raises:
        InvalidInput: it is a URL, and no engine of this version takes one.
        MissingExtra: the package that the engine needs is not installed.
    """
    where = located(location)
    if isinstance(where, DatabaseUrl):
        if where.scheme in _POSTGRES:
            from ws_manager.repository.postgres.engine import PostgresEngine

            return PostgresEngine()
        raise InvalidInput(
            f"no ledger can be at a URL: {where.scheme}://…",
            hint="give the path of a file, or a database of PostgreSQL: postgresql://user@host:port/database",
        )
    from ws_manager.repository.sqlite.engine import SqliteEngine

    return SqliteEngine()


def connection_to(location: Location, *, shared: bool = False) -> Database:
    """Open a SQLite ledger, for callers that use the connection themselves too. Arguments and errors of `get_db`."""
    where = located(location)
    if isinstance(where, DatabaseUrl) or isinstance(location, DatabaseUrl):
        raise InvalidInput("get_db() opens a SQLite file, and not a URL", hint="use open_ledger()")
    from ws_manager.repository.sqlite.opening import open_to_write

    # As it was given: an empty text is no path, but would be made one.
    return open_to_write(location, shared=shared)


def store_over(db_conn: object) -> Store:
    """Return the store over a connection of `get_db`.

    Raises:
        InvalidInput: (a ValueError) it did not come from there.
    """
    from ws_manager.repository.sqlite.database import Database
    from ws_manager.repository.sqlite.store import SqliteStore

    if not isinstance(db_conn, Database):
        raise InvalidInput("not a connection to a ledger", hint="open it with get_db() or open_ledger()")
    return SqliteStore(db_conn)
