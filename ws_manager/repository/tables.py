"""The parts of a store, one for each kind of thing in a ledger: their verbs, for every engine.

`ws_manager.repository.store` has the rules that hold for all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Optional, Protocol

from ws_manager.models import (
    Connection,
    Event,
    Gateway,
    Message,
    PendingMessage,
    Receipt,
    Registration,
    SignOfLife,
)
from ws_manager.repository.findings import (
    BroadcastState,
    StoredEvent,
)
from ws_manager.repository.records import (
    MOST_CHARACTERS,
    DeliveryCounts,
    ListedConnection,
    LoggedHeartbeat,
    NewBroadcast,
    NewMessage,
    Position,
    Reading,
    Recipients,
    SilentConnection,
)


class Connections(Protocol):
    """One entry per ws_id."""

    def names(self, first: str, end: str, limit: int) -> list[str]:
        """Return the ws_ids from one name to another, which is left out, in the order of their names."""

    def names_ending(self, part: str, limit: int) -> list[str]:
        """Return ws_ids that end with a text."""

    def find(self, ws_id: str) -> Optional[Connection]:
        """Return a connection, active or not."""

    def lock(self, ws_ids: Collection[str]) -> None:
        """Keep connections as they are until the block ends.

        A block that touches several calls this before it touches one, with all of them: see `Store`.
        """

    def is_known(self, ws_id: str) -> bool:
        """Return whether there is a connection, active or not. Unlike what `find` says, that may change at once."""

    def is_active(self, ws_id: str) -> bool:
        """Return whether a connection is active."""

    def active(self, agent: Optional[str] = None) -> list[Connection]:
        """Return the active connections, of one agent or of all, oldest first."""

    def active_among(self, ws_ids: Collection[str]) -> set[str]:
        """Return those of some ws_ids that are active."""

    def recipients(self, agent: Optional[str] = None, among: Optional[Collection[str]] = None) -> Recipients:
        """Return the active connections, of one agent or of all, that are among some ws_ids; all if None."""

    def listed(
        self,
        *,
        active_only: bool,
        agent: Optional[str] = None,
        not_heard: Optional[tuple[str, str]] = None,
        after: int = 0,
        limit: Optional[int] = None,
        count_pending: bool = True,
    ) -> list[ListedConnection]:
        """Return connections, oldest first.

        Args:
            active_only: leave out those that are disconnected.
            agent: only this agent's.
            not_heard: only those without a sign of life between these two times.
            after: only those with a higher `db_id`.
            limit: at most this many; all if None.
            count_pending: False leaves the number of pending messages at 0, which is faster.
        """

    def count_active(self, agent: Optional[str] = None) -> int:
        """Return how many connections are active, of one agent or of all."""

    def has_active(self, agent: Optional[str] = None) -> bool:
        """Return whether any connection is active, of one agent or of all."""

    def has_agent(self, agent: str) -> bool:
        """Return whether any connection, active or not, belongs to an agent."""

    def count_ever(self) -> int:
        """Return how many ws_ids were ever registered. Deleting connections does not lower it."""

    def count_by_agent(self) -> dict[str, int]:
        """Return the number of active connections of each agent, by name."""

    def register(
        self, connection: Connection, metadata: Optional[str], token: Optional[str] = None
    ) -> Connection:
        """Make a ws_id active, in its next epoch, and return it.

        Args:
            connection: its ws_id, agent, times and gateway; all else is ignored.
            metadata: JSON text. None keeps what a known ws_id has; a new one gets `{}`.
            token: the key of the socket's token.
        """

    def expel(
        self, at: str, code: int, reason: str, *, agent: Optional[str] = None, token: Optional[str] = None
    ) -> list[str]:
        """Disconnect the active connections of an agent or of a token, void their registrations, and return them.

        Args:
            at: the present time.
            code: the close code.
            reason: why.
            agent: of this agent.
            token: opened with the token of this key.
        """

    def disconnect(self, ws_id: str, at: str, reason: str, code: Optional[int] = None) -> bool:
        """Mark an active connection as disconnected. False if it was not active."""

    def silent(self, since: str, until: str) -> list[SilentConnection]:
        """Return the active connections whose last sign of life is not between two times."""

    def disconnect_silent(self, silent: SilentConnection, at: str, reason: str) -> bool:
        """Mark a connection as disconnected if it is still active and was not heard since it was read."""

    def socket_closed(self, ws_id: str, epoch: int, code: int, reason: str) -> bool:
        """Note that the socket of one epoch has gone. False if another registration has come since."""

    def heartbeat(self, ws_id: str, at: str) -> bool:
        """Write a sign of life. False if the connection is not active."""

    def heard(self, signs: Sequence[SignOfLife], now: str) -> set[Registration]:
        """Write signs of life, and return the registrations for which one was written.

        None is written where the registration is void or not active, or where a later sign is there already. One in
        the future does not count as later: the clock was set back since.

        Args:
            signs: at least one, at most one for each registration.
            now: the present time.
        """

    def has_epoch(self, ws_id: str, epoch: int) -> bool:
        """Return whether a registration is the present one."""

    def count_message(self, ws_id: str) -> None:
        """Add one to a connection's message counter."""


class Bars(Protocol):
    """The agents and the tokens that a gateway does not let in."""

    def bar(self, agent: str, at: str) -> bool:
        """Bar an agent. False if it was barred."""

    def unbar(self, agent: str) -> bool:
        """Let an agent in again. False if it was not barred."""

    def revoke(self, token: str, at: str) -> bool:
        """Revoke a token, by its key. False if it was revoked."""

    def agents(self) -> list[tuple[str, str]]:
        """Return the barred agents, by name, each with the time since when."""

    def is_barred(self, agent: str) -> bool:
        """Return whether an agent is barred."""

    def is_revoked(self, token: str) -> bool:
        """Return whether a token is revoked."""


class Keys(Protocol):
    """The requests that were done lately, by the keys of those who asked: see `ws_manager.core.once`."""

    def find(
        self, subject: str, operation: str, names: Collection[str], since: str
    ) -> dict[str, tuple[str, str]]:
        """Return the fingerprints and results of the requests that were done since a time, by their keys' names."""

    def insert(self, subject: str, operation: str, done: Sequence[tuple[str, str, str]], at: str) -> None:
        """Write that requests were done: each with the name of its key, its fingerprint and its result.

        One replaces an older one with the same key.
        """


class Messages(Protocol):
    """Messages: writing, delivery and outcomes. Writing one counts it for its recipient."""

    def insert(self, message: NewMessage) -> int:
        """Write one message and return its `seq`."""

    def insert_each(self, messages: Sequence[NewMessage]) -> None:
        """Write messages that have one sender and one time, in this order."""

    def position(self, gateway: str) -> Position:
        """Return the position behind everything that is committed now.

        Args:
            gateway: what is read from there on are the messages that are written while it has the recipient's
                connection; everybody's where the engine cannot tell.
        """

    def after(self, position: Position, limit: int) -> Reading:
        """Return the pending messages behind a position.

        At most `limit`, and at most so many that they take a few MiB of memory. The position that they reach differs
        from the old one as soon as something was committed.
        """

    def pending(
        self, ws_id: str, after: int, limit: int, characters: int = MOST_CHARACTERS
    ) -> list[PendingMessage]:
        """Return the pending messages of one connection above a `seq`, in order.

        Args:
            ws_id: the connection.
            after: a `seq`; 0 for all.
            limit: the most messages.
            characters: the last message is the one with which the contents exceed this.
        """

    def count_pending(self, ws_id: str, after: int, limit: int = -1) -> int:
        """Return how many pending messages of one connection have a higher `seq`, counted up to a limit."""

    def count_pending_before(self, ws_id: str, after: int, before: int) -> int:
        """Return how many pending messages of one connection are between two `seq`, both left out."""

    def written(self, ws_id: str, first: int, last: int, at: str) -> None:
        """Note when what is pending from one `seq` to another was written to a socket."""

    def settled(self, ws_id: str, seq: int, at: str) -> None:
        """Note when a message, which is not pending any more, was written to a socket."""

    def refuse(self, seq: int) -> int:
        """Count a socket that closed on a message, and return how many did."""

    def set_aside(self, ws_id: str, first: int, last: Optional[int], reason: str, at: str) -> list[str]:
        """Take what is pending from one `seq` to another, or to the end, out of delivery, and return the msg_ids."""

    def to_retry(
        self, since: str, msg_id: Optional[str] = None, agent: Optional[str] = None
    ) -> list[PendingMessage]:
        """Return what was set aside since a time and not sent again yet, in order: a message, an agent's, or all."""

    def retry_of(self, msg_id: str, ws_id: str, seq: int) -> Optional[str]:
        """Return the msg_id of the message to a connection, behind a `seq`, that repeats another; None for none."""

    def delivery_counts(self, msg_ids: Sequence[str]) -> DeliveryCounts:
        """Return how many of some messages are confirmed, pending and set aside."""

    def count(self) -> int:
        """Return the number of messages in the ledger."""


class Receipts(Protocol):
    """What was confirmed, and the journal of it: one entry for each call that marks something, with what it marks."""

    def settle(self, receipts: Sequence[Receipt], at: str) -> set[Registration]:
        """Mark what receipts name as delivered, and raise the highest confirmed `seq` of their connections.

        What is not pending any more stays as it is. A receipt of a registration that does not hold any more is void
        and changes nothing.

        Args:
            receipts: at least one.
            at: when they are settled.

        Returns:
            The registrations whose receipts were void.
        """

    def settle_one(self, ws_id: str, seq: int, at: str) -> None:
        """Mark one pending message of a connection as delivered, whatever becomes of those before it.

        The highest confirmed `seq` is raised only if nothing before it is pending: a socket begins behind it.
        """


class Broadcasts(Protocol):
    """One entry for each call of broadcast, and the messages of one of them."""

    def names(self, first: str, end: str, limit: int) -> list[str]:
        """Return the broadcast_ids from one name to another, which is left out, in the order of their names."""

    def names_ending(self, part: str, limit: int) -> list[str]:
        """Return broadcast_ids that end with a text."""

    def insert(self, broadcasts: Sequence[NewBroadcast], recipients: Recipients) -> None:
        """Write at least one broadcast, with a message to each recipient, in this order."""

    def find(self, broadcast_id: str) -> Optional[BroadcastState]:
        """Return one broadcast."""

    def recipients(self, broadcast_id: str) -> list[str]:
        """Return the recipients of a broadcast, as far as its messages are still there."""

    def latest(
        self,
        limit: int,
        after: Optional[str] = None,
        *,
        sender_agent: Optional[str] = None,
        sender_id: Optional[str] = None,
    ) -> list[BroadcastState]:
        """Return the latest broadcasts, newest first.

        Args:
            limit: the most to return.
            after: only those that are older than this one.
            sender_agent: only those that a connection has sent that is this agent's now.
            sender_id: only those that this connection has sent; it must be in the ledger.
        """

    def delivery_counts(self, broadcast_id: str) -> DeliveryCounts:
        """Return how many messages of a broadcast are confirmed, pending and set aside."""

    def confirmation_times(self, broadcast_id: str) -> tuple[Optional[str], Optional[str]]:
        """Return when its first and its last message were confirmed."""

    def unconfirmed(self, broadcast_id: str, limit: int) -> list[Message]:
        """Return those of its messages that are pending or set aside, in order."""


class Events(Protocol):
    """What happened to connections and messages."""

    def insert(
        self,
        kind: str,
        at: str,
        ws_id: Optional[str] = None,
        msg_id: Optional[str] = None,
        detail: Optional[str] = None,
    ) -> None:
        """Write one event, in the block that does it."""

    def position(self) -> Position:
        """Return the position behind everything that is committed now."""

    def after(self, position: Position) -> tuple[list[Event], Position]:
        """Return the events behind a position, in order, and the position that was reached."""

    def of(self, ws_id: str, since: str, until: str, limit: int) -> list[Event]:
        """Return a connection's newest events between two times, oldest first."""


class HeartbeatLog(Protocol):
    """Signs of life, sampled, with the round trip where it was measured."""

    def latest(self, ws_id: str) -> Optional[LoggedHeartbeat]:
        """Return the last one of a connection."""

    def insert(self, ws_id: str, at: str, latency_ms: Optional[int]) -> None:
        """Write one."""


class Gateways(Protocol):
    """Which gateways have run on this ledger."""

    def insert(self, gateway: Gateway) -> None:
        """Write a gateway that has just started."""

    def seen(self, gateway_id: str, at: str) -> None:
        """Note that it runs."""

    def found(self, gateway_ids: Collection[str]) -> list[Gateway]:
        """Return those of some gateways that the ledger knows, the one that started last first."""

    def latest(self) -> Optional[Gateway]:
        """Return the gateway that started last, whether it runs or not."""

    def seen_since(self, at: str) -> frozenset[str]:
        """Return the ids of the gateways that noted after a time that they run."""


class WebhookEvents(Protocol):
    """Events from webhooks, and whether they became messages."""

    def find(self, event_id: str) -> Optional[StoredEvent]:
        """Return one event."""

    def payload(self, event_id: str) -> str:
        """Return the body of an event that is there, as text."""

    def put(
        self,
        event_id: str,
        event_type: str,
        agent: Optional[str],
        msg_type: str,
        payload: str,
        at: str,
        reason: Optional[str],
    ) -> None:
        """Write an event that is not routed; of one that is there already, where it is to go.

        With a reason it can be routed neither now nor later. Without one it waits for a connection.
        """

    def routed(self, event_id: str, broadcast_id: str, recipients: int, at: str) -> None:
        """Note that an event has become messages."""

    def listed(
        self,
        status: Optional[str],
        since: str,
        pattern: Optional[str],
        limit: int,
        after: Optional[str] = None,
    ) -> list[StoredEvent]:
        """Return events, the newest first.

        Args:
            status: `routed` or `unrouted`; None for both.
            since: only those received at this time or later.
            pattern: only of types that match it; `*` stands for anything. None for all.
            limit: at most this many.
            after: only those that are behind the event with this id.
        """

    def waiting(self, since: str) -> list[str]:
        """Return the ids of the events that wait to be routed, received since a time, the oldest first."""
