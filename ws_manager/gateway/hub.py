"""The live sockets by ws_id: finds them, watches their health, closes them when the ledger says so."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from typing import Callable, Optional

from ws_manager.core.delivery import Delivery
from ws_manager.errors import LedgerError
from ws_manager.gateway.agent_socket import AgentSocket
from ws_manager.gateway.outbox import Outbox
from ws_manager.models import Outcome, PendingMessage
from ws_manager.protocol.close_codes import CloseCode

_log = logging.getLogger("ws_manager.gateway")
_TICK_SECONDS = 1.0
LOG_SECONDS = 60.0

_VOID = {
    "disconnected": (CloseCode.DISCONNECTED, "disconnected by an operator"),
    "moved": (CloseCode.DISCONNECTED, "the ws_id was given to another agent"),
    "replaced": (CloseCode.REPLACED, "replaced by a newer socket"),
    # Its agent comes back under the new registration, and gets everything that is pending.
    "registered": (CloseCode.RESTARTING, "registered again by a command"),
}


class Hub:
    """The sockets of one gateway.

    Args:
        outbox: the way to the ledger.
        timeout: seconds without a sign of life after which a connection is lost.
        now: a monotonic clock.
    """

    def __init__(self, outbox: Outbox, timeout: float, now: Callable[[], float]) -> None:
        self._outbox = outbox
        self._timeout = timeout
        self._now = now
        self._sockets: dict[str, AgentSocket] = {}
        # With those that were replaced and have not gone yet: they must not hold on for ever either.
        self._open: set[AgentSocket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._emptied = asyncio.Event()
        self._started_at = now()
        self._swept_at = self._started_at

    def __len__(self) -> int:
        return len(self._sockets)

    def add(self, socket: AgentSocket) -> None:
        """Take a socket in. An older one of the same ws_id is replaced; an older one that comes late, refused."""
        session = socket.session
        self._open.add(socket)
        other = self._sockets.get(session.ws_id)
        if other is not None and other.session.epoch > session.epoch:
            socket.close(CloseCode.REPLACED, "replaced by a newer socket")
            return
        self._sockets[session.ws_id] = socket
        if other is not None:
            other.close(CloseCode.REPLACED, "replaced by a newer socket")
        # What happened to the registration before the socket was here has told nobody.
        self.check([session.ws_id])

    def remove(self, socket: AgentSocket) -> None:
        """Let a socket go."""
        if self._sockets.get(socket.session.ws_id) is socket:
            del self._sockets[socket.session.ws_id]
        self._open.discard(socket)
        if not self._open:
            self._emptied.set()

    def dispatch(self, messages: list[PendingMessage]) -> None:
        """Offer committed messages to the live sessions; the others read their backlog."""
        woken: dict[str, AgentSocket] = {}
        for message in messages:
            socket = self._sockets.get(message.recipient_id)
            if socket is not None and socket.session.live:
                socket.offer(message)
                woken[message.recipient_id] = socket
        for socket in woken.values():
            socket.wake()

    def check(self, ws_ids: Iterable[str]) -> None:
        """Look whether these connections' registrations still hold, and close the sockets that do not."""
        held = [self._sockets[ws_id] for ws_id in ws_ids if ws_id in self._sockets]
        if held:
            task = asyncio.create_task(self._check(held))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def run(self) -> None:
        """Heartbeats, slow peers and sweeping, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = self._now()
            for socket in list(self._open):
                socket.tick(now)
            self._record(now)
            # After a start everybody gets one full time-out to come back.
            interval = self._timeout / 3
            if now - self._started_at > self._timeout and now - self._swept_at >= interval:
                self._swept_at = now
                await self._sweep()

    async def close(self, code: int, reason: str, seconds: float) -> None:
        """Close every socket, and drop those that have not gone after `seconds`."""
        for socket in self._open:
            socket.close(code, reason)
        if not await self._empty_within(seconds):
            for socket in self._open:
                socket.abort()
            await self._empty_within(seconds)
        for task in self._tasks:
            task.cancel()

    async def _empty_within(self, seconds: float) -> bool:
        if self._open:
            self._emptied.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), seconds)
        return not self._open

    async def _check(self, held: list[AgentSocket]) -> None:
        def why_void(delivery: Delivery) -> list[Optional[str]]:
            return [
                delivery.why_void(socket.session.ws_id, socket.session.epoch, socket.agent) for socket in held
            ]

        while True:
            try:
                reasons = await self._outbox.read(why_void)
                break
            except LedgerError as error:
                _log.error("cannot read the ledger, will try again: %s", error)
                await asyncio.sleep(_TICK_SECONDS)
        for socket, reason in zip(held, reasons):
            if reason is not None:
                socket.close(*_VOID[reason])

    def _record(self, now: float) -> None:
        """Tell the ledger what waits for its receipt, and who was heard: about three times in a time-out."""
        signs: list[Outcome] = []
        for socket in self._sockets.values():
            session = socket.session
            signs += session.untold_writes()
            if session.heard_at > socket.recorded_at and now - socket.recorded_at >= self._timeout / 3:
                logged = socket.logged_at is None or now - socket.logged_at >= LOG_SECONDS
                if logged:
                    socket.logged_at = now
                socket.recorded_at = now
                signs.append(socket.sign_of_life(now, logged=logged))
        if signs:
            self._outbox.tell(signs)

    async def _sweep(self) -> None:
        held = set(self._sockets)

        def sweep(delivery: Delivery) -> list[str]:
            return delivery.sweep(held, self._timeout)

        try:
            lost = await self._outbox.write(sweep)
        except LedgerError as error:
            _log.error("cannot sweep: %s", error)
            return
        if lost:
            _log.info("%d connection(s) lost: no heartbeat for %.0f s", len(lost), self._timeout)
