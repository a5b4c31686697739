"""Whether a gateway runs on a ledger, and whether it has a socket open on a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from ws_manager.models import ACTIVE, Connection, Gateway, seconds_before, utc_now

if TYPE_CHECKING:
    from ws_manager.repository.store import Store

NOTED_SECONDS = 10.0
"""Seconds between two notes of a gateway that it runs: its end is known to within this time."""

_SEEN_SECONDS = 3 * NOTED_SECONDS


def may_run(store: Store) -> bool:
    """Return whether a gateway runs. True if this user may not know it."""
    return store.gateway_runs() is not False


def seems_to_run(store: Store) -> bool:
    """Return whether a gateway runs. If this user may not know it, the time of its last note decides."""
    runs = store.gateway_runs()
    if runs is not None:
        return runs
    latest = store.gateways.latest()
    return latest is not None and latest.seen_at > seconds_before(utc_now(), _SEEN_SECONDS)


def running_gateway(store: Store) -> Optional[Gateway]:
    """Return the gateway that runs.

    A user who may not know whether one runs gets the latest one, and a call to it will show.
    """
    latest = store.gateways.latest()
    return latest if latest is not None and may_run(store) else None


def living_gateways(store: Store) -> frozenset[str]:
    """Return the ids of the gateway processes that live; `serve --workers` has several.

    If this user may not know it, the times of their last notes decide.
    """
    living = store.living_gateways()
    return store.gateways.seen_since(seconds_before(utc_now(), _SEEN_SECONDS)) if living is None else living


def has_socket(connection: Connection, living: frozenset[str]) -> bool:
    """Return whether a gateway has a socket open on a connection.

    Args:
        connection: as it is in the ledger.
        living: what `living_gateways` returned.
    """
    return connection.status == ACTIVE and connection.close_code is None and connection.gateway in living
