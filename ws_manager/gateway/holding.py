"""The right to serve a ledger: one `serve` has it."""

from __future__ import annotations

import asyncio
from typing import Callable, Optional

from ws_manager.core.ledger import open_ledger
from ws_manager.core.locations import exists, hold_gateway
from ws_manager.errors import Conflict, LedgerError
from ws_manager.models import Gateway
from ws_manager.repository.store import Hold
from ws_manager.settings import Located

_SECONDS = 2.0


async def hold_ledger(database: Located, now: Callable[[], float]) -> Hold:
    """Hold a ledger, which need not exist, until the hold is released.

    Args:
        database: the ledger's file.
        now: a monotonic clock, in seconds.

    Raises:
        Conflict: another gateway holds it.
        LedgerError: it cannot be held here.
    """
    deadline = now() + _SECONDS
    while (hold := hold_gateway(database)) is None:
        # A command that checks whether a gateway runs holds it for a moment.
        if now() < deadline:
            await asyncio.sleep(0.05)
            continue
        other = await asyncio.get_running_loop().run_in_executor(None, _latest, database)
        where = f" at {other.url} (pid {other.pid})" if other else ""
        raise Conflict(f"another gateway{where} serves {database}", hint="stop it first, or use another --db")
    return hold


def _latest(database: Located) -> Optional[Gateway]:
    """Return the gateway that started last, if the ledger tells."""
    try:
        if not exists(database):
            return None
        with open_ledger(database, read_only=True) as ledger:
            return ledger.latest_gateway()
    except LedgerError:
        return None
