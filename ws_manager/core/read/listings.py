"""Lists of connections and messages for those who look: chosen, newest messages first, or as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional

from ws_manager.core.validation import check_limit, check_timeout
from ws_manager.errors import InvalidInput, NotFound
from ws_manager.models import ACTIVE, Connection, Message, heard_between, utc_now
from ws_manager.remedies import FOLLOW_PLAINLY, LIST_BROADCASTS
from ws_manager.repository.findings import MessageFilter
from ws_manager.repository.records import ListedConnection

if TYPE_CHECKING:
    from ws_manager.core.read.conditions import Conditions
    from ws_manager.repository.store import Store

_CHUNK = 500


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
    limit: Optional[int] = None,
    count_pending: bool = True,
) -> list[ListedConnection]:
    """Return connections, oldest first."""
    return store.connections.listed(
        active_only=not include_disconnected,
        agent=agent,
        not_heard=None if silent_for is None else heard_between(utc_now(), check_timeout(silent_for)),
        limit=None if limit is None else check_limit(limit),
        count_pending=count_pending,
    )


def recipients(store: Store, agent: Optional[str], conditions: Optional[Conditions]) -> list[Recipient]:
    """Return every connection, active or not, with the reason why a broadcast would not reach it now."""

    def refusal(connection: Connection) -> Optional[str]:
        if connection.status != ACTIVE:
            return f"disconnected: {connection.close_reason or 'no reason given'}"
        if agent is not None and connection.agent != agent:
            return f"other agent: {connection.agent}"
        failed = conditions.failed(connection) if conditions else []
        return f"condition not met: {', '.join(failed)}" if failed else None

    listed = connections(store, include_disconnected=True, count_pending=False)
    return [Recipient(connection, refusal(connection)) for connection, _ in listed]


def messages(store: Store, wanted: MessageFilter, limit: int) -> list[Message]:
    """Return messages, newest first."""
    check_limit(limit)
    if wanted.broadcast_id is not None and store.broadcasts.find(wanted.broadcast_id) is None:
        raise NotFound(f"no broadcast {wanted.broadcast_id}", remedy=LIST_BROADCASTS)
    return store.history.newest(wanted, limit)


def follow(store: Store, wanted: MessageFilter, pause: Callable[[], None]) -> Iterator[Sequence[Message]]:
    """Give messages as they are committed, by any process, oldest first, in batches; it never ends by itself."""
    if wanted.pending or wanted.set_aside or wanted.before is not None:
        raise InvalidInput("what has just been committed is neither settled nor old", remedy=FOLLOW_PLAINLY)
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
