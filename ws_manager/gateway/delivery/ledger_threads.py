"""A thread with a ledger of its own, so that no statement ever runs on the event loop."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Optional, TypeVar

from ws_manager.core.delivery import Delivery
from ws_manager.errors import LedgerError, LedgerReplaced
from ws_manager.repository.sqlite.schema import open_again, open_ledger
from ws_manager.settings import Sizes

Result = TypeVar("Result")

POLL_SECONDS = 0.002
_POLLS_A_LOOK = 50
"""Polls between two looks whether the file is still there: a tenth of a second."""

_RETRY_SECONDS = 0.5
_log = logging.getLogger("ws_manager.gateway")


class Trouble:
    """Logs that something fails when it begins to, and when it is over: not at each of a thousand attempts.

    Args:
        what: cannot be done; continues "cannot".
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._cause: Optional[str] = None

    def began(self, error: Exception) -> None:
        """Note a failure."""
        if str(error) != self._cause:
            self._cause = str(error)
            _log.error("cannot %s, will go on trying: %s", self._what, error)

    def ended(self) -> None:
        """Note that it has worked."""
        if self._cause is not None:
            self._cause = None
            _log.info("can %s again", self._what)


class LedgerThread:
    """One thread, one database connection, and the calls in the order in which they were made.

    Args:
        path: the database file.
        name: of the thread.
        sizes: how large contents and metadata may be.
        cache_kib: memory for pages of the file. The system has them too, and most are read once.
        shared: the file may be a database of another program, to which the ledger is added.
    """

    def __init__(
        self, path: Path, name: str, sizes: Sizes, cache_kib: int = 2048, *, shared: bool = False
    ) -> None:
        self._path = path
        self._shared = shared
        self._cache_kib = cache_kib
        self._sizes = sizes
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._delivery: Optional[Delivery] = None

    async def open(self) -> None:
        """Open the ledger; nothing where it is open.

        Raises:
            LedgerError: the file cannot be used.
        """
        await asyncio.get_running_loop().run_in_executor(self._executor, self._open)

    def run(self, call: Callable[[Delivery], Result]) -> asyncio.Future[Result]:
        """Run `call` with the thread's Delivery and return what it returns."""
        return asyncio.get_running_loop().run_in_executor(self._executor, self._run, call)

    async def close(self) -> None:
        """Finish what was asked for, and close the connection."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._close)
        self._executor.shutdown()

    def _open(self) -> None:
        if self._delivery is not None:
            return
        db = open_ledger(self._path, shared=self._shared)
        db.execute(f"PRAGMA cache_size = -{self._cache_kib}")
        self._delivery = Delivery(db, self._sizes)

    def _run(self, call: Callable[[Delivery], Result]) -> Result:
        assert self._delivery is not None
        return call(self._delivery)

    def _close(self) -> None:
        if self._delivery is not None:
            self._delivery.db.close()


class Watcher(threading.Thread):
    """Notices that anybody has committed to the file, and says so on the event loop.

    SQLite has no notification; `PRAGMA data_version` costs a few microseconds, and asking every 2 ms costs
    about one hundredth of a core.

    Args:
        path: the database file.
        identity: of the file that the gateway has open.
        loop: where `changed` is called.
        changed: called without arguments after each change.
        replaced: called with the error if the file is no longer the one that was opened; that ends the watching.
    """

    def __init__(
        self,
        path: Path,
        identity: tuple[int, int],
        loop: asyncio.AbstractEventLoop,
        changed: Callable[[], None],
        replaced: Callable[[LedgerReplaced], None],
    ) -> None:
        super().__init__(name="ws-manager-watcher", daemon=True)
        self._path = path
        self._identity = identity
        self._loop = loop
        self._changed = changed
        self._replaced = replaced
        self._stopped = threading.Event()

    def run(self) -> None:
        """Watch until `stop`."""
        db, trouble = None, Trouble("watch the ledger")
        try:
            version, polls = None, 0
            while not self._stopped.wait(POLL_SECONDS):
                try:
                    db = db or open_again(self._path, self._identity)
                    polls += 1
                    if polls % _POLLS_A_LOOK == 0:
                        db.check_file()
                    current = db.data_version()
                except LedgerReplaced as error:
                    self._loop.call_soon_threadsafe(self._replaced, error)
                    return
                except (LedgerError, sqlite3.Error) as error:
                    trouble.began(error)
                    self._stopped.wait(_RETRY_SECONDS)
                    continue
                trouble.ended()
                if current != version:
                    version = current
                    self._loop.call_soon_threadsafe(self._changed)
        finally:
            if db is not None:
                db.close()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._stopped.set()
        self.join()
