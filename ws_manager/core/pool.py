"""ConnectionPool: the active connections in memory, and delivery inside this process."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Callable, Optional, Union

from ws_manager.core.ledger import Ledger, ledger_over
from ws_manager.errors import Conflict, InvalidInput
from ws_manager.models import Connection, Message, PendingMessage

if TYPE_CHECKING:
    import sqlite3

_log = logging.getLogger("ws_manager")
_BATCH = 100


class ConnectionPool:
    """The active connections of one ledger.

    It reads the row at every question and decodes it only if it has changed, so it never answers with
    something that another process has changed, and opening it costs the same with ten connections or with
    a million.

    Args:
        db_conn: what `get_db` or `open_ledger` returned. The pool belongs to its thread.

    Attributes:
        ledger: the ledger over it.

    Raises:
        InvalidInput: (a ValueError) if it came from neither.
    """

    def __init__(self, db_conn: Union[sqlite3.Connection, Ledger]) -> None:
        self.ledger = ledger_over(db_conn)
        self._db_conn = db_conn
        self._attached: dict[str, _Attachment] = {}
        self._delivering = False

    def is_over(self, db_conn: Union[sqlite3.Connection, Ledger]) -> bool:
        """Return whether the pool was made with this connection or ledger."""
        return db_conn is self._db_conn or db_conn is self.ledger

    def add(self, connection: Connection) -> Connection:
        """Persist and register a connection, and return it as the ledger has it.

        Raises:
            InvalidInput: a name, a timestamp or the metadata cannot be accepted.
        """
        return self.ledger.import_connection(connection)

    def remove(self, ws_id: str) -> bool:
        """Mark a connection as disconnected. False if it was not active."""
        self.detach(ws_id)
        return self.ledger.disconnect(ws_id)

    def get(self, ws_id: str) -> Optional[Connection]:
        """Return an active connection, or None."""
        return self.ledger.get(ws_id)

    def get_all(self) -> list[Connection]:
        """Return all active connections, oldest first."""
        return self.ledger.active()

    def count(self) -> int:
        """Return the number of active connections."""
        return self.ledger.count()

    def update_heartbeat(self, ws_id: str, latency_ms: Optional[float] = None) -> bool:
        """Record a sign of life; the latency is a round trip in milliseconds. False if not active.

        Raises:
            InvalidInput: the latency is negative or no number.
        """
        return self.ledger.heartbeat(ws_id, latency_ms)

    def increment_message_count(self, ws_id: str) -> None:
        """Add one to a connection's message counter, atomically."""
        self.ledger.count_message(ws_id)

    def attach(self, ws_id: str, deliver: Callable[[Message], None]) -> None:
        """Let a function of this process receive a connection's messages.

        `deliver` is called in the pool's thread, after the commit and outside any transaction, with what
        is pending, oldest first: now, after every `send_message` and `broadcast` on this pool, and at
        `deliver_pending`. When it returns, the message is confirmed. When it raises, the error is
        logged, the message stays pending, and the next call begins with it again.

        Raises:
            NotFound: there is no such connection.
            Conflict: a socket or another receiver holds it.
        """
        self.detach(ws_id)
        self._attached[ws_id] = _Attachment(self.ledger, ws_id, deliver)
        self.deliver_pending()

    def detach(self, ws_id: str) -> None:
        """Undo `attach`. What was not delivered stays pending."""
        attachment = self._attached.pop(ws_id, None)
        if attachment is not None:
            attachment.release()

    def deliver_pending(self) -> int:
        """Deliver what is pending, from any sender, to the attached functions.

        Returns:
            How many messages were delivered.

        Inside a transaction of the caller's nothing is delivered: it is not committed yet.

        Raises:
            Conflict: a ws_id was registered again since `attach`, so that its messages belong to whoever did
                it. Its function is detached.
        """
        if self._delivering or self.ledger.in_transaction:
            return 0
        self._delivering = True
        delivered, failed = 0, set()
        try:
            # A function may send to another one: repeat until a whole round delivers nothing.
            while True:
                this_round = 0
                for ws_id, attachment in list(self._attached.items()):
                    if ws_id not in failed:
                        count, raised = self._deliver(ws_id, attachment)
                        this_round += count
                        if raised:
                            failed.add(ws_id)
                delivered += this_round
                if not this_round:
                    return delivered
        finally:
            self._delivering = False

    def _deliver(self, ws_id: str, attachment: _Attachment) -> tuple[int, bool]:
        try:
            return attachment.deliver_pending()
        except Conflict:
            self.detach(ws_id)
            raise


class _Attachment:
    """A function that holds one connection's messages."""

    def __init__(self, ledger: Ledger, ws_id: str, deliver: Callable[[Message], None]) -> None:
        self._delivery = ledger.delivery
        self._deliver = deliver
        self._hold = contextlib.ExitStack()
        self._connection = self._hold.enter_context(self._delivery.holding(ws_id))
        self._cursor = self._connection.confirmed_seq

    def release(self) -> None:
        """Let others hold the connection."""
        self._hold.close()

    def deliver_pending(self) -> tuple[int, bool]:
        """Return how many messages were delivered, and whether the function raised."""
        count = 0
        while True:
            rows = self._delivery.pending_held(self._connection, self._cursor, _BATCH)
            for row in rows:
                try:
                    self._deliver(_message(row))
                except Exception:
                    # The send itself is committed: its caller must not take this for a failed send.
                    _log.exception(
                        "%s: delivery stopped, message %s stays pending", row.recipient_id, row.msg_id
                    )
                    return count, True
                self._delivery.confirm_held(self._connection, [row.seq])
                self._cursor = row.seq
                count += 1
            if not rows:
                return count, False


def _message(row: PendingMessage) -> Message:
    values = row._asdict()
    # As a store has it: NULL, 0 or 1.
    wanted = bool(values.pop("wants_reply"))
    return Message(db_id=values.pop("seq"), wants_reply=wanted, **values)


def check_same_ledger(pool: ConnectionPool, ledger: Ledger) -> None:
    """Refuse a pool that is on another ledger.

    Raises:
        InvalidInput: (a ValueError) if it is.
    """
    if not ledger.is_same(pool.ledger):
        raise InvalidInput(
            f"the pool is on {pool.ledger.location}, the database connection on {ledger.location}",
            hint="use the connection that the pool was made with",
        )
