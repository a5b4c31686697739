"""A session with PostgreSQL: its settings, its transactions, and its errors as ours."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Optional, Union

from ws_manager.errors import (
    InvalidInput,
    LedgerBusy,
    LedgerError,
    LedgerFull,
    MissingExtra,
)
from ws_manager.settings import DatabaseUrl

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

SCHEMA = "ws_manager"
"""The schema of PostgreSQL that has the ledger's tables. Other programs may use the rest of the database."""

CHANNEL = "ws_manager"
"""The channel of LISTEN and NOTIFY on which commits are announced."""

BUSY_SECONDS = 30
_CONNECT_SECONDS = 10
# A peer that has vanished is noticed in about half a minute, and not after the system's two hours.
_KEEPALIVE = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}

_SETTINGS = f"""SELECT
  set_config('search_path', '{SCHEMA}', false),
  set_config('lock_timeout', '{BUSY_SECONDS}s', false),
  set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')
    THEN 'on' ELSE current_setting('synchronous_commit') END, false),
  current_setting('server_encoding')"""

Row = tuple[Any, ...]
Parameters = Union[Sequence[object], Mapping[str, object]]


class Database:
    """A session with one database. It belongs to the thread and the process that opened it.

    A session that was lost is opened again by the next statement outside of a transaction.

    Args:
        url: of libpq. `PGPASSFILE`, `PGSERVICE` and the other variables of libpq count too.

    Attributes:
        url: as given: it may hold a password.
        location: the URL as people may see it.
        sessions: how many were opened; another number means that what belonged to the session is gone.

    Raises:
        LedgerError: PostgreSQL cannot be reached, or the database cannot be used.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.location = str(DatabaseUrl(url))
        self.sessions = 0
        self._closed = False
        self._reads_only = False
        self._pid = os.getpid()
        self._session: psycopg.Connection[Row] = self._connected()

    def _connected(self) -> psycopg.Connection[Row]:
        try:
            given = psycopg.conninfo.conninfo_to_dict(self.url)
        except psycopg.ProgrammingError:
            # Its message quotes the URL, with a password.
            raise InvalidInput(
                f"{self.location} is not a URL of PostgreSQL", hint="postgresql://user@host:port/database"
            ) from None
        usual: dict[str, Any] = {
            "connect_timeout": _CONNECT_SECONDS,
            "application_name": "ws-manager",
            **_KEEPALIVE,
        }
        usual = {name: value for name, value in usual.items() if name not in given}
        try:
            session = psycopg.connect(self.url, autocommit=True, client_encoding="UTF8", **usual)
        except psycopg.OperationalError as error:
            raise LedgerError(
                f"cannot open {self.location}: {_first_line(error)}",
                hint="check the address, the user, and that PostgreSQL runs",
                cause="the ledger's database cannot be reached",
            ) from None
        try:
            encoding = session.execute(_SETTINGS).fetchone()
            if encoding is None or encoding[-1] != "UTF8":
                raise LedgerError(
                    f"the encoding of {self.location} is not UTF8",
                    hint="make a database with ENCODING 'UTF8'",
                )
        except BaseException:
            session.close()
            raise
        self.sessions += 1
        return session

    @property
    def session(self) -> psycopg.Connection[Row]:
        """The session; a new one if it was lost outside of a transaction."""
        if os.getpid() != self._pid:
            raise LedgerError(
                "this database connection was opened before a fork and cannot be used after it",
                hint="open the ledger in the child process",
            )
        if self._session.closed and not self._closed:
            self._session = self._connected()
        return self._session

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._session.info.transaction_status not in (
            TransactionStatus.IDLE,
            TransactionStatus.UNKNOWN,
        )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is written, or nothing. Inside another one it is a savepoint.

        Raises:
            LedgerBusy: somebody kept a lock for 30 seconds, or two transactions waited for each other.
            LedgerError: the database cannot be used. If the session was lost during the commit itself, nobody knows
                whether that was done.
        """
        outermost = not self.in_transaction
        with self.translated(), self.session.transaction():
            yield
        if outermost:
            self._announce()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read one state throughout the block."""
        if self.in_transaction:
            yield
            return
        with self.translated():
            self.session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        self._reads_only = True
        try:
            yield
        finally:
            self._reads_only = False
            if not self._session.closed:
                self._session.execute("ROLLBACK")

    def execute(self, sql: str, parameters: Parameters = ()) -> int:
        """Run a statement, and return how many rows it has changed. Placeholders are `%s`."""
        with self.translated():
            return self.session.execute(sql, parameters or None).rowcount

    def execute_many(self, sql: str, parameters: Iterable[Parameters]) -> None:
        """Run a statement for each of some parameters."""
        with self.translated(), self.session.cursor() as cursor:
            cursor.executemany(sql, parameters)

    def copy(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Write rows by COPY: for many rows the fastest way."""
        statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
        with self.translated(), self.session.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Return the rows of a query."""
        with self.translated():
            return self.session.execute(sql, parameters or None).fetchall()

    def row(self, sql: str, parameters: Parameters = ()) -> Optional[Row]:
        """Return the first row of a query, or None."""
        with self.translated():
            return self.session.execute(sql, parameters or None).fetchone()

    def value(self, sql: str, parameters: Parameters = ()) -> Any:  # noqa: ANN401 - whatever the column holds
        """Return the first column of the first row of a query, or None."""
        row = self.row(sql, parameters)
        return row[0] if row else None

    def lock(self, *what: object) -> None:
        """Let nobody else pass here with the same name until the transaction ends: for what has no row yet."""
        self.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (":".join(map(str, what)),))

    def lock_shared(self, *what: object) -> None:
        """Let others pass with `lock_shared`, but nobody with `lock`, until the transaction ends."""
        self.execute(
            "SELECT pg_advisory_xact_lock_shared(hashtextextended(%s, 0))", (":".join(map(str, what)),)
        )

    @property
    def locks(self) -> bool:
        """Whether what is read now must stay as it is until a transaction ends, so that it has to be locked.

        Not in a `snapshot`: it stays the same there by itself, and a transaction that only reads may lock no row.
        """
        return self.in_transaction and not self._reads_only

    @property
    def for_update(self) -> str:
        """What a SELECT ends with whose rows must stay as they are until the transaction ends: nothing without one.

        `NO KEY`: what only refers to a row need not wait.
        """
        return " FOR NO KEY UPDATE" if self.locks else ""

    def notified(self, seconds: float) -> bool:
        """Wait for an announcement of a commit on this session, which must LISTEN. False if none came."""
        with self.translated():
            return bool(list(self.session.notifies(timeout=seconds, stop_after=1)))

    def interrupt(self) -> None:
        """Let the statement fail that runs now, in whichever thread."""
        with contextlib.suppress(psycopg.Error):
            self._session.cancel_safe(timeout=_CONNECT_SECONDS)

    def close(self) -> None:
        """End the session."""
        self._closed = True
        self._session.close()

    def translated(self) -> contextlib.AbstractContextManager[None]:
        """Turn PostgreSQL's errors about the database into ours."""
        return translated_errors(self.location)

    def _announce(self) -> None:
        """Say that something was committed: a hint, for everybody also looks by himself.

        Not in the transaction itself: NOTIFY takes a lock that all commits of the database would wait for.
        """
        with contextlib.suppress(LedgerError, psycopg.Error):
            self.execute(f"NOTIFY {CHANNEL}")


@contextlib.contextmanager
def translated_errors(location: str) -> Iterator[None]:
    """Turn PostgreSQL's errors about the database into ours, each with what to do next.

    Args:
        location: the URL that the errors will name, without a password.

    Raises:
        InvalidInput: a value has half of a surrogate pair, which UTF-8 cannot hold, or a NUL.
        LedgerError: the database cannot be used.
    """
    try:
        yield
    except UnicodeEncodeError:
        raise InvalidInput("a name or a text is not valid Unicode", hint="give it in UTF-8") from None
    except psycopg.DataError as error:
        if "NUL" in str(error):
            raise InvalidInput("a name or a text has a NUL character, which PostgreSQL cannot hold") from None
        raise
    except psycopg.Error as error:
        explained = _explained(error, location)
        if explained is None:
            raise
        raise explained from error


def _explained(error: psycopg.Error, location: str) -> Optional[LedgerError]:
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
        return LedgerError(
            f"{location} has failed: {_first_line(error)}",
            hint="try again once PostgreSQL runs; a commit that was under way may have been done",
            cause="the ledger's database cannot be reached",
        )
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
