"""Which engine keeps a ledger. It is decided here and nowhere else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ws_manager.errors import InvalidInput

if TYPE_CHECKING:
    from ws_manager.repository.sqlite.database import Database
    from ws_manager.repository.store import Engine, Location, Store


_URL = r"[A-Za-z][A-Za-z0-9+.\-]*://"
POSTGRES = ("postgresql", "postgres")
"""The schemes of PostgreSQL's URLs."""

# One letter is a drive of Windows.
_URL_AS_PATH = r"[A-Za-z][A-Za-z0-9+.\-]+:/"


def is_url(location: Location) -> bool:
    """Return whether a location is a URL, such as `postgresql://…`, and not the path of a file."""
    # A Path has lost one of the slashes.
    return re.match(_URL if isinstance(location, str) else _URL_AS_PATH, str(location)) is not None


def _scheme(location: Location) -> str:
    """Return what may be shown of a URL: the rest may hold a password."""
    return f"{str(location).partition(':')[0]}://…"


def engine_of(location: Location) -> Engine:
    """Return the engine for a location.

    Raises:
        InvalidInput: it is a URL, and no engine of this version takes one.
    """
    if is_url(location):
        if str(location).partition(":")[0].lower() in POSTGRES:
            from ws_manager.repository.postgres.engine import PostgresEngine

            return PostgresEngine()
        raise InvalidInput(
            f"no ledger can be at a URL: {_scheme(location)}",
            hint="give the path of a file, or the URL of a database: postgresql://…",
        )
    from ws_manager.repository.sqlite.engine import SqliteEngine

    return SqliteEngine()


def connection_to(location: Location, *, shared: bool = False) -> Database:
    """Open a SQLite ledger, for callers that use the connection themselves too. Arguments and errors of `get_db`."""
    if is_url(location):
        raise InvalidInput(
            f"get_db() opens a SQLite file, and not {_scheme(location)}",
            hint="use open_ledger()",
        )
    from ws_manager.repository.sqlite.opening import open_to_write

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
