"""The gateway: holds the file's lock, listens, opens sockets, and stops in order."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional

from aiohttp import web

from ws_manager.core.locks import gateway_lock
from ws_manager.errors import Conflict, InvalidInput, LedgerError, WsManagerError
from ws_manager.gateway.access import Access, check_address, http_log
from ws_manager.gateway.agent_socket import MAX_FRAME, AgentSocket
from ws_manager.gateway.handshake import new_websocket, parse_query, refusal
from ws_manager.gateway.hub import Hub
from ws_manager.gateway.outbox import Outbox
from ws_manager.models import Closure, Connection, Gateway, new_id, utc_now
from ws_manager.protocol.close_codes import REFUSALS, CloseCode
from ws_manager.protocol.frames import connected_frame
from ws_manager.protocol.gateway_session import GatewaySession
from ws_manager.settings import HEARTBEAT_TIMEOUT
from ws_manager.tokens import Claims

if TYPE_CHECKING:
    from filelock import BaseFileLock

_log = logging.getLogger("ws_manager.gateway")
_LOCK_SECONDS = 2.0
_PRESENCE_SECONDS = 10.0


@dataclass(frozen=True)
class GatewayOptions:
    """How a gateway runs.

    Attributes:
        database: the ledger's file.
        host: the address to bind; without a key, a loopback address.
        port: 0 for one that is free.
        heartbeat_timeout: seconds without a sign of life after which a connection is lost.
        close_seconds: how long sockets may take to close when the gateway stops.
        key: that signs tokens; None asks for no tokens, and lets everybody on this machine in.
        public_hosts: names under which others address it, beside the one that it binds.
        origins: of pages elsewhere that may connect.
        tls: serve https and wss with this.
    """

    database: Path
    host: str = "127.0.0.1"
    port: int = 8765
    heartbeat_timeout: float = HEARTBEAT_TIMEOUT
    close_seconds: float = 5.0
    # Never part of its repr, which may end in a log.
    key: Optional[bytes] = field(default=None, repr=False)
    public_hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    tls: Optional[ssl.SSLContext] = None


class GatewayServer:
    """One gateway over one ledger.

    Args:
        options: how it runs.
        now: a monotonic clock.
        clock: the time of day, in seconds since 1970: when tokens expire.

    Attributes:
        url: base address, once started.

    Raises:
        InvalidInput: an address that cannot be served, or an origin that is none.
    """

    def __init__(
        self,
        options: GatewayOptions,
        now: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_address(options.host, tokens=options.key is not None)
        self.url = ""
        self._id = new_id()
        self._options = options
        self._now = now
        self._clock = clock
        self._access = Access([options.host, *options.public_hosts], options.origins, options.key, clock)
        self._lock: Optional[BaseFileLock] = None
        self._outbox = Outbox(options.database)
        self._hub = Hub(self._outbox, options.heartbeat_timeout, now)
        application = web.Application()
        application.router.add_get("/ws", self._open_socket)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            logger=http_log(),
            handle_signals=False,
            keepalive_timeout=15,
            shutdown_timeout=1,
        )

    async def run(self, stop: asyncio.Event, ready: Callable[[str], None]) -> None:
        """Serve until `stop` is set.

        Args:
            stop: ends the gateway.
            ready: called with the base address when connections are accepted.

        Raises:
            Conflict: another gateway holds this file, or the address is in use.
            LedgerError: the file cannot be used.
        """
        try:
            await self._outbox.open()
            await self._hold_lock()
            work = [
                asyncio.create_task(self._outbox.run(self._hub)),
                asyncio.create_task(self._hub.run()),
                asyncio.create_task(self._show_presence()),
                asyncio.create_task(_wait(stop)),
            ]
            try:
                await self._listen()
                ready(self.url)
                done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await self._stop_listening()
                await self._outbox.flush(self._options.close_seconds)
                for task in work:
                    task.cancel()
                await asyncio.gather(*work, return_exceptions=True)
            for task in done:
                # A defect must end the gateway, not go on half alive.
                task.result()
        finally:
            await self._outbox.close()
            if self._lock is not None:
                self._lock.release()

    async def _hold_lock(self) -> None:
        from filelock import Timeout

        lock = gateway_lock(self._options.database)
        deadline = self._now() + _LOCK_SECONDS
        while True:
            try:
                lock.acquire(timeout=0)
                break
            except Timeout:
                # Somebody who only looks whether a gateway runs holds it for a moment.
                if self._now() < deadline:
                    await asyncio.sleep(0.05)
                    continue
            other = await self._outbox.read(lambda delivery: delivery.registry.gateways.latest())
            where = f" at {other.url} (pid {other.pid})" if other else ""
            raise Conflict(
                f"another gateway{where} serves {self._options.database}",
                hint="stop it first, or use another --db",
            )
        self._lock = lock

    async def _listen(self) -> None:
        host, port = self._options.host, self._options.port
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port, ssl_context=self._options.tls).start()
        except OSError as error:
            raise Conflict(
                f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}",
                hint="choose another --port; 0 takes one that is free",
            ) from error
        port = self._runner.addresses[0][1]
        self.url = _base_address(self._options, port)
        started = utc_now()
        await self._outbox.write(
            lambda delivery: delivery.record_gateway(
                Gateway(self._id, os.getpid(), self.url, started, started)
            )
        )

    async def _show_presence(self) -> None:
        while True:
            await asyncio.sleep(_PRESENCE_SECONDS)
            try:
                await self._outbox.write(lambda delivery: delivery.gateway_seen(self._id))
            except LedgerError as error:
                # For display only: receipts say the same, and they are kept until they can be written.
                _log.warning("cannot write the gateway's record: %s", error)

    async def _stop_listening(self) -> None:
        for site in list(self._runner.sites):
            await site.stop()
        await self._hub.close(
            CloseCode.GOING_AWAY, "the gateway is shutting down", self._options.close_seconds
        )
        await self._runner.cleanup()

    async def _open_socket(self, request: web.Request) -> web.StreamResponse:
        try:
            claims = self._access.check(request)
            websocket = new_websocket(MAX_FRAME)
            if not websocket.can_prepare(request).ok:
                raise InvalidInput("this address speaks WebSocket", hint="connect with a WebSocket client")
            agent, ws_id, metadata, explicit_ack = parse_query(request.query)
            # A token for one connection says which, so that nobody has to say it twice.
            ws_id = claims.ws_id if ws_id is None else ws_id
            claims.check(agent, ws_id)
            # A registration voids the receipts of the one before it, so what was told already goes first.
            await self._outbox.settled()
            connection, pending, last_code = await self._outbox.write(
                lambda delivery: delivery.open_socket(agent, ws_id, metadata, self._id)
            )
        except WsManagerError as error:
            return refusal(error)
        closure = Closure(connection.ws_id, connection.epoch, CloseCode.LOST, "lost at the handshake", False)
        try:
            if request.transport is None:
                raise ConnectionResetError("the peer went away at the handshake")
            await websocket.prepare(request)
            socket = self._socket(
                request,
                websocket,
                connection,
                claims,
                explicit_ack=explicit_ack,
                cautious=last_code in REFUSALS,
            )
            _log.info("%s opened (agent=%s)", connection.ws_id, connection.agent)
            closure = await self._attend(socket, connection, pending)
        finally:
            self._outbox.tell([closure])
            _log.info("%s closed: %s (%d)", closure.ws_id, closure.reason, closure.code)
        return websocket

    def _socket(
        self,
        request: web.Request,
        websocket: web.WebSocketResponse,
        connection: Connection,
        claims: Claims,
        *,
        explicit_ack: bool,
        cautious: bool,
    ) -> AgentSocket:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the peer went away at the handshake")
        session = GatewaySession(
            ws_id=connection.ws_id,
            epoch=connection.epoch,
            confirmed_seq=connection.confirmed_seq,
            nonce=secrets.token_hex(8),
            explicit_ack=explicit_ack,
            heartbeat=self._options.heartbeat_timeout / 3,
            timeout=self._options.heartbeat_timeout,
            now=self._now(),
            cautious=cautious,
        )
        return AgentSocket(
            connection.agent,
            websocket,
            transport,
            request.writer.drain,
            session,
            self._outbox,
            self._now,
            claims,
            self._clock,
        )

    async def _attend(self, socket: AgentSocket, connection: Connection, pending: int) -> Closure:
        greeting = connected_frame(
            ws_id=connection.ws_id,
            agent=connection.agent,
            resumed=connection.epoch > 1,
            pending=pending,
            seq=connection.confirmed_seq,
            heartbeat=self._options.heartbeat_timeout / 3,
        )
        self._hub.add(socket)
        try:
            return await socket.run(greeting)
        finally:
            self._hub.remove(socket)


def _base_address(options: GatewayOptions, port: int) -> str:
    """Return the address under which this machine's own agents find the gateway."""
    # Every address is no address to connect to, and a certificate is for a name.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(options.host, options.host)  # noqa: S104 - not bound
    if options.tls is None:
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"
    host = options.public_hosts[0] if options.public_hosts else host
    return f"https://{f'[{host}]' if ':' in host else host}:{port}"


async def _wait(stop: asyncio.Event) -> None:
    await stop.wait()
