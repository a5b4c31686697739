"""Which connections have not shown a sign of life, and what becomes of them. `now` comes from the caller."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ws_manager.core.presence import NOTED_SECONDS, living_gateways, may_run
from ws_manager.models import heard_between

if TYPE_CHECKING:
    from ws_manager.repository.records import SilentConnection
    from ws_manager.repository.store import Store

LOST = "heartbeat timeout"


@dataclass(frozen=True)
class HeartbeatReport:
    """The outcome of one check.

    Attributes:
        active: the ws_ids that are active.
        timed_out: those that it disconnected.
        spared: those of the active ones that are silent because their gateway ended a moment ago.
    """

    active: list[str] = field(default_factory=list)
    timed_out: list[str] = field(default_factory=list)
    spared: list[str] = field(default_factory=list)


def check_heartbeats(store: Store, timeout: float, now: str) -> HeartbeatReport:
    """Disconnect every active connection whose last heartbeat is older than `timeout` seconds, or in the future.

    Connections of a running gateway are left to it: it knows its sockets, and counts them as active. Those of
    a gateway that has ended are spared for one full timeout: their agents could not be heard, and come back.
    """
    silent = store.connections.silent(*heard_between(now, timeout))
    spared: list[str] = []
    if any(each.gateway for each in silent):
        if may_run(store):
            silent = [each for each in silent if not each.gateway]
        else:
            # A gateway may have ended this long after it noted that it runs.
            spared = _of_gateways_seen_within(timeout + NOTED_SECONDS, silent, now)
    kept = set(spared)
    timed_out = _disconnect(store, [each for each in silent if each.ws_id not in kept], now)
    return HeartbeatReport(store.connections.recipients().ws_ids, timed_out, spared)


def sweep(
    store: Store, gateway_id: str, held: Collection[str], timeout: float, now: str, *, others: bool
) -> list[str]:
    """For a gateway: disconnect those that it held, or one that has ended, and that did not come back.

    What another living gateway held is left to that one. Agents of one that has ended keep one timeout from its last
    note that it ran.

    Args:
        store: the ledger.
        gateway_id: the gateway that asks.
        held: the ws_ids of its open sockets. It judges them by a monotonic clock.
        timeout: seconds.
        now: the present time.
        others: True also disconnects what was held by gateways that have ended.

    Returns:
        The ws_ids that were disconnected.
    """
    silent = [
        each
        for each in store.connections.silent(*heard_between(now, timeout))
        if each.gateway and each.ws_id not in held and (others or each.gateway == gateway_id)
    ]
    if any(each.gateway != gateway_id for each in silent):
        others_living = living_gateways(store) - {gateway_id}
        # Those of one that has ended had no gateway for a while: they come back.
        spared = set(_of_gateways_seen_within(timeout, silent, now))
        silent = [
            each
            for each in silent
            if each.gateway == gateway_id or (each.gateway not in others_living and each.ws_id not in spared)
        ]
    return _disconnect(store, silent, now)


def _of_gateways_seen_within(seconds: float, silent: list[SilentConnection], now: str) -> list[str]:
    """Return the ws_ids whose gateway has noted within this time that it runs."""
    since, until = heard_between(now, seconds)
    return [each.ws_id for each in silent if each.gateway_seen_at and since <= each.gateway_seen_at <= until]


def _disconnect(store: Store, silent: list[SilentConnection], now: str) -> list[str]:
    if not silent:
        return []
    timed_out = []
    with store.atomic():
        store.connections.lock([each.ws_id for each in silent])
        for each in silent:
            if store.connections.disconnect_silent(each, now, LOST):
                store.events.insert("disconnected", now, each.ws_id, detail=LOST)
                timed_out.append(each.ws_id)
    return timed_out
