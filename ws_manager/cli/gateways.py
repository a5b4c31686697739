"""The address of a ledger's gateway, for commands on the same machine."""

from __future__ import annotations

from typing import Optional

from ws_manager.errors import GatewayUnavailable, LedgerError
from ws_manager.remedies import MAKE_LEDGER, START_GATEWAY
from ws_manager.settings import Located


def gateway_url(location: Located) -> str:
    """Return the base address of the gateway that serves a ledger.

    Raises:
        GatewayUnavailable: no gateway runs.
        LedgerError: the ledger cannot be used.
    """
    url = running_gateway(location)
    if url is None:
        raise GatewayUnavailable(f"no gateway runs for {location}", remedy=START_GATEWAY)
    return url


def running_gateway(location: Located) -> Optional[str]:
    """Return the base address of the gateway that serves a ledger, or None if no gateway runs.

    Of several, one on this machine. A user who may not know whether one runs gets the address of the last one; a call
    to it will show.

    Raises:
        GatewayUnavailable: only its own machine reaches the address.
        LedgerError: the ledger cannot be used.
    """
    from ws_manager.core.ledger import open_ledger
    from ws_manager.core.locations import exists

    if not exists(location):
        return None
    try:
        with open_ledger(location, read_only=True) as ledger:
            gateway = ledger.gateway_to_call()
    except LedgerError as error:
        if error.remedy != MAKE_LEDGER:
            raise
        # A gateway that starts is making it: there is a file, and no table in it yet.
        return None
    return None if gateway is None else gateway.url
