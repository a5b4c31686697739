"""The threads that use the ledger: no statement runs on the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Optional, TypeVar

from ws_manager.core.ledger import Ledger, open_ledger
from ws_manager.errors import LedgerUnreachable
from ws_manager.settings import Located, Sizes

Result = TypeVar("Result")

_READING_KIB = 2048
_WRITING_KIB = 4096
_INTERRUPT_SECONDS = 0.05


class LedgerThread:
    """One thread with its own open ledger. It runs calls in their order.

    Args:
        location: where the ledger is.
        name: the thread's name.
        sizes: the size limits of contents and metadata.
        memory_kib: size of the cache for pages of the ledger. The operating system caches them too.
        shared: True allows the ledger in another program's database.
    """

    def __init__(
        self,
        location: Located,
        name: str,
        sizes: Sizes,
        memory_kib: int = _READING_KIB,
        *,
        shared: bool = False,
    ) -> None:
        self._location = location
        self._shared = shared
        self._memory_kib = memory_kib
        self._sizes = sizes
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._ledger: Optional[Ledger] = None
        self._given_up = False

    async def open(self) -> None:
        """Open the ledger, if it is not open.

        Raises:
            LedgerError: it cannot be used.
        """
        await asyncio.get_running_loop().run_in_executor(self._executor, self._open)

    def run(self, call: Callable[[Ledger], Result]) -> asyncio.Future[Result]:
        """Run `call` with the thread's ledger and return what it returns."""
        return asyncio.get_running_loop().run_in_executor(self._executor, self._run, call)

    def break_off(self) -> None:
        """Let the call fail that runs now, also where the ledger does not answer."""
        ledger = self._ledger
        if ledger is not None:
            ledger.break_off()

    def give_up(self) -> None:
        """Let every call fail: the one that runs now, and those that wait."""
        self._given_up = True
        self.break_off()

    async def close(self) -> None:
        """Wait for the calls so far, and close the ledger."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._close)
        self._executor.shutdown()

    async def abandon(self) -> None:
        """Let the calls so far fail, and close the ledger."""
        closing = asyncio.get_running_loop().run_in_executor(self._executor, self._close)
        while not closing.done():
            # Between two statements of a call there is nothing to interrupt: the next one is.
            if self._ledger is not None:
                self._ledger.interrupt()
            await asyncio.wait({closing}, timeout=_INTERRUPT_SECONDS)
        closing.result()
        self._executor.shutdown()

    def _open(self) -> None:
        if self._ledger is None:
            self._ledger = open_ledger(self._location, shared=self._shared, sizes=self._sizes)
            self._ledger.use_memory(self._memory_kib)

    def _run(self, call: Callable[[Ledger], Result]) -> Result:
        if self._given_up:
            raise LedgerUnreachable("the ledger did not answer when the gateway ended")
        assert self._ledger is not None
        return call(self._ledger)

    def _close(self) -> None:
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.close()


class LedgerThreads:
    """A thread that reads the ledger and one that writes it.

    They are two so that a process that holds the write lock for long delays the receipts, but not the messages.

    Args:
        location: where the ledger is.
        sizes: the size limits of contents and metadata.
        shared: True allows the ledger in another program's database.
    """

    def __init__(self, location: Located, sizes: Sizes, *, shared: bool = False) -> None:
        self._reads = LedgerThread(location, "ws-manager-reads", sizes)
        self._writes = LedgerThread(location, "ws-manager-writes", sizes, _WRITING_KIB, shared=shared)

    async def open(self) -> None:
        """Open the ledger in both threads. It can be called again after an error.

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

    def break_off(self) -> None:
        """Let the calls fail that run now, also where the ledger does not answer."""
        self._reads.break_off()
        self._writes.break_off()

    def give_up(self) -> None:
        """Let every call fail: those that run now, and those that wait."""
        self._reads.give_up()
        self._writes.give_up()

    async def close(self) -> None:
        """Wait for the calls so far, and close the ledger."""
        await self._reads.close()
        await self._writes.close()
