"""Deletes old rows while the gateway runs: of the logs, and with `keep` also finished messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Callable, Optional

from ws_manager.core.ledger import Ledger
from ws_manager.core.maintenance import Log
from ws_manager.errors import LedgerError
from ws_manager.gateway.delivery.ledger_threads import LedgerThread
from ws_manager.gateway.trouble import Trouble
from ws_manager.settings import Located, Sizes

_log = logging.getLogger("ws_manager.gateway")
_TRIM_SECONDS = 60.0
_PRUNE_SECONDS = 3600.0


class Janitor:
    """Deletes old rows on its own thread, because the search for them must not delay receipts.

    Args:
        location: where the ledger is.
        logs: seconds to keep the rows of each log.
        keep: seconds to keep what `prune` deletes, such as confirmed messages; None keeps it for ever.
        leads: returns whether this gateway is the one that deletes.
    """

    def __init__(
        self, location: Located, logs: Mapping[Log, float], keep: Optional[float], leads: Callable[[], bool]
    ) -> None:
        self._leads = leads
        self._ledger = LedgerThread(location, "ws-manager-janitor", Sizes())
        self._logs = logs
        self._keep = keep
        self._trouble = Trouble("delete old rows")

    async def run(self) -> None:
        """Delete now, and then every minute, until cancelled. `prune` runs once an hour."""
        try:
            next_prune = 0.0
            while True:
                if self._leads():
                    next_prune = await self._delete(next_prune)
                await asyncio.sleep(_TRIM_SECONDS)
        finally:
            await self._ledger.close()

    async def _delete(self, next_prune: float) -> float:
        """Delete what is due, and return the seconds until `prune` is due again after the next wait."""
        try:
            await self._ledger.open()
            await self._ledger.run(self._trim)
            if self._keep is not None and next_prune <= 0:
                next_prune = _PRUNE_SECONDS
                await self._prune(self._keep)
        except LedgerError as error:
            self._trouble.began(error)
        else:
            self._trouble.ended()
        return next_prune - _TRIM_SECONDS

    def _trim(self, ledger: Ledger) -> None:
        for log, seconds in self._logs.items():
            ledger.maintenance.trim(log, seconds)

    async def _prune(self, keep: float) -> None:
        pruned = await self._ledger.run(lambda ledger: ledger.maintenance.prune(keep))
        counts = {table: count for table, count in vars(pruned).items() if count}
        if counts:
            _log.info("pruned: %s", ", ".join(f"{count} of {table}" for table, count in counts.items()))
