"""The open sockets by ws_id: finds them, checks their health, and closes those whose registration is void."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Iterable, Iterator
from typing import Callable, Optional

from ws_manager.core.delivery import WhyVoid
from ws_manager.core.ledger import Ledger
from ws_manager.errors import LedgerError
from ws_manager.gateway.delivery.agent_socket import AgentSocket
from ws_manager.gateway.delivery.alarm import Alarm
from ws_manager.gateway.delivery.fast_path import FastPath
from ws_manager.gateway.delivery.ledger_threads import LedgerThreads
from ws_manager.gateway.delivery.wheel import Wheel
from ws_manager.gateway.trouble import Trouble
from ws_manager.models import SocketReport
from ws_manager.protocol.close_codes import CloseCode

_log = logging.getLogger("ws_manager.gateway")
_TICK_SECONDS = 1.0
_BATCH_SECONDS = 0.1
_LEAST_BATCH = 100

# The code and the reason with which a socket is closed when its registration is void.
_CLOSES: dict[WhyVoid, tuple[CloseCode, str]] = {
    "barred": (CloseCode.BARRED, "barred or revoked, do not come back"),
    "disconnected": (CloseCode.DISCONNECTED, "disconnected by an operator"),
    "moved": (CloseCode.DISCONNECTED, "the ws_id was given to another agent"),
    "replaced": (CloseCode.REPLACED, "replaced by a newer socket"),
    # The agent reconnects under the new registration and gets everything that is pending.
    "registered": (CloseCode.RESTARTING, "registered again by a command"),
}


class Hub:
    """The sockets of one gateway.

    Args:
        gateway_id: this gateway's id.
        threads: the ledger's threads.
        report: queues reports for the ledger.
        timeout: seconds without a sign of life after which a connection is lost.
        log_interval: least seconds between two rows of one connection in the heartbeat log.
        now: a monotonic clock, in seconds.
        clock: the time of day, in seconds since 1970; tokens expire by it.
        leads: returns whether this gateway also sweeps what others held that have ended.

    Attributes:
        fast_path: takes committed messages to the sockets.
    """

    def __init__(
        self,
        gateway_id: str,
        threads: LedgerThreads,
        report: Callable[[Iterable[SocketReport]], None],
        timeout: float,
        log_interval: float,
        now: Callable[[], float],
        clock: Callable[[], float],
        leads: Callable[[], bool],
    ) -> None:
        self._gateway_id = gateway_id
        self._leads = leads
        self._threads = threads
        self._report = report
        self._timeout = timeout
        self._log_interval = log_interval
        self._now = now
        self._clock = clock
        # By the monotonic clock, and by the time of day.
        self._due: Wheel[AgentSocket] = Wheel(_TICK_SECONDS)
        self._expiring: Wheel[AgentSocket] = Wheel(_TICK_SECONDS)
        self._receipts_due: Alarm[AgentSocket] = Alarm(now, self._wake)
        self._sockets: dict[str, AgentSocket] = {}
        self.fast_path = FastPath(self._sockets, now)
        # Includes replaced sockets that are still closing, so that they are timed out too.
        self._open: set[AgentSocket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeping: Optional[asyncio.Task[None]] = None
        self._emptied = asyncio.Event()
        self._closing: Optional[tuple[int, str]] = None
        self._open_since = self._swept_at = now()
        self._checking_trouble = Trouble("check the registrations of sockets")
        self._sweeping_trouble = Trouble("sweep")

    def __len__(self) -> int:
        """Return the number of open sockets, including those that are closing."""
        return len(self._open)

    def add(self, socket: AgentSocket) -> None:
        """Add a socket. Of two sockets with one ws_id, the one with the older registration is closed."""
        session = socket.session
        self._open.add(socket)
        self.attend(socket, self._now())
        if socket.expires_at != math.inf:
            self._expiring.put(socket, socket.expires_at)
        other = self._sockets.get(session.ws_id)
        if other is not None and other.session.epoch > session.epoch:
            socket.close(CloseCode.REPLACED, "replaced by a newer socket")
            return
        self._sockets[session.ws_id] = socket
        if other is not None:
            other.close(CloseCode.REPLACED, "replaced by a newer socket")
        if self._closing is not None:
            # Its handshake was under way when the others were closed.
            socket.close(*self._closing)
        # The registration may have become void before the socket was added.
        self.check([session.ws_id])

    def attend(self, socket: AgentSocket, at: float) -> None:
        """Have a socket's `tick` called at a time in monotonic seconds, or before."""
        if socket in self._open:
            self._due.put(socket, at)

    def attend_receipt(self, socket: AgentSocket, at: float) -> None:
        """Have a socket's `wake` called at a time in monotonic seconds, or at most about 10 ms later."""
        if socket in self._open:
            self._receipts_due.put(socket, at)

    def give_time(self) -> None:
        """Do not sweep for one full timeout, because agents may have been unable to reconnect."""
        self._open_since = self._now()

    def turn_away(self, code: int, reason: str, seconds: float) -> None:
        """Close every socket, and those whose handshake is under way, until `welcome`. Nothing is swept meanwhile.

        Sockets that are still open after these seconds are dropped.
        """
        self._closing = code, reason
        waiting = list(self._open)
        for socket in waiting:
            socket.close(code, reason)
        asyncio.get_running_loop().call_later(seconds, self._drop_open, waiting)

    def _drop_open(self, sockets: list[AgentSocket]) -> None:
        for socket in sockets:
            if socket in self._open:
                socket.abort()

    def welcome(self) -> None:
        """Keep new sockets again, and give agents time to come back."""
        self._closing = None
        self.give_time()

    def remove(self, socket: AgentSocket) -> None:
        """Remove a socket."""
        if self._sockets.get(socket.session.ws_id) is socket:
            del self._sockets[socket.session.ws_id]
        self._open.discard(socket)
        self._due.discard(socket)
        self._expiring.discard(socket)
        self._receipts_due.discard(socket)
        if not self._open:
            self._emptied.set()

    def check(self, ws_ids: Iterable[str]) -> None:
        """Check whether the registrations of these connections are still valid; close the sockets of void ones."""
        held = [self._sockets[ws_id] for ws_id in ws_ids if ws_id in self._sockets]
        if held:
            task = asyncio.create_task(self._check(held))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def run(self) -> None:
        """Send heartbeats, drop slow peers and sweep lost connections, until cancelled."""
        self.give_time()
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.sleep(_TICK_SECONDS)
            now = self._now()
            if loop.time() - began - _TICK_SECONDS > self._timeout / 3:
                # This process was suspended, so no agent could reconnect meanwhile.
                self.give_time()
            for socket in self._expiring.due(self._clock()):
                socket.close(CloseCode.TOKEN_EXPIRED, "the token has expired")
            self._look_at_sockets(now)
            interval = self._timeout / 3
            due = now - self._open_since > self._timeout and now - self._swept_at >= interval
            if due and self._closing is None:
                self._swept_at = now
                self._begin_sweep()

    async def close(self, code: int, reason: str, *, drain: float, seconds: float) -> None:
        """Close every socket, and sweep no more.

        Args:
            code: close code (RFC 6455 section 7.4).
            reason: the reason in the Close frame.
            drain: seconds over which the closes are spread, so that the agents do not all reconnect at once. Up to
                100 sockets are closed together.
            seconds: after which sockets that are still open are dropped.
        """
        # Nobody whom it sends away can come back to it. The next gateway gives them their time.
        self._swept_at = math.inf
        waiting = list(self._open)
        batch = max(_LEAST_BATCH, math.ceil(len(waiting) * _BATCH_SECONDS / max(drain, _BATCH_SECONDS)))
        for start in range(0, len(waiting), batch):
            if start:
                await asyncio.sleep(_BATCH_SECONDS)
            for socket in waiting[start : start + batch]:
                socket.close(code, reason)
        self._closing = code, reason
        # Sockets that were opened during the drain.
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
        def why_void(ledger: Ledger) -> list[Optional[WhyVoid]]:
            delivery = ledger.delivery
            return [
                delivery.why_void(socket.session.ws_id, socket.session.epoch, socket.agent) for socket in held
            ]

        while True:
            try:
                reasons = await self._threads.read(why_void)
                break
            except LedgerError as error:
                self._checking_trouble.began(error)
                await asyncio.sleep(_TICK_SECONDS)
        self._checking_trouble.ended()
        for socket, reason in zip(held, reasons):
            if reason is not None:
                socket.close(*_CLOSES[reason])

    def _look_at_sockets(self, now: float) -> None:
        """Look at the sockets that are due, and report what is new of them."""
        reports: list[SocketReport] = []
        for socket in self._due.due(now):
            try:
                again_at = socket.tick(now)
            except Exception:
                _drop(socket)
                continue
            if self._sockets.get(socket.session.ws_id) is socket:
                reports += self._news(socket, now)
            self.attend(socket, again_at)
        if reports:
            self._report(reports)

    def _wake(self, socket: AgentSocket) -> None:
        try:
            socket.wake()
        except Exception:
            _drop(socket)

    def _news(self, socket: AgentSocket, now: float) -> Iterator[SocketReport]:
        """Give unconfirmed writes, and the peer's last sign of life about three times per timeout."""
        session = socket.session
        yield from session.unreported_writes()
        if session.heard_at > socket.recorded_at and now >= socket.record_at:
            logged = socket.logged_at is None or now - socket.logged_at >= self._log_interval
            if logged:
                socket.logged_at = now
            socket.recorded_at, socket.record_at = now, now + self._timeout / 3
            yield socket.sign_of_life(now, logged=logged)

    def _begin_sweep(self) -> None:
        """Sweep in a task of its own, because it may wait long for the write lock."""
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.create_task(self._sweep())
            self._tasks.add(self._sweeping)
            self._sweeping.add_done_callback(self._tasks.discard)

    async def _sweep(self) -> None:
        held, others = set(self._sockets), self._leads()

        def sweep(ledger: Ledger) -> list[str]:
            if self._swept_at == math.inf:
                return []
            # This may have waited for long: whoever had a socket before or has one now could write no sign of life.
            # It runs in another thread, and CPython makes a set of a dict in one step.
            spared = held | set(self._sockets)
            return ledger.delivery.sweep(self._gateway_id, spared, self._timeout, others=others)

        try:
            lost = await self._threads.write(sweep)
        except LedgerError as error:
            self.give_time()
            self._sweeping_trouble.began(error)
            return
        self._sweeping_trouble.ended()
        if lost:
            _log.info("%d connection(s) lost: no heartbeat for %.0f s", len(lost), self._timeout)


def _drop(socket: AgentSocket) -> None:
    """Drop a socket that has raised an error: a defect in one must not end the gateway."""
    _log.exception("%s failed and is dropped", socket.session.ws_id)
    socket.abort()
