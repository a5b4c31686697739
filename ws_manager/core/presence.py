"""Whether a gateway runs on a ledger, and whether it has a socket open on a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional
from urllib.parse import urlsplit

from ws_manager.errors import GatewayUnavailable
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


def running_gateways(store: Store) -> list[Gateway]:
    """Return the gateways that run, one for each address: those on this machine first, and the latest of them.

    A user who may not know whether one runs gets the latest one, and a call to it will show.
    """
    if not may_run(store):
        return []
    found = store.gateways.found(living_gateways(store))
    if not found:
        latest = store.gateways.latest()
        return [] if latest is None else [latest]
    here = store.gateways_here()
    found.sort(key=lambda gateway: here is not None and gateway.id not in here)
    # The workers of one `serve` have one address; so may gateways on several machines.
    different = {(gateway.url, here is None or gateway.id in here): gateway for gateway in reversed(found)}
    return [gateway for gateway in found if gateway in different.values()]


def running_gateway(store: Store) -> Optional[Gateway]:
    """Return the gateway that runs: of several the first of `running_gateways`."""
    return next(iter(running_gateways(store)), None)


def gateway_to_call(store: Store) -> Optional[Gateway]:
    """Return a gateway that can be called from this machine; None if none runs.

    Raises:
        GatewayUnavailable: those that run have told an address that only their own machines reach.
    """
    running = running_gateways(store)
    here = store.gateways_here()
    for gateway in running:
        if here is None or gateway.id in here or not is_loopback_url(gateway.url):
            return gateway
    if running:
        raise GatewayUnavailable(
            f"the gateway {running[0].url} runs on another machine, which alone reaches this address",
            hint="give --url with an address that this machine reaches",
        )
    return None


def is_loopback_url(url: str) -> bool:
    """Return whether only its own machine reaches an address."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


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
