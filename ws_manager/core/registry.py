"""Every verb over the ledger, once. Start reading here.

A message's way: `send` or `broadcast` commits a row with `delivered = 0` and returns. The receiving side
(`ws_manager.core.delivery`) takes pending rows in the order of their ids, and sets `delivered = 1` when the
other end has confirmed them. With a gateway that is: `gateway.outbox` notices the commit, `gateway.hub`
finds the socket, `protocol.gateway_session` decides what is written, `gateway.agent_socket` writes it and
reads the receipt, and `outbox` hands the receipt back to `delivery`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Callable, Optional, Union

from ws_manager import settings
from ws_manager.core.heartbeat import HeartbeatReport, check_heartbeats
from ws_manager.core.validation import (
    check_latency,
    check_limit,
    check_name,
    check_timeout,
    check_timestamp,
    encode_content,
    encode_metadata,
)
from ws_manager.errors import Conflict, InvalidInput
from ws_manager.models import ACTIVE, Broadcast, Connection, Message, new_id, utc_now
from ws_manager.repository.sqlite.cache import ConnectionCache
from ws_manager.repository.sqlite.connections import Connections
from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.sqlite.journal import Broadcasts, Events, Gateways, Heartbeats
from ws_manager.repository.sqlite.messages import Messages
from ws_manager.settings import Sizes
from ws_manager.strict_json import Json

_STATUS = 5
_WAIT_STEP = 0.005

Admit = Callable[[int, int], None]
"""Is called with the number of recipients and the bytes of the content."""


class Registry:
    """The verbs over one ledger.

    Args:
        db: an open ledger (`ws_manager.get_db`). The registry belongs to its thread.
        cache: decoded connections to share with another registry of the same file.
        sizes: how large contents and metadata may be; what the environment says if None.

    Every method may raise `LedgerError` if the file cannot be used; none leaves anything half written.
    """

    def __init__(
        self, db: Database, cache: Optional[ConnectionCache] = None, sizes: Optional[Sizes] = None
    ) -> None:
        self.db = db
        self.sizes = sizes or settings.sizes()
        self.cache = cache or ConnectionCache()
        self.gateways = Gateways(db)
        self._connections = Connections(db)
        self._messages = Messages(db)
        self._broadcasts = Broadcasts(db)
        self._heartbeats = Heartbeats(db)
        self._events = Events(db)

    # Connections

    def connect(
        self,
        agent: str,
        ws_id: Optional[str] = None,
        metadata: Union[Mapping[str, Any], Json, None] = None,
        *,
        gateway: Optional[str] = None,
    ) -> Connection:
        """Register a connection, or reactivate the one that has this ws_id.

        A known ws_id keeps its row, its message count and what is pending. Registered for another agent,
        it moves, and what is pending is set aside.

        Args:
            agent: the logical name.
            ws_id: the identifier; a UUID is made if None.
            metadata: replaces what is there; None keeps it. `Json` is an object's checked text.
            gateway: id of the gateway that opens a socket. A gateway cannot move a ws_id.

        Raises:
            InvalidInput: a name or the metadata cannot be accepted.
            Conflict: a gateway names another agent's ws_id.
        """
        now = utc_now()
        ws_id, agent = self._named(new_id() if ws_id is None else ws_id, agent)
        return self._register(
            Connection(
                ws_id=ws_id,
                agent=agent,
                connected_at=now,
                last_heartbeat=now,
                gateway=gateway,
            ),
            None if metadata is None else encode_metadata(metadata, self.sizes.metadata),
        )

    def import_connection(self, connection: Connection) -> Connection:
        """Register a Connection made by hand, with its own timestamps.

        Its `message_count`, `db_id` and `epoch` are the ledger's business and are ignored; empty metadata
        keeps what is there.

        Raises:
            InvalidInput: a name, a timestamp or the metadata cannot be accepted.
        """
        ws_id, agent = self._named(connection.ws_id, connection.agent)
        return self._register(
            Connection(
                ws_id=ws_id,
                agent=agent,
                connected_at=check_timestamp(connection.connected_at, "connected_at"),
                last_heartbeat=check_timestamp(connection.last_heartbeat, "last_heartbeat"),
            ),
            encode_metadata(connection.metadata, self.sizes.metadata) if connection.metadata else None,
        )

    def disconnect(self, ws_id: str, reason: str = "disconnected by an operator") -> bool:
        """Mark a connection as disconnected; a gateway that holds its socket closes it.

        What is pending stays pending. Returns False if the ws_id is unknown or not active.
        """
        now = utc_now()
        with self.db.transaction():
            if not self._connections.disconnect(ws_id, now, reason):
                return False
            self._events.insert("disconnected", now, ws_id, detail=reason)
        self.cache.forget(ws_id)
        return True

    def get(self, ws_id: str) -> Optional[Connection]:
        """Return an active connection, or None: one indexed read."""
        row = self._connections.find(ws_id)
        if row is None or row[_STATUS] != ACTIVE:
            self.cache.forget(ws_id)
            return None
        return self.cache.connection(row)

    def find(self, ws_id: str) -> Optional[Connection]:
        """Return a connection, active or not, or None."""
        row = self._connections.find(ws_id)
        return None if row is None else self.cache.connection(row)

    def active(self, agent: Optional[str] = None) -> list[Connection]:
        """Return the active connections, of one agent or of all, oldest first."""
        connections = [self.cache.connection(row) for row in self._connections.active(agent)]
        if agent is None:
            self.cache.keep_only(connections)
        return connections

    def pending_counts(self, connections: list[Connection]) -> dict[str, int]:
        """Return, by ws_id, how many messages each connection has not confirmed yet."""
        return {c.ws_id: self._messages.count_pending(c.ws_id, c.confirmed_seq) for c in connections}

    def count(self) -> int:
        """Return the number of active connections."""
        return self._connections.count_active()

    def count_message(self, ws_id: str) -> None:
        """Add one to a connection's message counter, atomically."""
        with self.db.transaction():
            self._connections.count_message(ws_id)

    def heartbeat(self, ws_id: str, latency_ms: Optional[float] = None) -> bool:
        """Record a sign of life, with the round trip in milliseconds where it was measured.

        Returns False if the connection is not active.

        Raises:
            InvalidInput: the latency is negative or no number.
        """
        latency = check_latency(latency_ms)
        now = utc_now()
        with self.db.transaction():
            if not self._connections.heartbeat(ws_id, now):
                return False
            self._heartbeats.insert(ws_id, now, latency)
        return True

    def heartbeat_check(self, timeout: float = 30.0) -> HeartbeatReport:
        """Disconnect the connections whose last heartbeat is older than `timeout` seconds.

        Raises:
            InvalidInput: the time-out is negative or no number.
        """
        report = check_heartbeats(self.db, check_timeout(timeout), utc_now())
        for ws_id in report.timed_out:
            self.cache.forget(ws_id)
        return report

    # Messages

    def send(
        self,
        ws_id: str,
        content: object,
        msg_type: str = "data",
        sender_id: Optional[str] = None,
        *,
        admit: Optional[Admit] = None,
    ) -> Optional[Message]:
        """Commit one message to one active connection.

        Args:
            ws_id: the recipient.
            content: any JSON value.
            msg_type: a label.
            sender_id: the sending connection; None for the system.
            admit: refuses it by raising, before anything is written.

        Returns:
            The message, pending; or None if the ws_id is not active.

        Raises:
            InvalidInput: the content, the type or the sender cannot be accepted.
        """
        text = encode_content(content, self.sizes.content)
        check_name(msg_type, "message type")
        if sender_id is not None:
            self._check_sender(sender_id)
        with self.db.transaction():
            row = self._connections.find(ws_id)
            if row is None or row[_STATUS] != ACTIVE:
                return None
            if admit is not None:
                admit(1, len(text.encode("utf-8")))
            # Under the lock, so that the order of the times is the order of the ids.
            now, msg_id = utc_now(), new_id()
            seq = self._messages.insert(msg_id, ws_id, text, msg_type, sender_id, now)
            self._connections.count_message(ws_id)
        return Message(msg_id, msg_type, sender_id, ws_id, text, now, db_id=seq)

    def broadcast(
        self,
        content: object,
        *,
        agent: Optional[str] = None,
        filter_fn: Optional[Callable[[Connection], bool]] = None,
        msg_type: str = "broadcast",
        sender_id: Optional[str] = None,
        admit: Optional[Admit] = None,
    ) -> Broadcast:
        """Commit one message to each active connection, in one transaction: all rows or none.

        Args:
            content: any JSON value, or `Json`: its checked text.
            agent: only to this agent's connections.
            filter_fn: only to those for which it returns something true. It runs before the write lock is
                taken; who has gone by then is left out.
            msg_type: a label.
            sender_id: the sending connection; None for the system.
            admit: refuses it by raising, before anything is written.

        Raises:
            InvalidInput: the content, the type or the sender cannot be accepted.
        """
        text = encode_content(content, self.sizes.content)
        check_name(msg_type, "message type")
        if sender_id is not None:
            self._check_sender(sender_id)
        if agent is not None:
            check_name(agent, "agent", known=True)
        chosen = None if filter_fn is None else {c.ws_id for c in self.active(agent) if filter_fn(c)}
        with self.db.transaction():
            now = utc_now()
            active = self._connections.active_ids(agent)
            recipients = active if chosen is None else [ws_id for ws_id in active if ws_id in chosen]
            first = last = None
            if admit is not None:
                admit(len(recipients), len(text.encode("utf-8")))
            if recipients:
                first, last = self._messages.insert_many(recipients, text, msg_type, sender_id, now)
                if len(recipients) == len(active):
                    # Everybody: no need to look for them among the rows just written.
                    self._connections.count_messages_of_active(agent)
                else:
                    self._connections.count_messages(first, last)
            sent = Broadcast(new_id(), recipients, first, last)
            self._broadcasts.insert(sent, msg_type, sender_id, now)
        return sent

    def wait(self, first_id: int, last_id: int, seconds: float) -> tuple[int, int, int]:
        """Wait until nothing between two message ids is pending, or the time is over.

        It follows the ledger, so the confirmations may come through any process.

        Returns:
            How many are confirmed, pending and set aside.
        """
        deadline = time.monotonic() + seconds
        version = None
        while True:
            current = self.db.data_version()
            if current != version:
                version = current
                counts = self._messages.delivery_counts(first_id, last_id)
            if not counts[1] or time.monotonic() >= deadline:
                return counts
            time.sleep(_WAIT_STEP)

    def history(self, ws_id: Optional[str] = None, limit: int = 50) -> list[dict[str, Any]]:
        """Return messages as dicts of their columns, newest first; `content` is the stored JSON text.

        Args:
            ws_id: only what this connection received or sent.
            limit: at most so many.

        Raises:
            InvalidInput: the limit is negative or no whole number.
        """
        return self._messages.history(ws_id, check_limit(limit))

    def stats(self) -> dict[str, Any]:
        """Return counts over the whole ledger, the documented four first."""
        return {
            "active_connections": self._connections.count_active(),
            "total_ever_connected": self._connections.count_ever(),
            "total_messages": self._messages.count(),
            "agents": self._connections.count_by_agent(),
        }

    def _named(self, ws_id: str, agent: str) -> tuple[str, str]:
        """Return the names of a registration, checked. A connection keeps those that it has from earlier versions."""
        try:
            return check_name(ws_id, "ws_id"), check_name(agent, "agent")
        except InvalidInput:
            named = check_name(ws_id, "ws_id", known=True), check_name(agent, "agent", known=True)
            known = self.find(ws_id)
            if known is None or known.agent != agent:
                raise
            return named

    def _check_sender(self, ws_id: str) -> None:
        """Refuse a sender with a name that cannot be accepted, unless it is a connection already."""
        try:
            check_name(ws_id, "sender")
        except InvalidInput:
            if self.find(check_name(ws_id, "sender", known=True)) is None:
                raise

    def _register(self, connection: Connection, metadata: Optional[str]) -> Connection:
        with self.db.transaction():
            known = self._connections.find(connection.ws_id)
            if known is None:
                self._connections.insert(connection, metadata or "{}")
            else:
                self._take_over(self.cache.connection(known), connection)
                self._connections.reactivate(connection, metadata)
            kind = "registered" if connection.gateway is None else "resumed" if known else "opened"
            self._events.insert(
                kind, connection.connected_at, connection.ws_id, detail=f"agent={connection.agent}"
            )
            row = self._connections.find(connection.ws_id)
            assert row is not None
        return self.cache.connection(row)

    def _take_over(self, known: Connection, new: Connection) -> None:
        """Decide what becomes of a known ws_id that is registered for another agent."""
        if known.agent == new.agent:
            return
        if new.gateway is not None:
            raise Conflict(
                f"{new.ws_id} belongs to another agent",
                hint="use another ws_id; an operator can move this one",
            )
        now = new.connected_at
        self._events.insert("moved", now, new.ws_id, detail=f"from agent={known.agent} to agent={new.agent}")
        aside = self._messages.set_aside(
            new.ws_id, known.confirmed_seq, self._messages.last_id(), "agent changed", now
        )
        if aside:
            self._events.insert("set_aside", now, new.ws_id, detail=f"{len(aside)} pending: agent changed")


def check_same_file(db: Database, other: Database) -> None:
    """Refuse two connections that are open on different files.

    Raises:
        InvalidInput: (a ValueError) if they are.
    """
    if db is not other and db.path.resolve() != other.path.resolve():
        raise InvalidInput(
            f"the pool is on {other.path}, the database connection on {db.path}",
            hint="use the connection that the pool was made with",
        )
