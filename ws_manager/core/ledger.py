"""The ledger: who is connected, what was sent to whom, and whether it arrived. Start reading here.

`Ledger` has every verb of the product. Commands, routes and library functions open one and call a verb; nothing else
reaches what is stored. A verb's work is done by a module beside this one, which is loaded with the first call.

A message's way: `send` or `broadcast` commits it as pending and returns. The receiving side (`Ledger.delivery`) takes
pending messages in the order of each connection, and marks them as delivered when the other end has confirmed them.
`ARCHITECTURE.md` follows that way through the gateway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from ws_manager import settings
from ws_manager.core import registry, sending
from ws_manager.core.questions import Questions
from ws_manager.models import Connection, Message, utc_now
from ws_manager.repository.engines import engine_of, store_over
from ws_manager.settings import HEARTBEAT_TIMEOUT, Sizes
from ws_manager.strict_json import Json

if TYPE_CHECKING:
    from ws_manager.core.batch import Batch
    from ws_manager.core.delivery import Delivery
    from ws_manager.core.heartbeat import HeartbeatReport
    from ws_manager.core.maintenance import Maintenance
    from ws_manager.core.once import Key
    from ws_manager.core.retry import Retried
    from ws_manager.core.webhooks import Webhooks
    from ws_manager.models import Broadcast
    from ws_manager.repository.records import DeliveryCounts
    from ws_manager.repository.store import Changes, Store
    from ws_manager.settings import Location


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
    where = settings.database_location() if location is None else location
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


class Ledger(Questions):
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

    def disconnect(self, ws_id: str, reason: str = registry.BY_AN_OPERATOR) -> bool:
        """Mark a connection as disconnected; a gateway that holds its socket closes it. False if it was not active.

        What is pending stays pending.

        Raises:
            InvalidInput: the reason cannot be accepted.
        """
        return bool(registry.disconnect(self._store, [ws_id], reason))

    def disconnect_all(self, ws_ids: Iterable[str], reason: str = registry.BY_AN_OPERATOR) -> list[str]:
        """Do the same with many connections in one transaction, and return those that were active."""
        return registry.disconnect(self._store, ws_ids, reason)

    def bar(self, agent: str) -> tuple[bool, list[str]]:
        """Stop an agent from connecting: its sockets are closed with 4003, and its handshakes are refused.

        Returns:
            Whether it was not barred before, and the ws_ids of the connections that this has ended. What is pending
            for them stays pending, and their receipts no longer count.

        Raises:
            InvalidInput: the name cannot be an agent's.
        """
        from ws_manager.core import bars

        return bars.bar(self._store, agent)

    def unbar(self, agent: str) -> bool:
        """Let an agent in again. False if it was not barred."""
        from ws_manager.core import bars

        return bars.unbar(self._store, agent)

    def barred(self) -> list[tuple[str, str]]:
        """Return the barred agents, by name, each with the time since when."""
        return self._store.bars.agents()

    def revoke(self, token: str) -> tuple[bool, list[str]]:
        """Do with a token what `bar` does with an agent. It is named by its `jti`, or by its `Claims.key`."""
        from ws_manager.core import bars

        return bars.revoke(self._store, token)

    def check_bars(self, agent: Optional[str], token: Optional[str]) -> None:
        """Check that an agent, and a token by its `Claims.key`, are let in.

        Raises:
            NotAuthorised: the agent is barred, or the token was revoked.
        """
        from ws_manager.core.bars import check_bars

        check_bars(self._store, agent, token)

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
        traceparent: Optional[str] = None,
        admit: Optional[sending.Admit] = None,
    ) -> Optional[Message]:
        """Commit one message to one active connection, and return it, pending; None if the ws_id is not active.

        Args:
            ws_id: the recipient.
            content: any JSON value. A `str` is sent as a JSON string; `Json` is checked text, sent as it is.
            msg_type: a label.
            sender_id: the sending connection; None for the system.
            traceparent: the W3C trace context of the sender, which the receiver gets: see `check_traceparent`.
            admit: refuses it by raising, before anything is written.

        Raises:
            InvalidInput: the content, the type, the sender or the traceparent cannot be accepted.
        """
        return sending.send(
            self._store,
            ws_id,
            content,
            msg_type,
            sender_id,
            traceparent=traceparent,
            limit=self.sizes.content,
            admit=admit,
        )

    def ask(
        self,
        to: str,
        content: object,
        msg_type: str = "data",
        sender_id: Optional[str] = None,
        *,
        subject: str = "*",
        traceparent: Optional[str] = None,
        admit: Optional[sending.Admit] = None,
    ) -> Optional[Message]:
        """Commit a message that wants an answer, and return it, pending; None if nobody is there.

        `wait_for_answer` waits for the answer, which is kept for 24 h. With `sender_id` it is also a message to that
        connection. The other arguments and the errors are those of `send`.

        Args:
            to: a ws_id, or an agent: then the one of its active connections that was heard last.
            content: as in `send`, as the next two.
            msg_type: see there.
            sender_id: see there.
            subject: whose token asks; `*` for every agent's.
            traceparent: as in `send`, as the next.
            admit: see there.
        """
        from ws_manager.core import asks

        return asks.ask(
            self._store,
            to,
            content,
            msg_type,
            sender_id,
            subject,
            limit=self.sizes.content,
            traceparent=traceparent,
            admit=admit,
        )

    def broadcast(
        self,
        content: object,
        *,
        agent: Optional[str] = None,
        filter_fn: Optional[Callable[[Connection], bool]] = None,
        msg_type: str = "broadcast",
        sender_id: Optional[str] = None,
        traceparent: Optional[str] = None,
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
            traceparent=traceparent,
            limit=self.sizes.content,
            admit=admit,
        )

    def wait(self, sent: sending.Sent, seconds: float) -> DeliveryCounts:
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

    def retry_all(self, since: str = "", agent: Optional[str] = None) -> tuple[list[Retried], int]:
        """Send everything again that was set aside since a time (UTC text), oldest first, in one transaction.

        Args:
            since: everything if empty.
            agent: only what was for this agent's connections.

        Returns:
            What was sent, and how many messages stay set aside because they exceed the limits of `strict_json`.
        """
        from ws_manager.core import retry

        return retry.retry_all(self._store, since, agent)

    def replay(self, message: Message, ws_id: str) -> Optional[Message]:
        """Send the content of any message again, to any active connection; None if that is not active.

        Raises:
            InvalidInput: it exceeds the limits of `strict_json`.
        """
        from ws_manager.core import retry

        return retry.replay(self._store, message, ws_id)

    # What only some callers need: each has verbs of its own

    def once(self, key: Optional[Key], work: Callable[[], str], *, many: bool = False) -> tuple[str, bool]:
        """Do something that is written to the ledger, unless it was done for this key before. Without a key, do it.

        Args:
            key: of the request.
            work: writes, and returns what the result is known by: it must be enough to say the same again.
            many: whether the work writes in many transactions of its own. Then a crash can part it from its key, so
                it must be something that can be done twice.

        Returns:
            What `work` returns, or returned then; and whether it was done before.

        Raises:
            KeyReused: the key was used for another request.
        """
        if key is None:
            return work(), False
        from ws_manager.core import once

        return (once.once_after if many else once.once)(self._store, key, work)

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

    def changes(self, gateway: Optional[str] = None) -> Changes:
        """Return a `Changes`, which reports the commits of any process from now on; see `Store.changes`."""
        return self._store.changes(gateway)

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

    def interrupt(self) -> None:
        """Let the statement fail that runs now. Another thread may call it than the one that uses the ledger."""
        self._store.interrupt()

    def break_off(self) -> None:
        """Interrupt also what waits for a ledger that does not answer. The present transaction is lost."""
        self._store.break_off()

    @property
    def in_transaction(self) -> bool:
        """Whether the caller has a transaction of its own open, so that nothing is committed yet."""
        return self._store.in_transaction
