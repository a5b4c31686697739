"""Taking a connection's messages without a socket and without the ledger's file: over HTTP.

A hold is a random name in the ledger. It ends by itself, so a lost receiver does not keep others out for long. Each
request of the receiver renews it. It excludes other holds, sockets, and receivers on the file, which hold a lock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Optional

from ws_manager.core.attempts import arrive
from ws_manager.core.bars import check_bars
from ws_manager.core.presence import has_socket, living_gateways
from ws_manager.core.validation import check_name
from ws_manager.errors import Conflict, NotFound
from ws_manager.models import Connection, MessageWorker, new_id, seconds_before, utc_now
from ws_manager.remedies import LIST_CONNECTIONS

if TYPE_CHECKING:
    from ws_manager.repository.store import Store

HOLD_SECONDS = 30.0
"""How long a hold lasts after it was last renewed."""

_RENEWED_SECONDS = 5.0


@contextlib.contextmanager
def holding_lock(store: Store, ws_id: str, own: Optional[str] = None) -> Iterator[Connection]:
    """Hold a connection against every other receiver, while the block runs. `own` is a hold that may be there.

    Raises:
        NotFound: there is no such connection.
        NotAuthorised: its agent is barred.
        Conflict: a socket or another receiver holds it.
    """
    connection = store.connections.find(ws_id)
    if connection is None:
        raise NotFound(f"no connection {ws_id}", remedy=LIST_CONNECTIONS)
    check_bars(store, connection.agent, None)
    lock = store.hold(connection)
    if lock is None:
        raise _held(ws_id)
    with contextlib.ExitStack() as held:
        held.callback(lock.release)
        if _is_held(store, ws_id, own):
            raise _held(ws_id)
        if has_socket(connection, living_gateways(store)):
            raise Conflict(f"a socket holds {ws_id}", hint="its agent receives the messages already")
        yield connection


def take(
    store: Store, ws_id: str, hold: Optional[str], worker: Optional[MessageWorker]
) -> tuple[str, Connection]:
    """Hold a connection for `HOLD_SECONDS`.

    Args:
        store: the open ledger.
        ws_id: the connection.
        hold: the hold's name: whoever has that hold already renews it. A new name if None.
        worker: as `attempts.arrive` takes it.

    Returns:
        The hold's name, and the connection.

    Raises:
        InvalidInput: the hold's name cannot be accepted; or as `attempts.arrive`.
        NotFound, Conflict: as `holding_lock`.
    """
    name = new_id() if hold is None else check_name(hold, "hold")
    # Behind the lock: a receiver on the file has it for as long as it runs, and looks for holds when it has taken it.
    with holding_lock(store, ws_id, name) as connection, store.atomic():
        store.connections.lock([ws_id])
        now = utc_now()
        if _is_held(store, ws_id, name):
            raise _held(ws_id)
        store.holds.delete_before(seconds_before(now, HOLD_SECONDS))
        store.holds.put(ws_id, name, seconds_before(now, -HOLD_SECONDS))
        arrive(store, connection, worker)
    return name, connection


def renew(store: Store, ws_id: str, hold: str) -> Connection:
    """Renew a hold, and return its connection as it is now.

    Raises:
        Conflict: the hold has ended.
    """
    # A receiver asks often: what was renewed a moment ago is not written again.
    if _end_of(store, ws_id, hold) < seconds_before(utc_now(), _RENEWED_SECONDS - HOLD_SECONDS):
        with store.atomic():
            _end_of(store, ws_id, hold)
            store.holds.put(ws_id, hold, seconds_before(utc_now(), -HOLD_SECONDS))
    connection = store.connections.find(ws_id)
    if connection is None:
        raise NotFound(f"no connection {ws_id}", remedy=LIST_CONNECTIONS)
    return connection


def release(store: Store, ws_id: str, hold: str) -> bool:
    """End a hold. False if it has ended already."""
    with store.atomic():
        return store.holds.delete(ws_id, hold)


def _is_held(store: Store, ws_id: str, own: Optional[str]) -> bool:
    known = store.holds.find(ws_id)
    return known is not None and known[0] != own and _lasts(known[1])


def _end_of(store: Store, ws_id: str, hold: str) -> str:
    """Return the time at which a hold ends.

    Raises:
        Conflict: it has ended.
    """
    known = store.holds.find(ws_id)
    if known is None or known[0] != hold or not _lasts(known[1]):
        raise Conflict(f"the hold of {ws_id} has ended", hint="take it again")
    return known[1]


def _lasts(until: str) -> bool:
    now = utc_now()
    # One that ends later than a hold can was written before the clock was set back.
    return now < until <= seconds_before(now, -HOLD_SECONDS)


def _held(ws_id: str) -> Conflict:
    return Conflict(f"another receiver holds {ws_id}", hint="stop it first")
