"""The questions that a ledger answers: the part of `Ledger` that never writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Optional

from ws_manager.models import ACTIVE, Connection, Message
from ws_manager.settings import HEARTBEAT_TIMEOUT

if TYPE_CHECKING:
    from ws_manager.core import sending
    from ws_manager.core.read.conditions import Conditions
    from ws_manager.core.read.explain import Explanation, Unconfirmed
    from ws_manager.core.read.feed import Feed
    from ws_manager.core.read.listings import Recipient
    from ws_manager.core.read.lookup import Thing
    from ws_manager.core.read.overview import Sampler
    from ws_manager.core.read.sample import LedgerSample
    from ws_manager.core.retry import Retried
    from ws_manager.models import Gateway
    from ws_manager.repository.findings import Backlog, BroadcastState, Finding, MessageFilter
    from ws_manager.repository.records import ListedConnection
    from ws_manager.repository.store import Store
    from ws_manager.repository.working import Ask


class Questions:
    """What can be asked of a ledger. `Ledger` adds what changes it.

    Every question may raise `LedgerError` if the ledger cannot be used.
    """

    _store: Store

    # Connections

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
        where: Optional[Conditions] = None,
        order: str = "age",
        after: Optional[str] = None,
        limit: Optional[int] = None,
        count_pending: bool = True,
    ) -> list[ListedConnection]:
        """Return connections, each with the number of its pending messages.

        Args:
            include_disconnected: the disconnected too.
            agent: only this agent's.
            silent_for: only those without a sign of life for this many seconds, or with one in the future.
            where: only those for which these conditions hold.
            order: one of `listings.ORDERS`: by age, the oldest comes first.
            after: only those behind this ws_id in the order.
            limit: at most this many; all if None.
            count_pending: False leaves `pending` at 0, which is faster.

        Raises:
            InvalidInput: the order, the limit or the time cannot be accepted.
            NotFound: `after` is not a connection.
        """
        from ws_manager.core.read import listings

        return listings.connections(
            self._store,
            include_disconnected=include_disconnected,
            agent=agent,
            silent_for=silent_for,
            where=where,
            order=order,
            after=after,
            limit=limit,
            count_pending=count_pending,
        )

    def recipients(self, agent: Optional[str], conditions: Optional[Conditions]) -> list[Recipient]:
        """Return every connection, active or not, with the reason why a broadcast would not reach it now."""
        from ws_manager.core.read import listings

        return listings.recipients(self._store, agent, conditions)

    def knows_agent(self, agent: str) -> bool:
        """Return whether an agent has, or had, a connection."""
        return self._store.connections.has_agent(agent)

    def has_socket(self, connection: Connection) -> bool:
        """Return whether a gateway has a socket open on a connection."""
        from ws_manager.core.presence import has_socket, living_gateways

        return has_socket(connection, living_gateways(self._store))

    def count(self, agent: Optional[str] = None) -> int:
        """Return the number of active connections, of one agent or of all."""
        return self._store.connections.count_active(agent)

    def count_pending(self, connection: Connection, limit: int = -1) -> int:
        """Return how many messages a connection has not confirmed yet, counted up to a limit; -1 for none."""
        return self._store.messages.count_pending(connection.ws_id, connection.confirmed_seq, limit=limit)

    def retry_of(self, msg_id: str) -> Optional[Retried]:
        """Return what a set-aside message was sent again as; None if it was not."""
        from ws_manager.core import retry

        return retry.retry_of(self._store, msg_id)

    def unconfirmed(self, sent: sending.Sent) -> list[Unconfirmed]:
        """Return what has not been confirmed of what was sent, at most 20, and why."""
        from ws_manager.core.read.explain import unconfirmed

        return unconfirmed(self._store, sent)

    # Messages, and the whole

    def message(self, msg_id: str) -> Optional[Message]:
        """Return a message."""
        return self._store.history.find(msg_id)

    def asked(self, msg_id: str) -> Ask:
        """Return an ask, and its answer.

        Raises:
            NotFound: there is no such ask, or it is more than 24 h old.
        """
        from ws_manager.core import asks

        return asks.asked(self._store, msg_id)

    def wait_for_answer(self, msg_id: str, seconds: float) -> Ask:
        """Wait until an ask is answered or set aside, or the time is over, and return it.

        It follows the ledger, so the answer may come through any process. Errors are those of `asked`.
        """
        from ws_manager.core import asks

        return asks.wait(self._store, msg_id, seconds)

    def find_broadcast(self, broadcast_id: str) -> Optional[BroadcastState]:
        """Return a broadcast and how far its delivery is."""
        return self._store.broadcasts.find(broadcast_id)

    def messages(self, wanted: MessageFilter, limit: int = 50) -> list[Message]:
        """Return messages, newest first.

        Raises:
            InvalidInput: the limit cannot be accepted.
            NotFound: they are to be of a broadcast that does not exist.
        """
        from ws_manager.core.read import listings

        return listings.messages(self._store, wanted, limit)

    def messages_after(
        self, after: Optional[str], wanted: MessageFilter, limit: int
    ) -> tuple[list[Message], str]:
        """Return messages in the order of their commits: one step of `follow`, for those who ask again.

        Args:
            after: the place that the step before has reached; None begins at `wanted.since`, or now.
            wanted: which.
            limit: at most this many.

        Returns:
            The messages, and the place that was reached.

        Raises:
            InvalidInput: as `follow`; or `after` is no place.
        """
        from ws_manager.core.read import listings

        return listings.messages_after(self._store, after, wanted, limit)

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

    def broadcasts(
        self,
        limit: int = 50,
        after: Optional[str] = None,
        *,
        sender_agent: Optional[str] = None,
        sender_id: Optional[str] = None,
    ) -> list[BroadcastState]:
        """Return the latest broadcasts and how far their delivery is, newest first, and older than `after`.

        Args:
            limit: the most to return.
            after: a broadcast_id; None begins with the newest.
            sender_agent: only those that this agent's connections have sent.
            sender_id: only those that this connection has sent.

        Raises:
            NotFound: `after` is not a broadcast.
        """
        from ws_manager.core.read import listings

        return listings.broadcasts(self._store, limit, after, sender_agent, sender_id)

    def addressed(self, broadcast_id: str) -> list[str]:
        """Return the recipients of a broadcast, as far as its messages are still in the ledger."""
        return self._store.broadcasts.recipients(broadcast_id)

    def look_up(self, identifier: str) -> Thing:
        """Return the connection, the message or the broadcast that an identifier, or a part of one, means.

        Raises:
            NotFound: there is no such thing.
            InvalidInput: a part fits several.
        """
        from ws_manager.core.read.lookup import look_up

        return look_up(self._store, identifier)

    def explain(self, identifier: str) -> Explanation:
        """Return all there is about a connection, a message or a broadcast: a verdict, facts and a timeline.

        It is named as for `look_up`, which says what is raised.
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

    def backlog(self) -> Backlog:
        """Return what has not arrived, over the whole ledger: pending, set aside, unrouted."""
        with self._store.snapshot():
            return self._store.overview.whole_backlog()

    def doctor(self) -> list[Finding]:
        """Return what there is to say about the ledger and its engine. Nothing is changed."""
        return list(self._store.examine())

    @property
    def feed(self) -> Feed:
        """What happened, as one sequence: for streams of events."""
        from ws_manager.core.read.feed import Feed

        return Feed(self._store)

    def sample(self) -> LedgerSample:
        """Return a few numbers of the whole ledger."""
        from ws_manager.core.read.sample import sample

        return sample(self._store)

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

    def running_gateways(self) -> list[Gateway]:
        """Return the gateways that run on this ledger, one for each address, those on this machine first."""
        from ws_manager.core.presence import running_gateways

        return running_gateways(self._store)

    def gateway_to_call(self) -> Optional[Gateway]:
        """Return a gateway that can be called from this machine; None if none runs.

        Raises:
            GatewayUnavailable: those that run have told an address that only their own machines reach.
        """
        from ws_manager.core.presence import gateway_to_call

        return gateway_to_call(self._store)

    def latest_gateway(self) -> Optional[Gateway]:
        """Return the gateway that started last, whether it runs or not."""
        return self._store.gateways.latest()
