"""A session with PostgreSQL: its settings and its transactions.

Many write at the same time, and what one transaction has locked the others wait for. So that no two wait for each
other, every transaction takes its locks in this order, and leaves out what it does not need:

1. the schema (`migrate`, once, when a ledger is opened);
2. idempotency keys, in ascending order, all that it needs by one call;
3. a webhook's event;
4. the bars: shared by whoever registers, alone for whoever changes them;
5. the name of a ws_id that has no row yet;
6. rows of `connections` in the order of their ids, all that it needs by one statement;
7. what belongs to one of these connections: its hold, its asks, its messages, its attempts;
8. rows that only statements on whole tables share, such as `deleted`; of many rows in the order of their ids, or
   `SKIP LOCKED`.

A second step of the same kind in one transaction would be out of order: what comes later is another transaction.
Reading takes no locks but for what must stay as it is until the end of a transaction that writes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Optional, Union

from ws_manager.errors import InvalidInput, LedgerError, LedgerUnreachable
from ws_manager.repository.postgres.driver import TransactionStatus, first_line, psycopg, translated_errors
from ws_manager.repository.postgres.hints import EVERYTHING, LISTENING, Announcer, announcer_of
from ws_manager.repository.postgres.hints import SEND as SEND_HINT
from ws_manager.settings import DatabaseUrl

SCHEMA = "ws_manager"
"""The schema of PostgreSQL that has the ledger's tables. Other programs may use the rest of the database."""

BUSY_SECONDS = 30

STILL_SECONDS = 10
"""After this long without a statement the server ends a transaction, and what it has locked is free again.

A process that is suspended, or whose machine has gone, would otherwise keep others from its connections.
"""

_CONNECT_SECONDS = 10
_CANCEL_SECONDS = 2.0
_IDLE_SECONDS = 1.0
# A peer that has vanished is noticed in about half a minute, and not after the system's two hours.
_KEEPALIVE = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}

# What is delivered and confirmed is in memory. By the server's usual guess, made for disks that turn, each batch of
# receipts would read the whole of a table that is not large yet.
_SETTINGS = f"""SELECT
  set_config('search_path', '{SCHEMA}', false),
  set_config('lock_timeout', '{BUSY_SECONDS}s', false),
  set_config('idle_in_transaction_session_timeout', '{STILL_SECONDS}s', false),
  set_config('tcp_keepalives_idle', '10', false),
  set_config('tcp_keepalives_interval', '5', false),
  set_config('tcp_keepalives_count', '4', false),
  set_config('random_page_cost', '1.1', false),
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
        patience: whole seconds to wait for a server to let it in, for an answer of its network, and for a lock; None
            for the usual.

    Attributes:
        url: as given: it may hold a password.
        location: the URL as people may see it.
        sessions: how many were opened; another number means that what belonged to the session is gone.

    Raises:
        LedgerError: PostgreSQL cannot be reached, or the database cannot be used.
    """

    def __init__(self, url: str, patience: Optional[int] = None) -> None:
        self.url = url
        self.location = str(DatabaseUrl(url))
        self.sessions = 0
        self._patience = patience
        self._closed = False
        self._reads_only = False
        self._blocks = 0
        self._used_at = 0.0
        self._pid = os.getpid()
        # Another thread shuts this one down: the number of the session's own may belong to something else by then.
        self._plug: Optional[socket.socket] = None
        self._plugging = threading.Lock()
        self._concerned: set[str] = set()
        self._listeners: Counter[str] = Counter()
        self._hints: Counter[str] = Counter()
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
        if self._patience is not None:
            usual |= {"connect_timeout": self._patience, "tcp_user_timeout": self._patience * 1000}
        try:
            session = psycopg.connect(self.url, autocommit=True, client_encoding="UTF8", **usual)
        except psycopg.OperationalError as error:
            raise LedgerUnreachable(
                f"cannot open {self.location}: {first_line(error)}",
                hint="check the address, the user, and that PostgreSQL runs",
            ) from None
        self._plug_in(session)
        try:
            with translated_errors(self.location):
                encoding = session.execute(_SETTINGS).fetchone()
                if self._patience is not None:
                    session.execute(f"SET lock_timeout = '{self._patience}s'")
            if encoding is None or encoding[-1] != "UTF8":
                raise LedgerError(
                    f"the encoding of {self.location} is not UTF8",
                    hint="make a database with ENCODING 'UTF8'",
                )
            with translated_errors(self.location):
                for channel in self._listeners:
                    _listen(session, channel)
        except BaseException:
            session.close()
            self._unplug()
            raise
        self.sessions += 1
        return session

    def _unplug(self) -> None:
        with self._plugging:
            if self._plug is not None:
                self._plug.close()
                self._plug = None

    def _plug_in(self, session: psycopg.Connection[Row]) -> None:
        self._unplug()
        with self._plugging:
            self._plug = socket.fromfd(session.fileno(), socket.AF_INET, socket.SOCK_STREAM)

    @property
    def session(self) -> psycopg.Connection[Row]:
        """The session; a new one if it was lost outside of a transaction.

        Raises:
            LedgerUnreachable: it was lost inside of one, or there can be no new one.
        """
        if os.getpid() != self._pid:
            raise LedgerError(
                "this database connection was opened before a fork and cannot be used after it",
                hint="open the ledger in the child process",
            )
        self._look_for_its_end()
        if self._session.closed and not self._closed:
            if self._blocks:
                # What was done of the block is undone, so the rest of it must not be done either.
                raise LedgerUnreachable(f"the session with {self.location} was lost", hint="try again")
            self._session = self._connected()
        return self._session

    def _look_for_its_end(self) -> None:
        """Notice that the server has ended a session that was idle: otherwise the next statement would fail."""
        before, self._used_at = self._used_at, time.monotonic()
        if self._used_at - before > _IDLE_SECONDS and not self._session.closed and not self.in_transaction:
            with contextlib.suppress(psycopg.OperationalError):
                # The first one may read what the server said before the end.
                self._session.pgconn.consume_input()
                self._session.pgconn.consume_input()

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
        with self.translated():
            session = self.session
            outermost = not self.in_transaction
            if outermost:
                self._concerned.clear()
            self._blocks += 1
            try:
                with session.transaction():
                    yield
            finally:
                self._blocks -= 1
        if outermost:
            self._announcer.announce(self, {EVERYTHING, *self._concerned})

    def concerns(self, channels: Iterable[str]) -> None:
        """Remember whom the open transaction concerns: they get a hint once it is committed."""
        self._concerned.update(channels)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read one state throughout the block."""
        if self.in_transaction:
            yield
            return
        with self.translated():
            self.session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            self.may_stand_still()
        self._reads_only = True
        self._blocks += 1
        try:
            yield
        finally:
            self._reads_only = False
            self._blocks -= 1
            # A session that is lost has nothing to end.
            with contextlib.suppress(psycopg.OperationalError):
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

    def may_stand_still(self) -> None:
        """Let this transaction go on for as long as it takes: nobody waits for it, and it may wait for a user."""
        self.execute("SET LOCAL idle_in_transaction_session_timeout = 0")

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

    def listen(self, channel: str) -> None:
        """Listen for hints on a channel, on this session and on those that replace it, until `unlisten`."""
        self._listeners[channel] += 1
        if self._listeners[channel] == 1:
            with self.translated():
                _listen(self.session, channel)

    def unlisten(self, channel: str) -> None:
        """Listen no longer, if nobody else does on this session."""
        self._listeners[channel] -= 1
        if self._listeners[channel]:
            return
        del self._listeners[channel]
        # A session that is lost listens no longer.
        if not self._session.closed:
            with contextlib.suppress(psycopg.OperationalError):
                _unlisten(self._session, channel)

    def send_hint(self, channels: Collection[str]) -> None:
        """Send a hint on some channels.

        One that cannot be sent is lost: what was committed stays so, and whoever listens also looks by himself.
        """
        with contextlib.suppress(LedgerError, psycopg.Error):
            self.execute(SEND_HINT, (list(channels), EVERYTHING in self._listeners))

    def notified(self, seconds: float) -> None:
        """Wait for a hint on this session."""
        with self.translated():
            for hint in self.session.notifies(timeout=seconds, stop_after=1):
                self._hints[hint.channel] += 1

    def hints(self, channel: str) -> int:
        """Return how many hints have come on a channel."""
        return self._hints[channel]

    def interrupt(self) -> None:
        """Let the statement fail that runs now, in whichever thread. It takes at most about 2 seconds."""
        with contextlib.suppress(psycopg.Error):
            self._session.cancel_safe(timeout=_CANCEL_SECONDS)

    def break_off(self) -> None:
        """Lose the session, in whichever thread: what waits for a server that does not answer fails at once."""
        with self._plugging, contextlib.suppress(OSError):
            if self._plug is not None:
                self._plug.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the session."""
        if not (self._closed or self._session.closed or self.in_transaction) and os.getpid() == self._pid:
            self._announcer.flush(self)
        self._closed = True
        self._session.close()
        self._unplug()

    def translated(self) -> contextlib.AbstractContextManager[None]:
        """Turn PostgreSQL's errors about the database into ours."""
        return translated_errors(self.location)

    @property
    def _announcer(self) -> Announcer:
        return announcer_of(self.url, lambda: Database(self.url))


def _listen(session: psycopg.Connection[Row], channel: str) -> None:
    session.execute(f"LISTEN {_quoted(channel)}".encode())
    if channel == EVERYTHING:
        # Those who send look for this lock. It is taken afterwards, so whoever sees it can rely on the other.
        session.execute(f"SELECT pg_advisory_lock_shared({LISTENING})".encode())


def _unlisten(session: psycopg.Connection[Row], channel: str) -> None:
    session.execute(f"UNLISTEN {_quoted(channel)}".encode())
    if channel == EVERYTHING:
        session.execute(f"SELECT pg_advisory_unlock_shared({LISTENING})".encode())


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))
