"""Between the ledger and the sockets: what was committed goes out, what the sockets tell goes in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Callable, Optional, Protocol, TypeVar

from ws_manager.core.delivery import Delivery
from ws_manager.errors import LedgerBusy, LedgerError
from ws_manager.gateway.delivery.ledger_threads import LedgerThread, Trouble, Watcher
from ws_manager.models import Event, PendingMessage, SocketReport
from ws_manager.protocol.gateway_session import QUEUE_BYTES
from ws_manager.settings import Sizes

Result = TypeVar("Result")

_log = logging.getLogger("ws_manager.gateway")
_PUMP_ROWS = 10_000
_BACKLOGS_AT_ONCE = 2
_RETRY_SECONDS = 0.5
_CHECKPOINT_SECONDS = 1.0


class Receivers(Protocol):
    """What the outbox tells the hub."""

    def dispatch(self, messages: list[PendingMessage]) -> None:
        """Offer committed messages to the live sessions."""

    def check(self, ws_ids: Iterable[str]) -> None:
        """Something happened to these connections: look whether their sockets still hold."""


class Outbox:
    """The two directions between the ledger and the sockets.

    Reading and writing have a thread each: another process that keeps the write lock for long delays the
    receipts, not the deliveries.

    Args:
        path: the database file.
        sizes: how large contents and metadata may be.
        shared: the file may be a database of another program, to which the ledger is added.

    Attributes:
        position: the message id up to which everything was offered to the live sessions.
    """

    def __init__(self, path: Path, sizes: Sizes, *, shared: bool = False) -> None:
        self._path = path
        self._reads = LedgerThread(path, "ws-manager-reads", sizes)
        self._writes = LedgerThread(path, "ws-manager-writes", sizes, cache_kib=4096, shared=shared)
        # The pump waits behind no more than these, however many agents catch up.
        self._catching_up = asyncio.Semaphore(_BACKLOGS_AT_ONCE)
        self.position = 0
        self._event_position = 0
        self._changed = asyncio.Event()
        self._reported = asyncio.Event()
        self._reports: list[SocketReport] = []
        self._reported_count = 0
        self._settled_count = 0
        self._settled = asyncio.Event()
        self._failed = asyncio.Event()
        self._dirty = False
        self._watcher: Optional[Watcher] = None

    async def open(self) -> None:
        """Open the ledger and take its present end as the position. Where it has failed, it can be done again.

        Raises:
            LedgerError: the file cannot be used.
        """
        await self._writes.open()
        await self._reads.open()
        self.position, self._event_position = await self._reads.run(lambda delivery: delivery.last_ids())

    async def run(self, receivers: Receivers) -> None:
        """Pump, settle and checkpoint until cancelled.

        Raises:
            LedgerReplaced: the file is no longer the one that was opened.
        """
        loop = asyncio.get_running_loop()
        replaced: asyncio.Future[None] = loop.create_future()
        identity = await self._reads.run(lambda delivery: delivery.db.identity)
        self._watcher = Watcher(
            self._path,
            identity,
            loop,
            self._changed.set,
            lambda error: None if replaced.done() else replaced.set_exception(error),
        )
        self._watcher.start()
        await asyncio.gather(replaced, self._pump(receivers), self._settle(receivers), self._checkpoint())

    async def flush(self, seconds: float) -> None:
        """Wait until everything that was told is written, at most `seconds`.

        It waits for the write lock of another process, and not for one that cannot write at all: on a full disk, say.
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

    async def settled(self) -> None:
        """Wait until everything that was told so far is written."""
        goal = self._reported_count
        while self._settled_count < goal:
            await self._settled.wait()

    async def close(self) -> None:
        """Close the ledger. Call it after `run` was cancelled."""
        if self._watcher is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._watcher.stop)
        await self._reads.close()
        await self._writes.close()

    def report(self, reports: Iterable[SocketReport]) -> None:
        """Take what a socket has to tell; it is written soon, in this order."""
        before = len(self._reports)
        self._reports.extend(reports)
        self._reported_count += len(self._reports) - before
        self._reported.set()

    async def backlog(self, ws_id: str, after: int, limit: int) -> tuple[list[PendingMessage], int]:
        """Read a connection's pending messages; see `Delivery.backlog`."""
        async with self._catching_up:
            return await self._reads.run(lambda delivery: delivery.backlog(ws_id, after, limit, QUEUE_BYTES))

    def read(self, call: Callable[[Delivery], Result]) -> asyncio.Future[Result]:
        """Run a call on the reading thread."""
        return self._reads.run(call)

    def write(self, call: Callable[[Delivery], Result]) -> asyncio.Future[Result]:
        """Run a call on the writing thread."""
        return self._writes.run(call)

    async def _pump(self, receivers: Receivers) -> None:
        trouble = Trouble("read the ledger")
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._dirty = True
            try:
                await self._pump_once(receivers)
            except LedgerError as error:
                trouble.began(error)
                await asyncio.sleep(_RETRY_SECONDS)
                self._changed.set()
            else:
                trouble.ended()

    async def _pump_once(self, receivers: Receivers) -> None:
        while True:
            messages, events, reached = await self._reads.run(self._read_new)
            receivers.dispatch(messages)
            self.position = reached
            if events:
                receivers.check({event.ws_id for event in events if event.ws_id})
                self._event_position = events[-1].db_id
            if not messages:
                return
            # Before the next are read: together they would be twice as many.
            del messages

    def _read_new(self, delivery: Delivery) -> tuple[list[PendingMessage], list[Event], int]:
        # Asked first: what is committed in between is then read again, never left out.
        newest, event_id = delivery.last_ids()
        messages = delivery.after(self.position, _PUMP_ROWS)
        events = delivery.events_after(self._event_position) if event_id > self._event_position else []
        return messages, events, messages[-1].seq if messages else max(newest, self.position)

    async def _settle(self, receivers: Receivers) -> None:
        trouble = Trouble("write receipts")
        while True:
            await self._reported.wait()
            self._reported.clear()
            batch, self._reports = self._reports, []
            try:
                void = await self._writes.run(lambda delivery, batch=batch: delivery.settle(batch))  # type: ignore[misc]
            except LedgerError as error:
                # Nothing is lost: it is written when the ledger can be written again.
                trouble.began(error)
                if not isinstance(error, LedgerBusy):
                    self._failed.set()
                self._reports[:0] = batch
                await asyncio.sleep(_RETRY_SECONDS)
                self._reported.set()
                continue
            trouble.ended()
            receivers.check(void)
            self._settled_count += len(batch)
            # Wakes those who wait now, and makes those who come later wait again.
            self._settled.set()
            self._settled.clear()

    async def _checkpoint(self) -> None:
        trouble = Trouble("move the write-ahead log into the database")
        while True:
            await asyncio.sleep(_CHECKPOINT_SECONDS)
            if self._dirty:
                self._dirty = False
                try:
                    await self._writes.run(lambda delivery: delivery.db.checkpoint())
                except LedgerError as error:
                    self._dirty = True
                    trouble.began(error)
                else:
                    trouble.ended()
