"""Writes what the sockets report to the ledger: receipts, rejections, closures and signs of life."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence
from typing import Callable, Optional

from ws_manager.errors import LedgerBusy, LedgerError, LedgerUnreachable, WsManagerError
from ws_manager.gateway.delivery.ledger_threads import LedgerThreads
from ws_manager.gateway.trouble import Trouble
from ws_manager.models import SocketReport

_log = logging.getLogger("ws_manager.gateway")
_RETRY_SECONDS = 0.5

COMMIT_SECONDS = 0.02
"""Least seconds between two commits under load. The first report after a quiet time is committed at once."""


class ReceiptWriter:
    """Writes reports in their order, many in one transaction.

    Args:
        threads: the ledger's threads.
        settled: is called with what was written, and the seconds that it took.

    Attributes:
        failing: why the last commit failed; None if it succeeded.
    """

    def __init__(
        self,
        threads: LedgerThreads,
        settled: Callable[[Sequence[SocketReport], float], None] = lambda _reports, _seconds: None,
    ) -> None:
        self._note = settled
        self._threads = threads
        self._reports: list[SocketReport] = []
        self._reported = asyncio.Event()
        self._reported_count = 0
        self._settled = asyncio.Event()
        self._settled_count = 0
        self._failed = asyncio.Event()
        # Somebody waits until everything is written.
        self._hurried = asyncio.Event()
        self.failing: Optional[str] = None

    def report(self, reports: Iterable[SocketReport], *, at_once: bool = False) -> None:
        """Queue reports. They are written soon, or at once, because somebody may look at the end of a socket."""
        before = len(self._reports)
        self._reports.extend(reports)
        self._reported_count += len(self._reports) - before
        self._reported.set()
        if at_once:
            self._hurried.set()

    async def settled(self) -> None:
        """Wait until every report so far is written, also those of a batch that has to be written again."""
        goal = self._reported_count
        while self._settled_count < goal:
            self._hurried.set()
            await self._settled.wait()

    async def flush(self, seconds: float) -> None:
        """Wait until every report is written, at most `seconds`.

        It waits while another process holds the write lock. If the ledger cannot be written for another reason, such
        as a full disk, it returns at once. Reports that remain unwritten are logged.
        """
        self._failed.clear()
        ends = [asyncio.ensure_future(self.settled()), asyncio.ensure_future(self._failed.wait())]
        await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        written = ends[0].done()
        for end in ends:
            end.cancel()
        if not written:
            unwritten = self._reported_count - self._settled_count
            _log.error("%d receipts could not be written; the messages stay pending", unwritten)

    async def run(self, on_void: Callable[[Iterable[str]], None]) -> None:
        """Write until cancelled.

        Args:
            on_void: called with the ws_ids whose receipts were void, because they have been registered again.
        """
        trouble = Trouble("write receipts")
        loop = asyncio.get_running_loop()
        next_commit = loop.time()
        most: Optional[int] = None
        while True:
            await self._reported.wait()
            await self._rest(next_commit - loop.time())
            next_commit = loop.time() + COMMIT_SECONDS
            self._reported.clear()
            batch, self._reports = self._reports[:most], [] if most is None else self._reports[most:]
            began = loop.time()
            try:
                void = await self._threads.write(lambda ledger, batch=batch: ledger.delivery.settle(batch))  # type: ignore[misc]
            except LedgerError as error:
                # The batch goes back to the front, and is written again later.
                trouble.began(error)
                away = isinstance(error, LedgerUnreachable)
                self.failing = error.cause if away else "the ledger cannot be written"
                if away or not isinstance(error, LedgerBusy):
                    self._failed.set()
                self._reports[:0] = batch
                await asyncio.sleep(_RETRY_SECONDS)
                self._reported.set()
                continue
            except Exception as error:
                # Something in the batch can never be written. Others' reports must not wait for that: less is written
                # at once, until it is alone, and left out.
                most = max(1, len(batch) // 2)
                if len(batch) > 1:
                    self._reports[:0] = batch
                    self._reported.set()
                    continue
                # By its kind alone: what the database says of a value may quote it.
                what = error.message if isinstance(error, WsManagerError) else type(error).__name__
                kind = type(batch[0]).__name__
                _log.error("a %s of %s cannot be written, and is left out: %s", kind, batch[0].ws_id, what)
                void = set()
            else:
                most = None
                trouble.ended()
                self.failing = None
                self._note(batch, loop.time() - began)
            if self._reports:
                self._reported.set()
            on_void(void)
            self._settled_count += len(batch)
            # Wakes the present waiters only.
            self._settled.set()
            self._settled.clear()

    async def _rest(self, seconds: float) -> None:
        """Let more reports come, unless somebody waits for those that are there."""
        if seconds > 0:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), seconds)
        self._hurried.clear()
