"""Which connections have not shown a sign of life, and what becomes of them. `now` comes from the caller."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from ws_manager.models import heard_between
from ws_manager.repository.sqlite.connections import Connections, Silent
from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.sqlite.journal import Events
from ws_manager.repository.sqlite.locks import gateway_lock, is_held

LOST = "heartbeat timeout"

PRESENCE_SECONDS = 10.0
"""Seconds between two notes of a gateway that it runs: its end is known to within this time."""


@dataclass(frozen=True)
class HeartbeatReport:
    """The outcome of one check.

    Attributes:
        active: the ws_ids that are active.
        timed_out: those that were disconnected by it.
        spared: those of the active ones that are silent because their gateway ended a moment ago.
    """

    active: list[str] = field(default_factory=list)
    timed_out: list[str] = field(default_factory=list)
    spared: list[str] = field(default_factory=list)


def check_heartbeats(db: Database, timeout: float, now: str) -> HeartbeatReport:
    """Disconnect every active connection whose last heartbeat is older than `timeout` seconds, or in the future.

    Connections of a running gateway are left to it: it knows its sockets, and counts them as active. Those of
    a gateway that has ended are spared for one full time-out: their agents could not be heard, and come back.
    """
    silent = Connections(db).silent(*heard_between(now, timeout))
    spared: list[str] = []
    if any(row.gateway for row in silent):
        if is_held(gateway_lock(db.path)):
            silent = [row for row in silent if not row.gateway]
        else:
            spared = _of_gateways_just_ended(silent, timeout, now)
    kept = set(spared)
    timed_out = _disconnect(db, [row for row in silent if row.ws_id not in kept], now)
    return HeartbeatReport(Connections(db).active_ids(), timed_out, spared)


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
    silent = Connections(db).silent(*heard_between(now, timeout))
    return _disconnect(db, [row for row in silent if row.gateway and row.ws_id not in held], now)


def _of_gateways_just_ended(silent: list[Silent], timeout: float, now: str) -> list[str]:
    """Return the ws_ids whose gateway may have ended within the time-out."""
    since, until = heard_between(now, timeout + PRESENCE_SECONDS)
    return [row.ws_id for row in silent if row.gateway_seen_at and since <= row.gateway_seen_at <= until]


def _disconnect(db: Database, silent: list[Silent], now: str) -> list[str]:
    if not silent:
        return []
    connections, events = Connections(db), Events(db)
    timed_out = []
    with db.transaction():
        for row in silent:
            if connections.disconnect_silent(row, now, LOST):
                events.insert("disconnected", now, row.ws_id, detail=LOST)
                timed_out.append(row.ws_id)
    return timed_out
