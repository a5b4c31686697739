"""A thread that notices commits to the ledger, whichever process makes them."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Callable, Optional

from ws_manager.core.ledger import Ledger
from ws_manager.errors import LedgerError, LedgerReplaced
from ws_manager.gateway.trouble import Trouble

POLL_SECONDS = 0.002
"""Seconds between two polls. A poll costs a few microseconds, so polling takes about 1 % of a core."""

_POLLS_A_CHECK = 50
"""Polls between two checks that the ledger was not deleted or replaced: 0.1 s."""

_RETRY_SECONDS = 0.5


class Watcher(threading.Thread):
    """Calls a function on the event loop after each commit.

    Args:
        ledger: the gateway's open ledger. The thread opens the same one for itself.
        loop: the event loop that calls `changed` and `replaced`.
        changed: called without arguments after each change.
        replaced: called with the error if the ledger was deleted or replaced. The thread then ends.
    """

    def __init__(
        self,
        ledger: Ledger,
        loop: asyncio.AbstractEventLoop,
        changed: Callable[[], None],
        replaced: Callable[[LedgerReplaced], None],
    ) -> None:
        super().__init__(name="ws-manager-watcher", daemon=True)
        self._original = ledger
        self._loop = loop
        self._changed = changed
        self._replaced = replaced
        self._stopped = False

    def run(self) -> None:
        """Watch until `stop`."""
        ledger: Optional[Ledger] = None
        trouble = Trouble("watch the ledger")
        polls = 0
        try:
            while not self._stopped:
                # Cheaper than waiting for an event, which takes a lock each time.
                time.sleep(POLL_SECONDS)
                try:
                    if ledger is None:
                        ledger = self._original.again()
                        changes = ledger.changes()
                    polls += 1
                    if polls % _POLLS_A_CHECK == 0:
                        ledger.check()
                    happened = changes.happened()
                except LedgerReplaced as error:
                    self._loop.call_soon_threadsafe(self._replaced, error)
                    return
                except LedgerError as error:
                    trouble.began(error)
                    time.sleep(_RETRY_SECONDS)
                    continue
                trouble.ended()
                if happened:
                    self._loop.call_soon_threadsafe(self._changed)
        finally:
            if ledger is not None:
                ledger.close()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._stopped = True
        self.join()
