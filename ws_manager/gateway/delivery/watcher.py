"""A thread that notices when any process commits to the ledger."""

from __future__ import annotations

import asyncio
import threading
from typing import Callable, Optional

from ws_manager.core.ledger import Ledger
from ws_manager.errors import LedgerError, LedgerReplaced
from ws_manager.gateway.trouble import Trouble

POLL_SECONDS = 0.002
"""One poll costs a few microseconds, so every 2 ms is about 1 % of a core."""

_POLLS_A_CHECK = 50
"""Polls between two checks that the ledger is still there: 0.1 s."""

_RETRY_SECONDS = 0.5


class Watcher(threading.Thread):
    """Calls back on the event loop when something was committed.

    Args:
        ledger: the ledger that the gateway has open. The thread opens it once more.
        loop: on which the callbacks run.
        changed: called without arguments after a change.
        replaced: called with the error if the ledger is no longer the one that was opened. That ends the thread.
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
        self._stopped = threading.Event()

    def run(self) -> None:
        """Watch until `stop`."""
        ledger: Optional[Ledger] = None
        trouble = Trouble("watch the ledger")
        polls = 0
        try:
            while not self._stopped.wait(POLL_SECONDS):
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
                    self._stopped.wait(_RETRY_SECONDS)
                    continue
                trouble.ended()
                if happened:
                    self._loop.call_soon_threadsafe(self._changed)
        finally:
            if ledger is not None:
                ledger.close()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._stopped.set()
        self.join()
