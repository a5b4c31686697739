"""The gateway: holds the ledger, listens, opens sockets, and stops in order."""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional, Union

from aiohttp import web

from ws_manager.core.locations import hold_gateway
from ws_manager.core.presence import NOTED_SECONDS
from ws_manager.errors import Conflict, LedgerBusy, LedgerError, LedgerFull
from ws_manager.gateway.delivery.channels import Channels
from ws_manager.gateway.delivery.checkpointer import Checkpointer
from ws_manager.gateway.delivery.hub import Hub
from ws_manager.gateway.delivery.ledger_threads import LedgerThreads
from ws_manager.gateway.delivery.pump import Pump
from ws_manager.gateway.delivery.receipts import ReceiptWriter
from ws_manager.gateway.http.access import Access, check_address, is_loopback
from ws_manager.gateway.http.bodies import Bodies
from ws_manager.gateway.http.errors import refusal
from ws_manager.gateway.http.names import WILDCARDS, Names, bracketed
from ws_manager.gateway.http.sockets import SocketRoute
from ws_manager.gateway.http.stripe import PATH, StripeOptions, StripeRoute
from ws_manager.gateway.janitor import Janitor
from ws_manager.gateway.limits import Limits
from ws_manager.gateway.net.binding import every
from ws_manager.gateway.net.listener import Listener
from ws_manager.gateway.quotas import Addresses
from ws_manager.gateway.refusal_log import Refusals
from ws_manager.gateway.trouble import Trouble
from ws_manager.models import Gateway, new_id, utc_now
from ws_manager.protocol.close_codes import CloseCode
from ws_manager.repository.store import Hold
from ws_manager.settings import HEARTBEAT_TIMEOUT
from ws_manager.stripe.events import MAX_BODY
from ws_manager.tokens import MIN_KEY

_HOLD_SECONDS = 2.0
_FLUSH_SECONDS = 35.0
_ROOM_SECONDS = 1.0
_SAY_AGAIN_SECONDS = 10.0
_TICK_SECONDS = 1.0
_REASONS = {
    CloseCode.GOING_AWAY: "the gateway is shutting down",
    CloseCode.RESTARTING: "the gateway is restarting",
}


@dataclass(frozen=True)
class GatewayOptions:
    """How a gateway runs.

    Attributes:
        database: the ledger's file.
        hosts: the addresses to bind, `::` for every address; without a key, loopback addresses.
        port: for all of them; 0 for a free one.
        heartbeat_timeout: seconds without a sign of life after which a connection is lost.
        drain_seconds: over which the gateway spreads the closing of its sockets when it stops.
        key: the key that signs tokens, or a function that returns it; the function runs in a thread once the ledger
            is open. None: no tokens are required, and everybody on this machine is let in.
        public_hosts: names under which others reach it, besides the addresses that it binds.
        origins: of pages on other hosts that may connect.
        proxies: addresses and networks of proxies. They have no limit per address.
        tls: serve https and wss with this.
        limits: for agents and strangers.
        log_interval: seconds between two rows of a connection in the heartbeat log, at least.
        log_keep: seconds that those rows stay.
        keep: seconds that confirmed messages, and all else that `prune` deletes, stay. None: for ever.
        stripe: how webhook events of Stripe are handled. None: they are not.
        shared: put the ledger into a database of another program too.
    """

    database: Path
    hosts: tuple[str, ...] = ("127.0.0.1",)
    port: int = 8765
    heartbeat_timeout: float = HEARTBEAT_TIMEOUT
    drain_seconds: float = 5.0
    # Not in its repr, which may end up in a log.
    key: Union[bytes, Callable[[], bytes], None] = field(default=None, repr=False)
    public_hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    tls: Optional[ssl.SSLContext] = None
    limits: Limits = field(default_factory=Limits)
    log_interval: float = 60.0
    log_keep: float = 86400.0
    keep: Optional[float] = None
    stripe: Optional[StripeOptions] = None
    shared: bool = False


class GatewayServer:
    """One gateway over one ledger.

    Args:
        options: how it runs.
        now: a monotonic clock.
        clock: the time of day, in seconds since 1970: when tokens expire.

    Attributes:
        url: base address, once started.
        urls: the base address for each host, `url` first.

    Raises:
        InvalidInput: an address cannot be served, or a name, an origin or a proxy is not valid.
    """

    def __init__(
        self,
        options: GatewayOptions,
        now: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._hosts = every(options.hosts)
        for host in self._hosts:
            check_address(host, tokens=options.key is not None)
        self.url = ""
        self.urls: list[str] = []
        self._id = new_id()
        self._options = options
        self._now = now
        self._hold: Optional[Hold] = None
        self._threads = LedgerThreads(options.database, options.limits.sizes, shared=options.shared)
        self._pump = Pump(self._threads)
        self._receipts = ReceiptWriter(self._threads)
        self._checkpointer = Checkpointer(self._threads)
        self._hub = Hub(
            self._threads, self._receipts.report, options.heartbeat_timeout, options.log_interval, now
        )
        self._janitor = Janitor(options.database, options.log_keep, options.keep)
        self._refusals = Refusals(now)
        names = Names(self._hosts, options.public_hosts, options.origins)
        # Until the real key is known, a random one: no token is signed with it.
        key = secrets.token_bytes(MIN_KEY) if callable(options.key) else options.key
        self._access = access = Access(names, self._refusals, key, clock)
        limits = options.limits
        self._sockets = SocketRoute(
            self._id,
            options.heartbeat_timeout,
            access,
            limits,
            Channels(self._threads, self._pump, self._receipts),
            self._hub,
            self._refusals,
            now,
            clock,
        )
        application = web.Application(client_max_size=MAX_BODY + 1)
        application.router.add_get("/ws", self._sockets.open)
        self._bodies = Bodies(limits.webhook_bytes, MAX_BODY, limits.handshake_seconds, now)
        if options.stripe is not None:
            stripe = StripeRoute(
                options.stripe,
                access,
                self._bodies,
                self._threads,
                self._refusals,
                limits.handshake_seconds,
            )
            application.router.add_post(PATH, stripe.take)
        self._listener = Listener(
            application, limits, Addresses(options.proxies), self._refusals, now, refusal
        )

    async def run(
        self,
        stop: asyncio.Future[CloseCode],
        ready: Callable[[str], None],
        waits: Callable[[str], None] = lambda _why: None,
    ) -> None:
        """Serve until `stop` is done.

        While the disk is full at the start, or another process keeps the write lock, answer everybody with 503.

        Args:
            stop: ends the gateway; its result is the code that sockets are closed with, 1001 or 1012.
            ready: called with the base address when connections are accepted.
            waits: called with the reason at least every 40 seconds while it waits.

        Raises:
            Conflict: another gateway serves this ledger, or the address is in use.
            LedgerError: the ledger cannot be used, or was replaced meanwhile.
        """
        try:
            if not await self._start(stop, waits):
                return
            receipts = asyncio.create_task(self._receipts.run(on_void=self._hub.check))
            pump = asyncio.create_task(self._pump.run(self._hub))
            work = [
                receipts,
                pump,
                asyncio.create_task(self._checkpointer.run()),
                asyncio.create_task(self._hub.run()),
                asyncio.create_task(self._janitor.run()),
                asyncio.create_task(self._tick()),
                asyncio.create_task(self._show_presence()),
            ]
            done: list[asyncio.Task[None]] = []
            try:
                ready(self.url)
                waited_for: list[asyncio.Future[Any]] = [stop, *work]
                await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
                done = [task for task in work if task.done()]
            finally:
                # A gateway that ends by a fault is usually started again.
                await self._close_sockets(stop.result() if stop.done() else CloseCode.RESTARTING)
                if not (receipts.done() or pump.done()):
                    # What was confirmed at the end is written before another gateway can begin.
                    await self._receipts.flush(_FLUSH_SECONDS)
                for task in work:
                    task.cancel()
                await asyncio.gather(*work, return_exceptions=True)
            for task in done:
                # A defect must end the gateway: it must not go on half alive.
                task.result()
        finally:
            await self._pump.close()
            await self._threads.close()
            if self._hold is not None:
                self._hold.release()

    async def _start(self, stop: asyncio.Future[CloseCode], waits: Callable[[str], None]) -> bool:
        """Open the ledger and listen; False if the gateway was stopped before that was possible."""
        trouble, said_at = Trouble("open the ledger"), -math.inf
        try:
            while True:
                try:
                    await self._prepare()
                    await self._listen()
                    await self._record()
                    break
                except (LedgerFull, LedgerBusy) as error:
                    trouble.began(error)
                    self._access.closed = f"the gateway waits: {error.cause}"
                    await self._listen()
                    if time.monotonic() - said_at >= _SAY_AGAIN_SECONDS:
                        said_at = time.monotonic()
                        waits(error.cause)
                await asyncio.wait({stop}, timeout=_ROOM_SECONDS)
                if stop.done():
                    await self._listener.close()
                    return False
        except BaseException:
            await self._listener.close()
            raise
        trouble.ended()
        self._access.closed = None
        return True

    async def _prepare(self) -> None:
        """Open the ledger and read its key. It can be called again after a failure."""
        try:
            await self._threads.open()
            await self._pump.open()
        except (LedgerFull, LedgerBusy):
            # Waiting would not help if another gateway serves the ledger.
            await self._hold_ledger(ledger_is_open=False)
            raise
        await self._hold_ledger()
        if callable(self._options.key):
            self._access.key = await asyncio.get_running_loop().run_in_executor(None, self._options.key)

    async def _hold_ledger(self, *, ledger_is_open: bool = True) -> None:
        if self._hold is not None:
            return
        deadline = self._now() + _HOLD_SECONDS
        while (hold := hold_gateway(self._options.database)) is None:
            # A process that only checks whether a gateway runs holds it for a moment.
            if self._now() < deadline:
                await asyncio.sleep(0.05)
                continue
            other = (
                await self._threads.read(lambda ledger: ledger.latest_gateway()) if ledger_is_open else None
            )
            where = f" at {other.url} (pid {other.pid})" if other else ""
            raise Conflict(
                f"another gateway{where} serves {self._options.database}",
                hint="stop it first, or use another --db",
            )
        self._hold = hold

    async def _listen(self) -> None:
        if self.url:
            return
        options = self._options
        port = await self._listener.start(self._hosts, options.port, options.tls)
        self.urls = _base_addresses(options, self._hosts, port)
        self.url = self.urls[0]

    async def _record(self) -> None:
        started = utc_now()
        await self._threads.write(
            lambda ledger: ledger.delivery.record_gateway(
                Gateway(self._id, os.getpid(), self.url, started, started)
            )
        )

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._listener.tick()
            self._bodies.tick()
            self._refusals.tick()

    async def _show_presence(self) -> None:
        # If it is killed, this shows when. Whether it runs, its hold on the ledger shows.
        trouble = Trouble("write the gateway's record")
        while True:
            await asyncio.sleep(NOTED_SECONDS)
            try:
                await self._threads.write(lambda ledger: ledger.delivery.gateway_seen(self._id))
            except LedgerError as error:
                trouble.began(error)
            else:
                trouble.ended()

    async def _close_sockets(self, code: CloseCode) -> None:
        self._sockets.stopping = True
        self._listener.stop_accepting()
        await self._hub.close(
            code,
            _REASONS[code],
            drain=self._options.drain_seconds,
            seconds=self._options.limits.close_seconds,
        )
        await self._listener.close()


def _base_addresses(options: GatewayOptions, hosts: list[str], port: int) -> list[str]:
    """Return the addresses under which agents on this machine reach the gateway, the best one first."""
    scheme = "http" if options.tls is None else "https"
    if options.tls is not None and options.public_hosts:
        # A certificate is for a name.
        return [f"{scheme}://{bracketed(options.public_hosts[0])}:{port}"]
    here = sorted(hosts, key=lambda host: not (is_loopback(host) or host in WILDCARDS))
    # A wildcard address is not one to connect to.
    found = ({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host) for host in here)  # noqa: S104 - not bound
    return [f"{scheme}://{bracketed(host)}:{port}" for host in dict.fromkeys(found)]
