"""Lists of connections and messages for those who look: chosen, newest messages first, or as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional

from ws_manager.core.validation import check_limit, check_timeout
from ws_manager.errors import InvalidInput, NotFound
from ws_manager.models import ACTIVE, Connection, Message, heard_between, utc_now
from ws_manager.remedies import FOLLOW_PLAINLY, LIST_BROADCASTS
from ws_manager.repository.findings import BroadcastState, MessageFilter
from ws_manager.repository.records import ListedConnection

if TYPE_CHECKING:
    from ws_manager.core.read.conditions import Conditions
    from ws_manager.repository.store import Store

_CHUNK = 500

ORDERS: dict[str, Callable[[ListedConnection], tuple[object, ...]]] = {
    "age": lambda listed: (),
    "pending": lambda listed: (-listed.pending,),
    "idle": lambda listed: (listed.connection.last_heartbeat,),
    "sent": lambda listed: (-listed.connection.message_count,),
    "agent": lambda listed: (listed.connection.agent,),
}
"""The orders of a list of connections: what is the same in one comes oldest first."""


class Recipient(NamedTuple):
    """A connection, and why a broadcast would not reach it; None if it would."""

    connection: Connection
    refusal: Optional[str]


def connections(
    store: Store,
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
    """Return connections, each with the number of its pending messages."""
    check_order(order)
    if limit is not None:
        check_limit(limit)
    last = None if after is None else store.connections.find(after)
    if after is not None and last is None:
        raise NotFound(f"no connection {after}")
    # Conditions and orders are not SQL, so all rows are read where there are any.
    plain = where is None and order == "age"
    found = store.connections.listed(
        active_only=not include_disconnected,
        agent=agent,
        not_heard=None if silent_for is None else heard_between(utc_now(), check_timeout(silent_for)),
        after=last.db_id or 0 if last is not None and plain else 0,
        limit=limit if plain else None,
        count_pending=count_pending or order == "pending",
    )
    if plain:
        return found

    def place(listed: ListedConnection) -> tuple[object, ...]:
        return (*ORDERS[order](listed), listed.connection.db_id)

    chosen = sorted((each for each in found if where is None or where(each.connection)), key=place)
    if last is not None:
        pending = store.messages.count_pending(last.ws_id, last.confirmed_seq)
        behind = place(ListedConnection(last, pending))
        chosen = [each for each in chosen if place(each) > behind]
    return chosen[:limit]


def check_order(order: str) -> str:
    """Return an order of connections.

    Raises:
        InvalidInput: there is no such order.
    """
    if order not in ORDERS:
        raise InvalidInput(f"no such order: {order!r}", hint=f"one of {', '.join(ORDERS)}")
    return order


def recipients(store: Store, agent: Optional[str], conditions: Optional[Conditions]) -> list[Recipient]:
    """Return every connection, active or not, with the reason why a broadcast would not reach it now."""
    return with_refusals(
        connections(store, include_disconnected=True, count_pending=False), agent, conditions
    )


def with_refusals(
    listed: Sequence[ListedConnection], agent: Optional[str], conditions: Optional[Conditions]
) -> list[Recipient]:
    """Return connections, each with the reason why a broadcast would not reach it."""

    def refusal(connection: Connection) -> Optional[str]:
        if connection.status != ACTIVE:
            return f"disconnected: {connection.close_reason or 'no reason given'}"
        if agent is not None and connection.agent != agent:
            return f"other agent: {connection.agent}"
        failed = conditions.failed(connection) if conditions else []
        return f"condition not met: {', '.join(failed)}" if failed else None

    return [Recipient(connection, refusal(connection)) for connection, _ in listed]


def broadcasts(
    store: Store, limit: int, after: Optional[str], sender_agent: Optional[str], sender_id: Optional[str]
) -> list[BroadcastState]:
    """Return the latest broadcasts, newest first."""
    if after is not None and store.broadcasts.find(after) is None:
        raise NotFound(f"no broadcast {after}", remedy=LIST_BROADCASTS)
    return store.broadcasts.latest(check_limit(limit), after, sender_agent=sender_agent, sender_id=sender_id)


def messages(store: Store, wanted: MessageFilter, limit: int) -> list[Message]:
    """Return messages, newest first."""
    check_limit(limit)
    if wanted.broadcast_id is not None and store.broadcasts.find(wanted.broadcast_id) is None:
        raise NotFound(f"no broadcast {wanted.broadcast_id}", remedy=LIST_BROADCASTS)
    return store.history.newest(wanted, limit)


def messages_after(
    store: Store, after: Optional[str], wanted: MessageFilter, limit: int
) -> tuple[list[Message], str]:
    """Return what was sent behind a place, oldest first, and the place that was reached."""
    _check_follow(wanted)
    history = store.history
    position = history.position(wanted.since) if after is None else history.position_of(after)
    found, reached = history.after(position, wanted, check_limit(limit))
    return found, history.text_of(reached)


def follow(store: Store, wanted: MessageFilter, pause: Callable[[], None]) -> Iterator[Sequence[Message]]:
    """Give messages as they are committed, by any process, oldest first, in batches; it never ends by itself."""
    _check_follow(wanted)
    changes = store.changes()
    # What is sent between these two readings is found by the next look.
    changes.happened()
    position = store.history.position(wanted.since)
    while True:
        found, reached = store.history.after(position, wanted, _CHUNK)
        if found:
            yield found
        if reached == position:
            while not changes.happened():
                pause()
        position = reached


def _check_follow(wanted: MessageFilter) -> None:
    if wanted.pending or wanted.set_aside or wanted.before is not None:
        raise InvalidInput("what has just been committed is neither settled nor old", remedy=FOLLOW_PLAINLY)
