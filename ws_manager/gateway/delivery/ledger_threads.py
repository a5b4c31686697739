"""Threads with a ledger of their own, so that no statement ever runs on the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Optional, TypeVar

from ws_manager.core.ledger import Ledger, open_ledger
from ws_manager.settings import Sizes

Result = TypeVar("Result")

_READING_KIB = 2048
_WRITING_KIB = 4096


class LedgerThread:
    """One thread, one open ledger, and the calls in the order in which they were made.

    Args:
        location: of the ledger.
        name: of the thread.
        sizes: how large contents and metadata may be.
        memory_kib: for pages of the ledger. The system caches them too, and most are read once.
        shared: the file may be a database of another program, to which the ledger is added.
    """

    def __init__(
        self, location: Path, name: str, sizes: Sizes, memory_kib: int = _READING_KIB, *, shared: bool = False
    ) -> None:
        self._location = location
        self._shared = shared
        self._memory_kib = memory_kib
        self._sizes = sizes
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._ledger: Optional[Ledger] = None

    async def open(self) -> None:
        """Open the ledger, unless it is open already.

        Raises:
            LedgerError: it cannot be used.
        """
        await asyncio.get_running_loop().run_in_executor(self._executor, self._open)

    def run(self, call: Callable[[Ledger], Result]) -> asyncio.Future[Result]:
        """Run `call` with the thread's ledger and return what it returns."""
        return asyncio.get_running_loop().run_in_executor(self._executor, self._run, call)

    async def close(self) -> None:
        """Finish the calls that were made, and close the ledger."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._close)
        self._executor.shutdown()

    def _open(self) -> None:
        if self._ledger is None:
            self._ledger = open_ledger(self._location, shared=self._shared, sizes=self._sizes)
            self._ledger.use_memory(self._memory_kib)

    def _run(self, call: Callable[[Ledger], Result]) -> Result:
        assert self._ledger is not None
        return call(self._ledger)

    def _close(self) -> None:
        if self._ledger is not None:
            self._ledger.close()


class LedgerThreads:
    """A thread that reads and one that writes.

    If another process keeps the ledger locked for long, it delays receipts, and not deliveries.

    Args:
        location: of the ledger.
        sizes: how large contents and metadata may be.
        shared: the file may be a database of another program, to which the ledger is added.
    """

    def __init__(self, location: Path, sizes: Sizes, *, shared: bool = False) -> None:
        self._reads = LedgerThread(location, "ws-manager-reads", sizes)
        self._writes = LedgerThread(location, "ws-manager-writes", sizes, _WRITING_KIB, shared=shared)

    async def open(self) -> None:
        """Open the ledger. After a failure it can be called again.

        Raises:
            LedgerError: it cannot be used.
        """
        await self._writes.open()
        await self._reads.open()

    def read(self, call: Callable[[Ledger], Result]) -> asyncio.Future[Result]:
        """Run a call on the reading thread."""
        return self._reads.run(call)

    def write(self, call: Callable[[Ledger], Result]) -> asyncio.Future[Result]:
        """Run a call on the writing thread."""
        return self._writes.run(call)

    async def close(self) -> None:
        """Finish the calls that were made, and close the ledger."""
        await self._reads.close()
        await self._writes.close()
