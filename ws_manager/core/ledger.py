"""The ledger: who is connected, what was sent to whom, and whether it arrived. Start reading here.

`Ledger` has every verb of the product. Commands, routes and library functions open one and call a verb; nothing else
reaches what is stored. A verb's work is done by a module beside this one, which is loaded with the first call.

A message's way: `send` or `broadcast` commits it as pending and returns. The receiving side (`Ledger.delivery`) takes
pending messages in the order of each connection, and marks them as delivered when the other end has confirmed them.
`ARCHITECTURE.md` follows that way through the gateway.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from ws_manager import settings
from ws_manager.core import registry, sending
from ws_manager.models import ACTIVE, Connection, Message, utc_now
from ws_manager.repository.engines import engine_of, store_over
from ws_manager.settings import HEARTBEAT_TIMEOUT, Sizes
from ws_manager.strict_json import Json

if TYPE_CHECKING:
    from ws_manager.core.batch import Batch
    from ws_manager.core.delivery import Delivery
    from ws_manager.core.heartbeat import HeartbeatReport
    from ws_manager.core.maintenance import Maintenance
    from ws_manager.core.read.conditions import Conditions
    from ws_manager.core.read.explain import Explanation
    from ws_manager.core.read.listings import Recipient
    from ws_manager.core.read.overview import Sampler
    from ws_manager.core.retry import Retried
    from ws_manager.core.webhooks import Webhooks
    from ws_manager.models import Broadcast, Gateway
    from ws_manager.repository.findings import BroadcastState, MessageFilter
    from ws_manager.repository.records import DeliveryCounts, ListedConnection
    from ws_manager.repository.store import Changes, Location, Store


def open_ledger(
    location: Optional[Location] = None,
    *,
    create: bool = True,
    shared: bool = False,
    read_only: bool = False,
    sizes: Optional[Sizes] = None,
) -> Ledger:
    """Open a ledger.

    Args:
        location: the path of a file. None for `BLACKROAD_WS_DB`, or the default.
        create: False to refuse a place where there is not a ledger.
        shared: put the ledger into a database of another program too, beside that program's tables.
        read_only: nothing will be written: only an older schema is brought up to date. Implies `create=False`.
        sizes: how large contents and metadata may be; what the environment says if None.

    Raises:
        InvalidInput: (a ValueError) the location is not one of a ledger.
        LedgerError: it cannot be used, is not a ledger, or a newer ws-manager wrote it.
    """
    where = settings.database_path() if location is None else location
    engine = engine_of(where)
    if read_only:
        return Ledger(engine.open_to_read(where), sizes)
    return Ledger(engine.open_to_write(where, create=create, shared=shared), sizes)


def ledger_over(db_conn: object, sizes: Optional[Sizes] = None) -> Ledger:
    """Return the ledger over a connection of `get_db`, or the ledger itself where one is given.

    Raises:
        InvalidInput: (a ValueError) it is neither.
    """
    return db_conn if isinstance(db_conn, Ledger) else Ledger(store_over(db_conn), sizes)


class Ledger:
    """An open ledger. It belongs to the thread and the process that opened it; as a block it is closed at the end.

    Every verb may raise `LedgerError` if the ledger cannot be used. None leaves anything half written.

    Attributes:
        location: its name, as it is shown to people.
        sizes: how large contents and metadata may be.
    """

    def __init__(self, store: Store, sizes: Optional[Sizes] = None) -> None:
        self._store = store
        self.location = store.location
        self.sizes = sizes or settings.sizes()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        self._store.close()

    # Connections

    def connect(
        self,
        agent: str,
        ws_id: Optional[str] = None,
        metadata: Union[Mapping[str, Any], Json, None] = None,
    ) -> Connection:
        """Register a connection, or reactivate the one that has this ws_id.

        A known ws_id keeps its message count and what is pending. Registered for another agent, it moves, and what
        is pending is set aside.

        Args:
            agent: the logical name.
            ws_id: the identifier; a UUID is made if None.
            metadata: replaces what is there; None keeps it. `Json` is an object's checked text.

        Raises:
            InvalidInput: a name or the metadata cannot be accepted.
        """
        return registry.connect(self._store, agent, ws_id, metadata, gateway=None, limit=self.sizes.metadata)

    def import_connection(self, connection: Connection) -> Connection:
        """Register a Connection made by hand, with its own timestamps.

        Its `message_count`, `db_id` and `epoch` are ignored; empty metadata keeps what is there.

        Raises:
            InvalidInput: a name, a timestamp or the metadata cannot be accepted.
        """
        return registry.import_connection(self._store, connection, self.sizes.metadata)

    def disconnect(self, ws_id: str, reason: str = "disconnected by an operator") -> bool:
        """Mark a connection as disconnected; a gateway that holds its socket closes it. False if it was not active.

        What is pending stays pending.
        """
        return registry.disconnect(self._store, ws_id, reason)

    def find(self, ws_id: str) -> Optional[Connection]:
        """Return a connection, active or not."""
        return self._store.connections.find(ws_id)

    def get(self, ws_id: str) -> Optional[Connection]:
        """Return a connection if it is active."""
        connection = self.find(ws_id)
        return connection if connection is not None and connection.status == ACTIVE else None

    def active(self, agent: Optional[str] = None) -> list[Connection]:
        """Return the active connections, of one agent or of all, oldest first."""
        return self._store.connections.active(agent)

    def connections(
        self,
        *,
        include_disconnected: bool = False,
        agent: Optional[str] = None,
        silent_for: Optional[float] = None,
        limit: Optional[int] = None,
        count_pending: bool = True,
    ) -> list[ListedConnection]:
        """Return connections, each with the number of its pending messages, oldest first.

        Args:
            include_disconnected: the disconnected too.
            agent: only this agent's.
            silent_for: only those without a sign of life for this many seconds, or with one in the future.
            limit: at most this many; all if None.
            count_pending: False leaves `pending` at 0, which is faster.

        Raises:
            InvalidInput: the limit or the time cannot be accepted.
        """
        from ws_manager.core.read import listings

        return listings.connections(
            self._store,
            include_disconnected=include_disconnected,
            agent=agent,
            silent_for=silent_for,
            limit=limit,
            count_pending=count_pending,
        )

    def recipients(self, agent: Optional[str], conditions: Optional[Conditions]) -> list[Recipient]:
        """Return every connection, active or not, with the reason why a broadcast would not reach it now."""
        from ws_manager.core.read import listings

        return listings.recipients(self._store, agent, conditions)

    def count(self) -> int:
        """Return the number of active connections."""
        return self._store.connections.count_active()

    def count_pending(self, connection: Connection) -> int:
        """Return how many messages a connection has not confirmed yet."""
        return self._store.messages.count_pending(connection.ws_id, connection.confirmed_seq)

    def count_message(self, ws_id: str) -> None:
        """Add one to a connection's message counter, atomically."""
        with self._store.atomic():
            self._store.connections.count_message(ws_id)

    def heartbeat(self, ws_id: str, latency_ms: Optional[float] = None) -> bool:
        """Record a sign of life, with the round trip in ms where it was measured. False if it is not active.

        Raises:
            InvalidInput: the latency is negative or no number.
        """
        return registry.heartbeat(self._store, ws_id, latency_ms)

    def heartbeat_check(self, timeout: float = HEARTBEAT_TIMEOUT) -> HeartbeatReport:
        """Disconnect the connections whose last heartbeat is older than `timeout` seconds.

        Raises:
            InvalidInput: the timeout is negative or no number.
        """
        from ws_manager.core.heartbeat import check_heartbeats
        from ws_manager.core.validation import check_timeout

        return check_heartbeats(self._store, check_timeout(timeout), utc_now())

    # Messages

    def send(
        self,
        ws_id: str,
        content: object,
        msg_type: str = "data",
        sender_id: Optional[str] = None,
        *,
        admit: Optional[sending.Admit] = None,
    ) -> Optional[Message]:
        """Commit one message to one active connection, and return it, pending; None if the ws_id is not active.

        Args:
            ws_id: the recipient.
            content: any JSON value. A `str` is sent as a JSON string; `Json` is checked text, sent as it is.
            msg_type: a label.
            sender_id: the sending connection; None for the system.
            admit: refuses it by raising, before anything is written.

        Raises:
            InvalidInput: the content, the type or the sender cannot be accepted.
        """
        return sending.send(
            self._store, ws_id, content, msg_type, sender_id, limit=self.sizes.content, admit=admit
        )

    def broadcast(
        self,
        content: object,
        *,
        agent: Optional[str] = None,
        filter_fn: Optional[Callable[[Connection], bool]] = None,
        msg_type: str = "broadcast",
        sender_id: Optional[str] = None,
        admit: Optional[sending.Admit] = None,
    ) -> Broadcast:
        """Commit one message to each active connection, in one transaction: all of them or none.

        The other arguments and the errors are those of `send`. With `agent`, it goes only to that agent's
        connections; with `filter_fn`, only to those for which it returns something true. That runs before the
        ledger is locked: who has gone by then is left out.
        """
        return sending.broadcast(
            self._store,
            content,
            agent=agent,
            filter_fn=filter_fn,
            msg_type=msg_type,
            sender_id=sender_id,
            limit=self.sizes.content,
            admit=admit,
        )

    def wait(self, sent: Union[Broadcast, Sequence[Message]], seconds: float) -> DeliveryCounts:
        """Wait until nothing of what was sent is pending, or the time is over, and return the counts.

        It follows the ledger, so the confirmations may come through any process.
        """
        return sending.wait(self._store, sent, seconds)

    def retry(self, msg_id: str) -> Retried:
        """Send one set-aside message again, as a new message behind everything that waits already.

        Raises:
            NotFound: there is no such message.
            Conflict: it is not set aside, or was sent again before.
            InvalidInput: it exceeds the limits of `strict_json`: no agent could be sure to read it.
        """
        from ws_manager.core import retry

        return retry.retry(self._store, msg_id)

    def retry_all(self, since: str = "") -> tuple[list[Retried], int]:
        """Send everything again that was set aside since a time (UTC text), oldest first, in one transaction.

        Returns:
            What was sent, and how many messages stay set aside because they exceed the limits of `strict_json`.
        """
        from ws_manager.core import retry

        return retry.retry_all(self._store, since)

    # Questions

    def messages(self, wanted: MessageFilter, limit: int = 50) -> list[Message]:
        """Return messages, newest first.

        Raises:
            InvalidInput: the limit cannot be accepted.
            NotFound: they are to be of a broadcast that does not exist.
        """
        from ws_manager.core.read import listings

        return listings.messages(self._store, wanted, limit)

    def follow(self, wanted: MessageFilter, pause: Callable[[], None]) -> Iterator[Sequence[Message]]:
        """Give messages as they are committed, by any process, oldest first, in batches; it never ends by itself.

        Args:
            wanted: which. With `since` it begins with what was sent since then, otherwise with what comes now.
            pause: called when there is nothing new. It returns when it is time to look again.

        Raises:
            InvalidInput: it asks for what a message only becomes after it is committed.
        """
        from ws_manager.core.read import listings

        return listings.follow(self._store, wanted, pause)

    def broadcasts(self, limit: int = 50) -> list[BroadcastState]:
        """Return the latest broadcasts and how far their delivery is, newest first."""
        from ws_manager.core.validation import check_limit

        return self._store.broadcasts.latest(check_limit(limit))

    def explain(self, identifier: str) -> Explanation:
        """Return all there is about a connection, a message or a broadcast: a verdict, facts and a timeline.

        Raises:
            NotFound: there is no such thing.
        """
        from ws_manager.core.read.explain import explain

        return explain(self._store, identifier)

    def stats(self) -> dict[str, Any]:
        """Return counts over the whole ledger, the documented four first."""
        return {
            "active_connections": self._store.connections.count_active(),
            "total_ever_connected": self._store.connections.count_ever(),
            "total_messages": self._store.messages.count(),
            "agents": self._store.connections.count_by_agent(),
        }

    def sampler(self, timeout: float = HEARTBEAT_TIMEOUT) -> Sampler:
        """Return what takes overviews, one after another. Silent for `timeout` seconds, a connection is slow."""
        from ws_manager.core.read.overview import Sampler

        return Sampler(self._store, timeout)

    def running_gateway(self) -> Optional[Gateway]:
        """Return the gateway that runs on this ledger.

        A user who may not know whether one runs gets the latest one, and a call to it will show.
        """
        from ws_manager.core.presence import running_gateway

        return running_gateway(self._store)

    def latest_gateway(self) -> Optional[Gateway]:
        """Return the gateway that started last, whether it runs or not."""
        return self._store.gateways.latest()

    # What only some callers need: each has verbs of its own

    @property
    def delivery(self) -> Delivery:
        """What gateways and receivers do: take what is pending, confirm it, and the life of a socket."""
        from ws_manager.core.delivery import Delivery

        return Delivery(self._store, self.sizes)

    @property
    def batch(self) -> Batch:
        """Many messages in one transaction."""
        from ws_manager.core.batch import Batch

        return Batch(self._store, self.sizes)

    @property
    def webhooks(self) -> Webhooks:
        """Events that another service brings, and that become messages once."""
        from ws_manager.core.webhooks import Webhooks

        return Webhooks(self._store, self.sizes)

    @property
    def maintenance(self) -> Maintenance:
        """Prune, export, import, backup, checkpoints."""
        from ws_manager.core.maintenance import Maintenance

        return Maintenance(self._store)

    # This process

    def changes(self) -> Changes:
        """Return a `Changes`, which reports the commits of any process from now on."""
        return self._store.changes()

    def check(self) -> None:
        """Check that the ledger is still the one that was opened.

        Raises:
            LedgerReplaced: it was moved, deleted or replaced.
        """
        self._store.check()

    def again(self) -> Ledger:
        """Open the same ledger for another thread.

        Raises:
            LedgerReplaced: it was moved, deleted or replaced.
        """
        return Ledger(self._store.again(), self.sizes)

    def is_same(self, other: Ledger) -> bool:
        """Return whether another ledger object is open on the same ledger."""
        return self._store.is_same(other._store)

    def use_memory(self, kibibytes: int) -> None:
        """Keep at most this much of the ledger in memory."""
        self._store.use_memory(kibibytes)

    @property
    def in_transaction(self) -> bool:
        """Whether the caller has a transaction of its own open, so that nothing is committed yet."""
        return self._store.in_transaction
