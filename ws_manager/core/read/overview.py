"""What goes on at one moment: who is connected and how well, how much is sent and confirmed, what ended and why.

Read-only, and cheap with 100,000 connections: only those that are shown are looked at closely.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Callable, Optional

from ws_manager.core.presence import running_gateway, seems_to_run
from ws_manager.core.validation import check_limit, check_name
from ws_manager.errors import InvalidInput
from ws_manager.models import Gateway, is_ahead, seconds_between, utc_now
from ws_manager.repository.findings import ORDERS, ActiveConnection, Backlog, RecentMessage
from ws_manager.settings import HEARTBEAT_TIMEOUT

if TYPE_CHECKING:
    from ws_manager.repository.store import Changes, Store

SLOW_ROUND_TRIP_MS = 1000
SLOW_CONFIRMATION_SECONDS = 10.0

_CONTENT_CHARACTERS = 200
_ENDINGS_LOOKED_AT = 1000


@dataclass(frozen=True)
class OverviewQuery:
    """What an overview is to show.

    Attributes:
        order: one of `ORDERS`.
        agent: only this agent's connections.
        text: only connections with this in their ws_id, agent or metadata; upper and lower case are the same.
        connections: the most to show.
        messages: the most to show.
        endings: the most to show.
        after: count what was confirmed behind this cursor of an earlier overview.
    """

    order: str = "pending"
    agent: Optional[str] = None
    text: Optional[str] = None
    connections: int = 20
    messages: int = 10
    endings: int = 5
    after: Optional[str] = None


@dataclass(frozen=True)
class ConnectionState:
    """One active connection.

    Attributes:
        ws_id: the connection.
        agent: its agent.
        connected_at: when it was last registered.
        last_heartbeat: its last sign of life.
        age_seconds: since it was registered.
        idle_seconds: since its last sign of life.
        round_trip_ms: the last logged one; None if it was not measured.
        pending: messages that it has not confirmed, counted up to `MOST_COUNTED`.
        waiting_seconds: since the oldest of them was sent; None if none is pending.
        sent: messages that it was ever sent.
        slow: why it counts as slow: `silent`, `waiting`, `round trip`; empty if it does not.
    """

    ws_id: str
    agent: str
    connected_at: str
    last_heartbeat: str
    age_seconds: float
    idle_seconds: float
    round_trip_ms: Optional[int]
    pending: int
    waiting_seconds: Optional[float]
    sent: int
    slow: tuple[str, ...]


@dataclass(frozen=True)
class Ending:
    """Why sockets and connections ended lately: one reason, how often, and the last one of it."""

    reason: str
    count: int
    last_at: str
    last_ws_id: str


@dataclass(frozen=True)
class Overview:
    """The ledger at one moment.

    Attributes:
        at: when.
        gateway: a gateway that runs; if none does, the one that started last.
        gateway_runs: whether it runs.
        backlog: what has not arrived, over the whole ledger.
        active_connections: how many there are.
        matching_connections: how many of them the query asks for.
        total_ever_connected: ws_ids that were ever registered.
        total_messages: messages that were ever sent.
        sent_per_second: since the overview before; None for the first.
        confirmed_per_second: the same, by active connections.
        connections: the first of those that match, in the query's order.
        messages: the newest, newest first.
        endings: the latest first.
        cursor: where `/v1/events` goes on from this moment.
        confirmed: how many messages were confirmed behind the query's `after`; None without it.
    """

    at: str
    gateway: Optional[Gateway]
    gateway_runs: bool
    backlog: Backlog
    active_connections: int
    matching_connections: int
    total_ever_connected: int
    total_messages: int
    sent_per_second: Optional[float]
    confirmed_per_second: Optional[float]
    connections: list[ConnectionState]
    messages: list[RecentMessage]
    endings: list[Ending]
    cursor: str
    confirmed: Optional[int]


def overview_form(overview: Overview) -> dict[str, Any]:
    """Return an overview as JSON values by their names: one frame of `top`, and `/v1/snapshot`."""
    gateway = overview.gateway
    return {
        **asdict(overview),
        "gateway": None if gateway is None else gateway._asdict(),
        "backlog": overview.backlog._asdict(),
        "messages": [
            {**message._asdict(), "delivered": bool(message.delivered)} for message in overview.messages
        ],
    }


class Rates:
    """Makes the rates of each overview from the one before.

    Args:
        timer: returns seconds on a clock that only goes forward.
    """

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._before: Optional[Overview] = None
        self._at = 0.0

    def query(self, query: OverviewQuery) -> OverviewQuery:
        """Return a query that asks for what the next rates are made of."""
        return query if self._before is None else replace(query, after=self._before.cursor)

    def fill_in(self, overview: Overview) -> Overview:
        """Return the next overview with its rates: None for the first."""
        before, seconds = self._before, -self._at
        self._before, self._at = overview, self._timer()
        seconds += self._at
        if before is None or overview.confirmed is None or seconds <= 0:
            return overview
        return replace(
            overview,
            sent_per_second=(overview.total_messages - before.total_messages) / seconds,
            confirmed_per_second=overview.confirmed / seconds,
        )


class Sampler:
    """Takes overviews of one ledger, one after another.

    Args:
        store: an open ledger. The sampler belongs to its thread, and never writes.
        timeout: seconds without a sign of life after which a connection is slow.
        now: returns the present time as fixed-width UTC text.
        timer: returns seconds on a clock that only goes forward.
    """

    def __init__(
        self,
        store: Store,
        timeout: float = HEARTBEAT_TIMEOUT,
        *,
        now: Callable[[], str] = utc_now,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._timeout = timeout
        self._now = now
        self._rates = Rates(timer)
        self._sampled = False
        self._changes: Optional[Changes] = None
        self._backlog = Backlog(0, 0, 0, None)

    def sample(self, query: OverviewQuery) -> Overview:
        """Return the ledger as it is now, all of it at one moment.

        Raises:
            InvalidInput: the query is not valid.
            LedgerError: the ledger cannot be read, or is no longer the one that was opened.
        """
        check_query(query)
        self._store.check()
        if self._sampled and self._changes is None:
            # Not for a single sample: the session would listen from then on.
            self._changes = self._store.changes()
        self._sampled = True
        return self._rates.fill_in(self._take(self._rates.query(query)))

    def _take(self, query: OverviewQuery) -> Overview:
        store = self._store
        with store.snapshot():
            at = self._now()
            if self._changes is None or self._changes.happened():
                self._backlog = store.overview.whole_backlog()
            active = store.connections.count_active()
            chosen = query.agent or query.text
            return Overview(
                at=at,
                gateway=running_gateway(store) or store.gateways.latest(),
                gateway_runs=seems_to_run(store),
                backlog=self._backlog,
                active_connections=active,
                matching_connections=self._store.overview.count(query.agent, query.text)
                if chosen
                else active,
                total_ever_connected=store.connections.count_ever(),
                total_messages=store.overview.count_sent(),
                sent_per_second=None,
                confirmed_per_second=None,
                connections=self._states(query, at),
                messages=self._store.overview.messages(query.messages, _CONTENT_CHARACTERS),
                endings=self._endings(query.endings),
                cursor=store.feed.end(),
                confirmed=self._confirmed_behind(query.after),
            )

    def _confirmed_behind(self, cursor: Optional[str]) -> Optional[int]:
        feed = self._store.feed
        return feed.count_confirmed(cursor) if cursor is not None and feed.is_cursor(cursor) else None

    def _states(self, query: OverviewQuery, at: str) -> list[ConnectionState]:
        found = self._store.overview.connections(query.order, query.connections, query.agent, query.text)
        states = [self._state(connection, at) for connection in found]
        if query.order == "pending":
            # The ledger's order counts what is set aside too.
            states.sort(key=lambda state: state.pending, reverse=True)
        return states

    def _state(self, connection: ActiveConnection, at: str) -> ConnectionState:
        pending, oldest = self._store.overview.backlog(connection.ws_id, connection.confirmed_seq)
        heartbeat = self._store.heartbeat_log.latest(connection.ws_id)
        state = ConnectionState(
            ws_id=connection.ws_id,
            agent=connection.agent,
            connected_at=connection.connected_at,
            last_heartbeat=connection.last_heartbeat,
            age_seconds=seconds_between(connection.connected_at, at),
            idle_seconds=seconds_between(connection.last_heartbeat, at),
            round_trip_ms=None if heartbeat is None else heartbeat.latency_ms,
            pending=pending,
            waiting_seconds=None if oldest is None else seconds_between(oldest, at),
            sent=connection.message_count,
            slow=(),
        )
        return replace(state, slow=self._slowness(state, at))

    def _slowness(self, state: ConnectionState, at: str) -> tuple[str, ...]:
        signs = {
            "silent": state.idle_seconds > self._timeout or is_ahead(state.last_heartbeat, at),
            "waiting": (state.waiting_seconds or 0) > SLOW_CONFIRMATION_SECONDS,
            "round trip": (state.round_trip_ms or 0) > SLOW_ROUND_TRIP_MS,
        }
        return tuple(name for name, holds in signs.items() if holds)

    def _endings(self, limit: int) -> list[Ending]:
        ended = self._store.overview.endings(_ENDINGS_LOOKED_AT)
        # A socket that says goodbye closes and disconnects at once: that is one ending.
        closed = {(event.ws_id, event.ts) for event in ended if event.kind == "closed"}
        found: dict[str, Ending] = {}
        for event in ended:
            if event.kind == "disconnected" and (event.ws_id, event.ts) in closed:
                continue
            detail = event.detail or "no reason given"
            reason = f"socket closed: {detail}" if event.kind == "closed" else detail
            known = found.get(reason)
            if known is None:
                found[reason] = Ending(reason, 1, event.ts, event.ws_id)
            else:
                found[reason] = replace(known, count=known.count + 1)
        return list(found.values())[:limit]


def check_query(query: OverviewQuery) -> None:
    """Check a query.

    Raises:
        InvalidInput: an order that does not exist, a limit below 0, or a name that no agent can have.
    """
    if query.order not in ORDERS:
        raise InvalidInput(f"no such order: {query.order!r}", hint=f"one of {', '.join(ORDERS)}")
    if query.agent is not None:
        check_name(query.agent, "agent", known=True)
    for limit in (query.connections, query.messages, query.endings):
        check_limit(limit)
