"""A thread that notices what anybody commits to the ledger."""

from __future__ import annotations

import asyncio
import threading
from typing import Callable, Optional

from ws_manager.core.ledger import Ledger
from ws_manager.errors import LedgerError, LedgerReplaced
from ws_manager.gateway.trouble import Trouble

POLL_SECONDS = 0.002
"""Asking costs a few microseconds: every 2 ms, that is about one hundredth of a core."""

_POLLS_A_CHECK = 50
"""Polls between two looks whether the ledger is still there: a tenth of a second."""

_RETRY_SECONDS = 0.5


class Watcher(threading.Thread):
    """Says on the event loop that something was committed.

    Args:
        ledger: which the gateway has open. The thread opens it once more.
        loop: where the two are called.
        changed: called without arguments after each change.
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
