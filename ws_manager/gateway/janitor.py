"""Deletes in the background: old rows of the heartbeat log and, with `--keep`, what `prune` deletes."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Optional

from ws_manager.errors import LedgerError
from ws_manager.gateway.delivery.ledger_threads import LedgerThread
from ws_manager.settings import Sizes

_log = logging.getLogger("ws_manager.gateway")
_TRIM_SECONDS = 60.0
_PRUNE_SECONDS = 3600.0


class Janitor:
    """Deletes on a thread of its own, so that receipts do not wait for it.

    Args:
        path: the database file.
        log_keep: seconds that rows of the heartbeat log stay.
        keep: seconds that confirmed messages, and all else that `prune` deletes, stay. None: for ever.
    """

    def __init__(self, path: Path, log_keep: float, keep: Optional[float]) -> None:
        self._ledger = LedgerThread(path, "ws-manager-janitor", Sizes())
        self._log_keep = log_keep
        self._keep = keep

    async def run(self) -> None:
        """Delete at once, and then at intervals, until cancelled."""
        try:
            next_prune = 0.0
            while True:
                try:
                    await self._ledger.open()
                    await self._ledger.run(
                        lambda ledger: ledger.maintenance.trim_heartbeat_log(self._log_keep)
                    )
                    if self._keep is not None and next_prune <= 0:
                        next_prune = _PRUNE_SECONDS
                        await self._prune(self._keep)
                except LedgerError as error:
                    _log.error("cannot delete old rows, will try again: %s", error.message)
                next_prune -= _TRIM_SECONDS
                await asyncio.sleep(_TRIM_SECONDS)
        finally:
            await self._ledger.close()

    async def _prune(self, keep: float) -> None:
        pruned = await self._ledger.run(lambda ledger: ledger.maintenance.prune(keep))
        counts = {table: count for table, count in vars(pruned).items() if count}
        if counts:
            _log.info("pruned: %s", ", ".join(f"{count} of {table}" for table, count in counts.items()))
