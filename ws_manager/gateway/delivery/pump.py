"""Reads committed messages for the sockets: new ones for live sessions, the backlog for the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Callable, NamedTuple, Optional

from ws_manager.core.ledger import Ledger
from ws_manager.errors import LedgerError
from ws_manager.gateway.bell import Bell
from ws_manager.gateway.delivery.ledger_threads import LedgerThreads
from ws_manager.gateway.delivery.watcher import Watcher
from ws_manager.gateway.trouble import Trouble
from ws_manager.models import Event, PendingMessage
from ws_manager.protocol.gateway_session import QUEUE_BYTES
from ws_manager.repository.records import Position

_PUMP_ROWS = 10_000
_BACKLOGS_AT_ONCE = 2
_RETRY_SECONDS = 0.5

_MANY = 100
_REST_SECONDS_A_MESSAGE = 50e-6
_LONGEST_REST = 0.1
"""After many messages the pump rests: the many that are committed meanwhile go out together, in fewer writes."""


Dispatch = Callable[[list[PendingMessage]], None]
Check = Callable[[Iterable[str]], None]


class _News(NamedTuple):
    """What one reading found after the last positions, the new positions, and the reading's number.

    Attributes:
        whole: whether there was nothing more to read.
    """

    messages: list[PendingMessage]
    events: list[Event]
    position: Position
    event_position: Position
    number: int
    whole: bool


class Pump:
    """Offers every message that is committed for this gateway to the live sessions, whichever process committed it.

    Args:
        threads: the ledger's threads.
        gateway_id: this gateway's id.
        bell: rings whenever somebody has committed.

    Attributes:
        lag_seconds: how long the last messages took from the beginning of their reading to their sockets.
        trouble: why the last reading failed; None if it succeeded.
    """

    _position: Position
    _event_position: Position

    def __init__(self, threads: LedgerThreads, gateway_id: str, bell: Bell) -> None:
        self._threads = threads
        self._gateway_id = gateway_id
        self._bell = bell
        # The number of the last reading, and of the last one whose messages were offered. One thread does all the
        # readings, of backlogs too, so their order tells which saw what.
        self._read = 0
        self._offered = 0
        self._whole = True
        self.lag_seconds = 0.0
        self.trouble: Optional[LedgerError] = None
        self._changed = asyncio.Event()
        # However many agents catch up, the pump waits for at most this many reads.
        self._catching_up = asyncio.Semaphore(_BACKLOGS_AT_ONCE)

    async def open(self) -> None:
        """Set the position to the end of the ledger.

        Raises:
            LedgerError: it cannot be read.
        """
        self._position, self._event_position = await self._threads.read(
            lambda ledger: ledger.delivery.positions(self._gateway_id)
        )

    async def run(self, dispatch: Dispatch, check: Check) -> None:
        """Offer new messages until cancelled.

        Args:
            dispatch: offers committed messages to the live sessions.
            check: checks whether the registrations of these connections are still valid, because the ledger has new
                events of them.

        Raises:
            LedgerReplaced: the ledger is no longer the one that was opened.
        """
        loop = asyncio.get_running_loop()
        replaced: asyncio.Future[None] = loop.create_future()
        watcher = Watcher(
            await self._threads.read(lambda ledger: ledger),
            loop,
            self._notice,
            lambda error: None if replaced.done() else replaced.set_exception(error),
            self._gateway_id,
            lambda: self._bell.wanted,
        )
        watcher.start()
        pumping = asyncio.ensure_future(self._pump(dispatch, check))
        try:
            await asyncio.gather(replaced, pumping)
        finally:
            pumping.cancel()
            await loop.run_in_executor(None, watcher.stop)

    def _notice(self) -> None:
        self._changed.set()
        self._bell.ring()

    async def backlog(self, ws_id: str, after: int, limit: int) -> tuple[list[PendingMessage], bool]:
        """Return pending messages of a connection above a seq, and whether its session may go live with them.

        It may if these are all, and if the live sessions were offered the readings before this one and none after it.
        Then the next reading has everything that came since.
        """

        def read(ledger: Ledger) -> tuple[list[PendingMessage], bool, int]:
            messages = ledger.delivery.pending(ws_id, after, limit, QUEUE_BYTES)
            characters = sum(len(message.content) for message in messages)
            return messages, len(messages) < limit and characters <= QUEUE_BYTES, self._read

        async with self._catching_up:
            messages, complete, read_before = await self._threads.read(read)
        return messages, complete and read_before == self._offered

    async def _pump(self, dispatch: Dispatch, check: Check) -> None:
        trouble = Trouble("read the ledger")
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._pump_once(dispatch, check)
            except LedgerError as error:
                trouble.began(error)
                self.trouble = error
                await asyncio.sleep(_RETRY_SECONDS)
                self._changed.set()
            else:
                trouble.ended()
                self.trouble = None

    async def _pump_once(self, dispatch: Dispatch, check: Check) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            count = await self._offer(dispatch, check, _PUMP_ROWS)
            if count:
                self.lag_seconds = loop.time() - began
            if not count:
                return
            if count >= _MANY and self._whole:
                await self._rest(dispatch, check, min(_LONGEST_REST, count * _REST_SECONDS_A_MESSAGE))

    async def _offer(self, dispatch: Dispatch, check: Check, rows: int, *, few: bool = False) -> int:
        """Offer the new messages, at most `rows`. Return the number of messages that were read.

        With `few`, nothing is offered if there are as many as `rows`: they wait.
        """
        news = await self._threads.read(lambda ledger: self._read_news(ledger, rows))
        count = len(news.messages)
        if few and count >= rows:
            return count
        dispatch(news.messages)
        self._position, self._event_position = news.position, news.event_position
        self._offered = news.number
        self._whole = news.whole
        if news.events:
            check({event.ws_id for event in news.events if event.ws_id})
        return count

    async def _rest(self, dispatch: Dispatch, check: Check, seconds: float) -> None:
        """Wait for more messages. A few, such as a single one, are offered at once."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0:
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except asyncio.TimeoutError:
                return
            self._changed.clear()
            if await self._offer(dispatch, check, _MANY, few=True) >= _MANY:
                await asyncio.sleep(max(0.0, until - loop.time()))

    def _read_news(self, ledger: Ledger, rows: int) -> _News:
        delivery = ledger.delivery
        messages, position, whole = delivery.after(self._position, rows)
        events, event_position = delivery.events_after(self._event_position)
        self._read += 1
        return _News(messages, events, position, event_position, self._read, whole)
