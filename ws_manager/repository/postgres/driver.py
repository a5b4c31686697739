"""The package psycopg, and its errors as ours."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from typing import Optional

from ws_manager.errors import (
    InvalidInput,
    LedgerBusy,
    LedgerError,
    LedgerFull,
    LedgerUnreachable,
    MissingExtra,
)
from ws_manager.repository.copied import seal_in

try:
    import psycopg
    from psycopg import errors as pg
    from psycopg.pq import TransactionStatus
except ImportError as error:
    # It also fails where it is installed, but without libpq.
    raise MissingExtra(
        f"a ledger in PostgreSQL needs psycopg, which is the extra `postgres`: {str(error).partition(chr(10))[0]}",
        hint=f"{shlex.quote(sys.executable)} -m pip install 'psycopg[binary]>=3.2'",
    ) from error

__all__ = ["SEALED", "TransactionStatus", "first_line", "psycopg", "translated_errors"]

SEALED = "WSM01"
"""The SQLSTATE with which a sealed ledger refuses writes."""


@contextlib.contextmanager
def translated_errors(location: str) -> Iterator[None]:
    """Turn PostgreSQL's errors about the database into ours, each with what to do next.

    Args:
        location: the URL that the errors will name, without a password.

    Raises:
        InvalidInput: a value has half of a surrogate pair, which UTF-8 cannot hold, or a NUL; or it is a
            number that is too large.
        LedgerError: the database cannot be used.
    """
    try:
        yield
    except UnicodeEncodeError:
        raise InvalidInput("a name or a text is not valid Unicode", hint="give it in UTF-8") from None
    except psycopg.DataError as error:
        if "NUL" in str(error):
            raise InvalidInput("a name or a text has a NUL character, which PostgreSQL cannot hold") from None
        if isinstance(error, pg.NumericValueOutOfRange):
            raise InvalidInput("a number is larger than what PostgreSQL can hold") from error
        raise
    except psycopg.Error as error:
        explained = _explained(error, location)
        if explained is None:
            raise
        raise explained from error


def _explained(error: psycopg.Error, location: str) -> Optional[LedgerError]:
    if error.sqlstate == SEALED:
        seal = seal_in(error.diag.message_primary or "")
        if seal is not None:
            return seal.error(location)
    if isinstance(error, (pg.LockNotAvailable, pg.DeadlockDetected, pg.SerializationFailure)):
        return LedgerBusy(
            f"another session keeps a lock in {location}",
            hint="find it in pg_stat_activity, or try again",
            cause="the ledger is busy",
        )
    if isinstance(error, pg.DiskFull):
        what = "cannot grow: its disk is full"
        return LedgerFull(f"{location} {what}", hint="make room", cause=f"the ledger {what}")
    known: tuple[tuple[type[psycopg.Error], str, str], ...] = (
        (pg.QueryCanceled, "was interrupted", "run it again"),
        (
            pg.IdleInTransactionSessionTimeout,
            "has ended a transaction that stood still, and undone it",
            "run it again",
        ),
        (pg.UndefinedTable, "is not a ledger: a table is missing", "check the URL"),
        (
            pg.ReadOnlySqlTransaction,
            "cannot be written: it is a standby, or read-only",
            "use the primary's URL",
        ),
        (
            pg.InsufficientPrivilege,
            "does not allow this to its user",
            "grant the rights, or use another user",
        ),
    )
    for kind, what, hint in known:
        if isinstance(error, kind):
            return LedgerError(f"{location} {what}", hint=hint, cause=f"the ledger {what}")
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return LedgerUnreachable(
            f"{location} has failed: {first_line(error)}",
            hint="try again once PostgreSQL runs; a commit that was under way may have been done",
        )
    return None


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
