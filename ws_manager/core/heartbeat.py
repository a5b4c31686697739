"""Which connections have not shown a sign of life, and what becomes of them. `now` comes from the caller."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from ws_manager.core.locks import gateway_lock, is_held
from ws_manager.models import seconds_before
from ws_manager.repository.connections import Connections
from ws_manager.repository.database import Database
from ws_manager.repository.journal import Events

LOST = "heartbeat timeout"


@dataclass(frozen=True)
class HeartbeatReport:
    """The outcome of one check: the ws_ids that are active and those that were disconnected by it."""

    active: list[str] = field(default_factory=list)
    timed_out: list[str] = field(default_factory=list)


def check_heartbeats(db: Database, timeout: float, now: str) -> HeartbeatReport:
    """Disconnect every active connection whose last heartbeat is older than `timeout` seconds.

    Connections of a running gateway are left to it: it knows its sockets, and counts them as active.
    """
    stale = Connections(db).stale(seconds_before(now, timeout))
    if any(gateway for _, gateway in stale) and is_held(gateway_lock(db.path)):
        stale = [(ws_id, gateway) for ws_id, gateway in stale if not gateway]
    timed_out = _disconnect(db, [ws_id for ws_id, _ in stale], timeout, now)
    return HeartbeatReport(active=Connections(db).active_ids(), timed_out=timed_out)


def sweep(db: Database, held: Collection[str], timeout: float, now: str) -> list[str]:
    """For a gateway: disconnect those that it, or one before it, held, and that did not come back.

    Args:
        db: the ledger.
        held: the ws_ids whose sockets are open now; they are judged elsewhere, by a monotonic clock.
        timeout: seconds.
        now: the present time.

    Returns:
        The ws_ids that were disconnected.
    """
    stale = Connections(db).stale(seconds_before(now, timeout))
    lost = [ws_id for ws_id, gateway in stale if gateway and ws_id not in held]
    return _disconnect(db, lost, timeout, now)


def _disconnect(db: Database, ws_ids: list[str], timeout: float, now: str) -> list[str]:
    if not ws_ids:
        return []
    cutoff = seconds_before(now, timeout)
    connections, events = Connections(db), Events(db)
    timed_out = []
    with db.transaction():
        for ws_id in ws_ids:
            if connections.disconnect_stale(ws_id, cutoff, now, LOST):
                events.insert("disconnected", now, ws_id, detail=LOST)
                timed_out.append(ws_id)
    return timed_out
