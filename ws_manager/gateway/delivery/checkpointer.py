"""Moves committed changes from the log into the database, once a second if there are any."""

from __future__ import annotations

import asyncio
from typing import Callable, Optional

from ws_manager.core.ledger import Ledger
from ws_manager.errors import LedgerError
from ws_manager.gateway.delivery.ledger_threads import LedgerThreads
from ws_manager.gateway.trouble import Trouble
from ws_manager.repository.store import Changes

_SECONDS = 1.0


class Checkpointer:
    """Makes checkpoints on the writing thread.

    Args:
        threads: the ledger's threads.
        leads: returns whether this gateway is the one that makes them.
    """

    def __init__(self, threads: LedgerThreads, leads: Callable[[], bool]) -> None:
        self._threads = threads
        self._leads = leads
        self._changes: Optional[Changes] = None
        self._due = False

    async def run(self) -> None:
        """Make a checkpoint each second in which the ledger changed, until cancelled."""
        trouble = Trouble("make a checkpoint of the ledger")
        while True:
            await asyncio.sleep(_SECONDS)
            if not self._leads():
                continue
            try:
                await self._threads.write(self._checkpoint)
            except LedgerError as error:
                trouble.began(error)
            else:
                trouble.ended()

    def _checkpoint(self, ledger: Ledger) -> None:
        if not ledger.maintenance.makes_checkpoints:
            return
        if self._changes is None:
            self._changes = ledger.changes()
        # A failed checkpoint stays due.
        self._due = self._changes.happened() or self._due
        if self._due:
            ledger.maintenance.checkpoint()
            self._due = False
