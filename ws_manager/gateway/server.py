"""The gateway: holds the ledger, listens, opens sockets, and stops in order."""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import time
from typing import Any, Callable, Optional

from aiohttp import web

from ws_manager.core import asks
from ws_manager.core.maintenance import Log
from ws_manager.core.once import KEPT_SECONDS
from ws_manager.errors import LedgerBusy, LedgerFull, LedgerUnreachable
from ws_manager.gateway.bell import Bell
from ws_manager.gateway.delivery.checkpointer import Checkpointer
from ws_manager.gateway.delivery.hub import Hub
from ws_manager.gateway.delivery.ledger_threads import LedgerThread, LedgerThreads
from ws_manager.gateway.delivery.pump import Pump
from ws_manager.gateway.delivery.receipts import ReceiptWriter
from ws_manager.gateway.holding import hold_ledger
from ws_manager.gateway.http.access import Access, check_address, is_loopback
from ws_manager.gateway.http.api.api import Api, body_bytes
from ws_manager.gateway.http.api.batches import Batches
from ws_manager.gateway.http.api.downloads import Downloads
from ws_manager.gateway.http.api.events import EventStreams
from ws_manager.gateway.http.api.gate import Gate
from ws_manager.gateway.http.bodies import Bodies
from ws_manager.gateway.http.errors import error_response, problems
from ws_manager.gateway.http.health import Health
from ws_manager.gateway.http.meters import Family, Meters, counted
from ws_manager.gateway.http.names import WILDCARDS, Names, bracketed
from ws_manager.gateway.http.sockets import SocketRoute
from ws_manager.gateway.http.stripe import PATH, StripeRoute
from ws_manager.gateway.janitor import Janitor
from ws_manager.gateway.net.binding import hosts_to_bind
from ws_manager.gateway.net.listener import Listener
from ws_manager.gateway.options import GatewayOptions
from ws_manager.gateway.own_quotas import OwnQuotas
from ws_manager.gateway.presence import LeaseTimes, Presence
from ws_manager.gateway.quotas import Addresses, Quotas
from ws_manager.gateway.refusal_log import RefusalLog
from ws_manager.gateway.trouble import Trouble
from ws_manager.gateway.workers.worker import Worker
from ws_manager.models import Gateway, PendingMessage, new_id, utc_now
from ws_manager.protocol.close_codes import CloseCode
from ws_manager.repository.store import Hold
from ws_manager.stripe.events import MAX_BODY
from ws_manager.tokens import MIN_KEY

_FLUSH_SECONDS = 35.0
_ROOM_SECONDS = 1.0
_REPORT_SECONDS = 10.0
_TICK_SECONDS = 1.0
_REASONS = {
    CloseCode.GOING_AWAY: "the gateway is shutting down",
    CloseCode.RESTARTING: "the gateway is restarting",
}


class GatewayServer:
    """One gateway over one ledger.

    Args:
        options: how it runs.
        now: a monotonic clock, in seconds.
        clock: the time of day, in seconds since 1970; tokens expire by it.
        worker: its tie to the others that share its port and its ledger; None if it is alone.
        lease_times: how it keeps its lease, where the ledger has leases.

    Attributes:
        url: base address, once started.
        urls: a base address for each host; `url` is the first.

    Raises:
        InvalidInput: a host, a public host, an origin or a proxy cannot be used.
    """

    def __init__(
        self,
        options: GatewayOptions,
        now: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
        worker: Optional[Worker] = None,
        lease_times: Optional[LeaseTimes] = None,
    ) -> None:
        self._worker = worker
        self._hosts = hosts_to_bind(options.hosts)
        for host in self._hosts:
            check_address(host, tokens=options.key is not None)
        self.url = ""
        self.urls: list[str] = []
        self._id = new_id()
        self._options = options
        self._now = now
        self._clock = clock
        self._hold: Optional[Hold] = None
        # Between the ledger and the sockets.
        self._threads = LedgerThreads(options.database, options.limits.sizes, shared=options.shared)
        self._checkpointer = Checkpointer(self._threads, self._leads)
        logs: dict[Log, float] = {
            "heartbeat_log": options.log_keep,
            "receipts": options.receipts_keep,
            "idempotency_keys": KEPT_SECONDS,
            "asks": asks.KEPT_SECONDS,
        }
        self._janitor = Janitor(options.database, logs, options.keep, self._leads)
        self._bell = Bell()
        self._pump = Pump(self._threads, self._id, self._bell)
        self._meters = Meters(
            lambda: len(self._hub), lambda: len(self._events), lambda: self._pump.lag_seconds
        )
        self._receipts = ReceiptWriter(self._threads, self._meters.settled)
        self._presence = Presence(
            self._threads, lease_times or LeaseTimes(), now, self._turn_away, self._welcome
        )
        self._pumping: Optional[asyncio.Task[None]] = None
        self._hub = Hub(
            self._id,
            self._threads,
            self._receipts.report,
            options.heartbeat_timeout,
            options.log_interval,
            now,
            clock,
            self._leads,
        )
        # From a connection to a socket.
        limits = options.limits
        self._quotas: Quotas = OwnQuotas(limits, now) if worker is None else worker.quotas
        self._refusal_log = RefusalLog(now)
        names = Names(self._hosts, options.public_hosts, options.origins)
        # A random key refuses every token until the real key has been read.
        key = secrets.token_bytes(MIN_KEY) if callable(options.key) else options.key
        self._access = Access(names, self._refusal_log, key, clock)
        self._bodies = Bodies(limits.webhook_bytes, MAX_BODY, limits.handshake_seconds, now)
        self._api_bodies = Bodies(
            limits.webhook_bytes, body_bytes(limits.sizes), limits.handshake_seconds, now
        )
        samples, events, api = (
            LedgerThread(options.database, f"ws-manager-{name}", limits.sizes)
            for name in ("samples", "events", "api")
        )
        self._ledgers = (self._threads, samples, events, api)
        self._health = Health(
            self._access,
            self._troubles if worker is None else worker.troubles,
            self._families if worker is None else worker.families,
            samples,
            public=options.metrics_public,
        )
        gate = Gate(self._access, self._quotas, self._refusal_log, limits.requests_per_second)
        self._events = EventStreams(gate, events, self._bell, clock)
        self._api = Api(
            gate,
            self._api_bodies,
            self._threads,
            api,
            self._bell,
            limits.handshake_seconds,
        )
        self._batches = Batches(gate, self._threads, body_bytes(limits.sizes))
        self._downloads = Downloads(gate, self._threads, options.database, limits.sizes)
        self._sockets = self._socket_route()
        self._listener = Listener(
            self._application(),
            limits,
            self._quotas,
            Addresses(options.proxies),
            self._refusal_log,
            now,
            error_response,
        )

    def give_time(self) -> None:
        """Keep lost connections for one more timeout, because their agents may have been unable to come back."""
        self._hub.give_time()

    async def settled(self) -> None:
        """Wait until every receipt so far is written."""
        await self._receipts.settled()

    def trouble(self) -> Optional[str]:
        """Return why this gateway cannot serve now; None if it can."""
        if self._access.closed is not None:
            return self._access.closed
        if self._sockets.stopping:
            return "the gateway is shutting down"
        if self._pumping is not None and self._pumping.done():
            return "messages are not delivered"
        unread = self._pump.trouble
        return (
            self._presence.trouble
            or (None if unread is None else unread.public_message)
            or self._receipts.failing
        )

    def families(self) -> list[Family]:
        """Return the counters of this process."""
        return self._meters.families()

    async def _troubles(self) -> list[str]:
        trouble = self.trouble()
        return [] if trouble is None else [trouble]

    async def _families(self) -> list[list[Family]]:
        return [self.families()]

    def _leads(self) -> bool:
        """Return whether this gateway does what one does for all that serve the ledger."""
        return self._worker is None or self._worker.leads

    def _socket_route(self) -> SocketRoute:
        return SocketRoute(
            self._id,
            self._options.heartbeat_timeout,
            self._access,
            self._options.limits,
            self._quotas,
            self._threads,
            self._pump,
            self._receipts,
            self._hub,
            self._refusal_log,
            self._now,
            self._meters.closed,
        )

    def _application(self) -> web.Application:
        """Return every route."""
        application = web.Application(client_max_size=MAX_BODY + 1)
        application.router.add_get("/ws", self._sockets.open)
        application.middlewares.extend((counted(self._meters), problems))
        self._health.add_to(application)
        self._events.add_to(application)
        self._api.add_to(application)
        self._batches.add_to(application)
        self._downloads.add_to(application)
        if self._options.stripe is not None:
            stripe = StripeRoute(
                self._options.stripe,
                self._access,
                self._bodies,
                self._threads,
                self._refusal_log,
                self._options.limits.handshake_seconds,
            )
            application.router.add_post(PATH, stripe.take)
        return application

    async def run(
        self,
        stop: asyncio.Future[CloseCode],
        ready: Callable[[str], None],
        waits: Callable[[str], None] = lambda _why: None,
    ) -> None:
        """Serve until `stop` is done.

        If the disk is full at the start, or another process keeps the write lock, the gateway listens, answers every
        request with 503, and waits.

        Args:
            stop: ends the gateway. Its result is the close code for the sockets: 1001 or 1012.
            ready: called with the base address when connections are accepted.
            waits: called with the reason, at least every 40 seconds while the gateway waits.

        Raises:
            Conflict: another gateway holds this file, or the address is in use.
            LedgerError: the file cannot be used, or was replaced while the gateway ran.
        """
        try:
            if await self._start(stop, waits):
                await self._serve(stop, ready)
        finally:
            if self._presence.trouble is not None:
                # Nothing waits for a ledger that does not answer.
                for each in self._ledgers:
                    each.give_up()
            await self._api.close()
            await self._threads.close()
            await self._health.close()
            await self._events.close()
            self._presence.release()
            if self._hold is not None:
                self._hold.release()

    async def _serve(self, stop: asyncio.Future[CloseCode], ready: Callable[[str], None]) -> None:
        """Run every task until `stop` is done or one of the tasks fails; then stop in order."""
        receipts = asyncio.create_task(self._receipts.run(on_void=self._hub.check))
        pump = asyncio.create_task(self._pump.run(self._dispatch, self._hub.check))
        self._pumping = pump
        tasks = [
            receipts,
            pump,
            asyncio.create_task(self._checkpointer.run()),
            asyncio.create_task(self._hub.run()),
            asyncio.create_task(self._janitor.run()),
            asyncio.create_task(self._tick()),
            asyncio.create_task(self._presence.run()),
        ]
        ended: list[asyncio.Task[None]] = []
        try:
            ready(self.url)
            waited_for: list[asyncio.Future[Any]] = [stop, *tasks]
            await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
            ended = [task for task in tasks if task.done()]
        finally:
            # A service manager usually restarts a gateway that fails.
            await self._close_sockets(stop.result() if stop.done() else CloseCode.RESTARTING)
            if not (receipts.done() or pump.done()):
                # The last receipts are written before another gateway can start.
                await self._receipts.flush(_FLUSH_SECONDS)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in ended:
            # Raises the task's error: a gateway without one of its tasks must not go on.
            task.result()

    async def _close_sockets(self, code: CloseCode) -> None:
        """Accept nobody new, close every socket, and end every connection."""
        self._sockets.stopping = True
        self._events.stop()
        self._api.stop()
        self._listener.stop_accepting()
        await self._hub.close(
            code,
            _REASONS[code],
            drain=self._options.drain_seconds,
            seconds=self._options.limits.close_seconds,
        )
        await self._listener.close()
        # Last, because a handshake may have been under way.
        await self._sockets.close()

    async def _start(self, stop: asyncio.Future[CloseCode], waits: Callable[[str], None]) -> bool:
        """Open the ledger and listen. Return False if `stop` was done before that was possible."""
        trouble, reported_at = Trouble("open the ledger"), -math.inf
        try:
            while True:
                try:
                    await self._prepare()
                    await self._listen()
                    await self._record()
                    break
                except LedgerUnreachable:
                    # Most probably the address is wrong, and whoever starts the gateway should see that.
                    raise
                except (LedgerFull, LedgerBusy) as error:
                    trouble.began(error)
                    self._access.closed = f"the gateway waits: {error.cause}"
                    await self._listen()
                    if time.monotonic() - reported_at >= _REPORT_SECONDS:
                        reported_at = time.monotonic()
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
        """Open the ledger, hold it for this gateway and read the key. It can be called again after an error."""
        try:
            await self._threads.open()
            await self._pump.open()
        except (LedgerFull, LedgerBusy):
            # Raises Conflict if another gateway has the file: then waiting is useless.
            await self._hold_ledger()
            raise
        await self._hold_ledger()
        if callable(self._options.key):
            self._access.key = await asyncio.get_running_loop().run_in_executor(None, self._options.key)

    async def _hold_ledger(self) -> None:
        # A worker's parent holds it.
        if self._hold is None and self._worker is None:
            self._hold = await hold_ledger(self._options.database, self._now)

    async def _listen(self) -> None:
        if self.url:
            return
        options = self._options
        shared = self._worker is not None
        port = await self._listener.start(self._hosts, options.port, options.tls, shared=shared)
        self.urls = _base_addresses(options, self._hosts, port)
        self.url = self.urls[0]

    async def _record(self) -> None:
        started = utc_now()
        pid = os.getpid() if self._worker is None else self._worker.parent
        await self._presence.begin(Gateway(self._id, pid, self.url, started, started))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._listener.tick()
            self._bodies.tick()
            self._api_bodies.tick()
            self._refusal_log.tick()

    def _dispatch(self, messages: list[PendingMessage]) -> None:
        self._presence.check()
        self._hub.fast_path.dispatch(messages)

    def _turn_away(self, why: str) -> None:
        """Close every socket, and refuse every request: another gateway may have the connections soon."""
        if not self._sockets.stopping:
            self._access.closed = why
            limits = self._options.limits
            self._hub.turn_away(CloseCode.RESTARTING, why, limits.close_seconds + limits.write_seconds)
        for each in self._ledgers:
            each.break_off()

    def _welcome(self) -> None:
        """Accept agents again."""
        if not self._sockets.stopping:
            self._access.closed = None
            self._hub.welcome()


def _base_addresses(options: GatewayOptions, hosts: list[str], port: int) -> list[str]:
    """Return the base addresses for agents on this machine, the best one first."""
    scheme = "http" if options.tls is None else "https"
    if options.tls is not None and options.public_hosts:
        # A certificate is issued for a name.
        return [f"{scheme}://{bracketed(options.public_hosts[0])}:{port}"]
    here = sorted(hosts, key=lambda host: not (is_loopback(host) or host in WILDCARDS))
    # A client cannot connect to a wildcard address.
    found = ({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host) for host in here)  # noqa: S104 - not bound
    return [f"{scheme}://{bracketed(host)}:{port}" for host in dict.fromkeys(found)]
