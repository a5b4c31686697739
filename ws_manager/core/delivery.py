"""The receiving side's verbs: take what is pending, confirm it, and the life of a socket.

A gateway uses them for its sockets, `receive` and `ConnectionPool.attach` for connections without one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Optional

from ws_manager.core.heartbeat import sweep
from ws_manager.core.locks import gateway_lock, is_held, receiver_lock
from ws_manager.core.registry import Registry
from ws_manager.errors import Conflict, NotFound
from ws_manager.models import ACTIVE, Connection, Event, PendingMessage, Receipt, utc_now
from ws_manager.repository.connections import Connections
from ws_manager.repository.database import Database
from ws_manager.repository.journal import Events, Heartbeats
from ws_manager.repository.messages import Messages


class Delivery:
    """Delivery over one ledger. It belongs to the thread of its database connection.

    Every method may raise `LedgerError` if the file cannot be used.
    """

    def __init__(self, db: Database) -> None:
        self.db = db
        self.registry = Registry(db)
        self._connections = Connections(db)
        self._messages = Messages(db)
        self._events = Events(db)
        self._heartbeats = Heartbeats(db)

    # What is to be delivered

    def last_ids(self) -> tuple[int, int]:
        """Return the highest message id and event id so far."""
        return self._messages.last_id(), self._events.last_id()

    def after(self, seq: int, limit: int) -> list[PendingMessage]:
        """Return everybody's pending messages above an id, in order."""
        return self._messages.after(seq, limit)

    def pending(self, ws_id: str, after: int, limit: int) -> list[PendingMessage]:
        """Return one connection's pending messages above an id, in order."""
        return self._messages.pending(ws_id, after, limit)

    def backlog(self, ws_id: str, after: int, limit: int) -> tuple[list[PendingMessage], int]:
        """Return one connection's pending messages above `after`, and how far this reading reached.

        The second value is the id up to which nothing for this connection is left out: of the last row
        where the limit cut the reading, otherwise of the newest message in the ledger.
        """
        # Asked first: what is committed in between is then read again, never left out.
        reached = self._messages.last_id()
        rows = self._messages.pending(ws_id, after, limit)
        if len(rows) == limit:
            reached = rows[-1].seq
        elif rows:
            reached = max(reached, rows[-1].seq)
        return rows, max(after, reached)

    def count_pending(self, connection: Connection) -> int:
        """Return how many messages a connection has not confirmed."""
        return self._messages.count_pending(connection.ws_id, connection.confirmed_seq)

    def events_after(self, event_id: int) -> list[Event]:
        """Return the events above an id, in order."""
        return self._events.after(event_id)

    # What became of it

    def confirm(self, receipts: Iterable[Receipt]) -> list[str]:
        """Mark what the receipts cover as delivered, in one transaction.

        Returns:
            The ws_ids whose receipt was void, because another registration has come since.
        """
        void = []
        with self.db.transaction():
            now = utc_now()
            for ws_id, epoch, first, last in receipts:
                if self._connections.confirmed(ws_id, epoch, last):
                    self._messages.confirm(ws_id, first, last, now)
                else:
                    void.append(ws_id)
        return void

    def reject(self, ws_id: str, epoch: int, seq: int, reason: str) -> bool:
        """Set one message aside that the agent has rejected. False if the registration is void."""
        with self.db.transaction():
            connection = self.registry.find(ws_id)
            if connection is None or connection.epoch != epoch:
                return False
            now = utc_now()
            for msg_id in self._messages.set_aside(ws_id, seq, seq, reason, now):
                self._events.insert("set_aside", now, ws_id, msg_id, reason)
        return True

    # The life of a socket

    def socket_closed(self, ws_id: str, epoch: int, code: int, reason: str, *, ended: bool) -> None:
        """Note that a socket is gone; with `ended`, its agent has said goodbye and the row is disconnected.

        Nothing happens to the row if the ws_id was registered again since.
        """
        now = utc_now()
        with self.db.transaction():
            current = self._connections.socket_closed(ws_id, epoch, code, reason)
            self._events.insert("closed", now, ws_id, detail=f"{code} {reason}".strip())
            if current and ended and self._connections.disconnect(ws_id, now, reason, code):
                self._events.insert("disconnected", now, ws_id, detail=reason)

    def alive(self, signs: Iterable[tuple[str, int, str, Optional[int], bool]]) -> None:
        """Write signs of life in one transaction.

        Args:
            signs: ws_id, epoch, time, round trip in ms (or None), and whether it goes into the log.
        """
        with self.db.transaction():
            for ws_id, epoch, at, latency_ms, logged in signs:
                if self._connections.heartbeat_of_epoch(ws_id, epoch, at) and logged:
                    self._heartbeats.insert(ws_id, at, latency_ms)

    def sweep(self, held: set[str], timeout: float) -> list[str]:
        """Disconnect what gateways held and that did not come back; see `heartbeat.sweep`."""
        return sweep(self.db, held, timeout, utc_now())

    def why_void(self, ws_id: str, epoch: int) -> Optional[str]:
        """Say why a registration no longer holds, or None if it does.

        Returns:
            None, `disconnected`, or `registered again` (a later epoch, by a command).
        """
        connection = self.registry.find(ws_id)
        if connection is None or connection.status != ACTIVE:
            return "disconnected"
        return None if connection.epoch == epoch else "registered again"

    # Without a gateway

    @contextlib.contextmanager
    def holding(self, ws_id: str) -> Iterator[Connection]:
        """Hold a connection's messages, alone, until the block ends.

        Raises:
            NotFound: there is no such connection.
            Conflict: a socket or another receiver holds it.
        """
        connection = self.registry.find(ws_id)
        if connection is None or connection.db_id is None:
            raise NotFound(f"no connection {ws_id}", hint="ws-manager list shows who is connected")
        lock = receiver_lock(self.db.path, connection.db_id)
        if is_held(lock):
            raise Conflict(f"another receiver holds {ws_id}", hint="stop it first")
        with lock.acquire(timeout=0):
            if has_socket(connection) and is_held(gateway_lock(self.db.path)):
                raise Conflict(f"a socket holds {ws_id}", hint="its agent receives the messages already")
            yield connection

    def confirm_held(self, connection: Connection, first: int, last: int) -> None:
        """Confirm what a holder has received.

        Raises:
            Conflict: the ws_id was registered again since, so the receipt is void; it stays pending.
        """
        if self.confirm([Receipt(connection.ws_id, connection.epoch, first, last)]):
            raise Conflict(
                f"{connection.ws_id} was registered again meanwhile; the messages stay pending",
                hint="whoever holds it now receives them again",
            )


def has_socket(connection: Connection) -> bool:
    """Say whether, by its row, a gateway's socket is open on this connection."""
    return connection.status == ACTIVE and connection.gateway is not None and connection.close_code is None
