"""Where the gateway of a database is, for commands on its machine."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from ws_manager.errors import GatewayUnavailable


def gateway_url(database: Path) -> str:
    """Return the base address of the gateway that serves a database file.

    Raises:
        GatewayUnavailable: none runs.
        LedgerError: the file cannot be used.
    """
    url = running_gateway(database)
    if url is None:
        raise GatewayUnavailable(f"no gateway runs for {database}", hint="start one with: ws-manager serve")
    return url


def running_gateway(database: Path) -> Optional[str]:
    """Return the base address of the gateway that serves a database file, or None where none runs.

    Who may not know whether it runs gets the address of the last one: whoever calls it will see.

    Raises:
        LedgerError: the file cannot be used.
    """
    from ws_manager.repository.sqlite.files import is_nothing
    from ws_manager.repository.sqlite.journal import Gateways
    from ws_manager.repository.sqlite.locks import gateway_lock, is_held
    from ws_manager.repository.sqlite.schema import read_ledger

    if is_nothing(database):
        return None
    db = read_ledger(database)
    try:
        latest = Gateways(db).latest()
    finally:
        db.close()
    return latest.url if latest is not None and is_held(gateway_lock(database)) else None
