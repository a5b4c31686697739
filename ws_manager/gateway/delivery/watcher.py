"""A thread that notices commits to the ledger, whichever process makes them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from typing import Callable, Optional

from ws_manager.core.ledger import Ledger
from ws_manager.errors import LedgerError, LedgerReplaced, LedgerUnreachable
from ws_manager.gateway.trouble import Trouble
from ws_manager.repository.store import Changes

_CHECK_SECONDS = 0.1
"""Seconds between two checks that the ledger was not deleted or replaced."""

_RETRY_SECONDS = 0.5


class Watcher(threading.Thread):
    """Calls a function on the event loop after each commit.

    Args:
        ledger: the gateway's open ledger. The thread opens the same one for itself.
        loop: the event loop that calls `changed` and `replaced`.
        changed: called without arguments after each change.
        replaced: called with the error if the ledger was deleted or replaced. The thread then ends.
        gateway_id: this gateway's id. Other commits than those that concern it need not be noticed.
        wants_everything: returns whether they are to be noticed now too.
    """

    def __init__(
        self,
        ledger: Ledger,
        loop: asyncio.AbstractEventLoop,
        changed: Callable[[], None],
        replaced: Callable[[LedgerReplaced], None],
        gateway_id: str,
        wants_everything: Callable[[], bool],
    ) -> None:
        super().__init__(name="ws-manager-watcher", daemon=True)
        self._original = ledger
        self._loop = loop
        self._changed = changed
        self._replaced = replaced
        self._gateway_id = gateway_id
        self._wants_everything = wants_everything
        self._stopped = False

    def run(self) -> None:
        """Watch until `stop`."""
        ledger: Optional[Ledger] = None
        trouble = Trouble("watch the ledger")
        changes: Optional[Changes] = None
        checked_at = -math.inf
        try:
            while not self._stopped:
                try:
                    if ledger is None:
                        ledger = self._original.again()
                    if changes is None:
                        changes = ledger.changes(self._gateway_id)
                    changes.widen(self._wants_everything())
                    changes.wait()
                    if time.monotonic() - checked_at >= _CHECK_SECONDS:
                        checked_at = time.monotonic()
                        ledger.check()
                    happened = changes.happened()
                except LedgerReplaced as error:
                    self._loop.call_soon_threadsafe(self._replaced, error)
                    return
                except LedgerError as error:
                    trouble.began(error)
                    if isinstance(error, LedgerUnreachable):
                        # Whoever looks himself finds that too, and says so.
                        self._loop.call_soon_threadsafe(self._changed)
                    time.sleep(_RETRY_SECONDS)
                    continue
                trouble.ended()
                if happened:
                    self._loop.call_soon_threadsafe(self._changed)
        finally:
            # What cannot be reached has nothing of the session left to free.
            with contextlib.suppress(LedgerUnreachable):
                if changes is not None:
                    changes.close()
            if ledger is not None:
                ledger.close()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._stopped = True
        self.join()
