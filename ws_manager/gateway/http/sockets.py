"""`GET /ws`: from the handshake of a socket to its end."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from contextlib import ExitStack
from typing import Callable, NamedTuple, Optional

from aiohttp import web

from ws_manager.core.delivery import OpenedSocket
from ws_manager.core.ledger import Ledger
from ws_manager.errors import (
    GatewayUnavailable,
    LedgerBusy,
    LedgerError,
    LedgerUnreachable,
    NotAuthorised,
    TooLarge,
    WsManagerError,
)
from ws_manager.gateway.delivery.agent_socket import TURN_AWAY_SECONDS, AgentSocket
from ws_manager.gateway.delivery.hub import Hub
from ws_manager.gateway.delivery.ledger_threads import LedgerThreads
from ws_manager.gateway.delivery.pump import Pump
from ws_manager.gateway.delivery.receipts import ReceiptWriter
from ws_manager.gateway.delivery.requests import RequestPerformer
from ws_manager.gateway.http.access import Access
from ws_manager.gateway.http.errors import error_response
from ws_manager.gateway.http.handshake import HandshakeQuery, parse_query, switched
from ws_manager.gateway.limits import Limits
from ws_manager.gateway.net.tcp import TcpPeer, peer_of
from ws_manager.gateway.quotas import Account, Handshake, OverQuota, Quotas
from ws_manager.gateway.refusal_log import RefusalLog, quoted
from ws_manager.models import Closure, Connection
from ws_manager.protocol.close_codes import REFUSALS, CloseCode
from ws_manager.protocol.frames import connected_frame
from ws_manager.protocol.gateway_session import GatewaySession
from ws_manager.protocol.pings import NONCE_BYTES
from ws_manager.tokens import Claims

_log = logging.getLogger("ws_manager.gateway")

LONGEST_HEARTBEAT = 20.0
"""Most seconds between two Pings: many proxies cut idle connections after 30 or 60 seconds."""


class _Admitted(NamedTuple):
    """An admitted handshake: its parameters, the claims of its token, and the answer that opens the socket."""

    query: HandshakeQuery
    claims: Claims
    answer: web.StreamResponse


class _PeerGone(Exception):
    """The peer went away before its registration was written."""


class SocketRoute:
    """Handles handshakes and their sockets.

    Args:
        gateway_id: this gateway's id, written to the row of each connection.
        heartbeat_timeout: seconds without a sign of life after which a connection is lost.
        access: checks the requests.
        limits: what agents may use.
        quotas: count what they use.
        threads: the ledger's threads.
        pump: reads the sockets' backlogs.
        receipts: writes what the sockets report.
        hub: holds the open sockets.
        refusal_log: notes what is refused.
        now: a monotonic clock, in seconds.
        closed: is called with the close code of each socket.

    Attributes:
        stopping: True refuses every further handshake.
    """

    def __init__(
        self,
        gateway_id: str,
        heartbeat_timeout: float,
        access: Access,
        limits: Limits,
        quotas: Quotas,
        threads: LedgerThreads,
        pump: Pump,
        receipts: ReceiptWriter,
        hub: Hub,
        refusal_log: RefusalLog,
        now: Callable[[], float] = time.monotonic,
        closed: Callable[[int], None] = lambda _code: None,
    ) -> None:
        self.stopping = False
        self._closed = closed
        self._gateway_id = gateway_id
        self._timeout = heartbeat_timeout
        self._heartbeat = min(heartbeat_timeout / 3, LONGEST_HEARTBEAT)
        self._access = access
        self._limits = limits
        self._threads = threads
        self._pump = pump
        self._receipts = receipts
        self._hub = hub
        self._refusal_log = refusal_log
        self._quotas = quotas
        self._now = now
        self._handshakes = itertools.count()
        self._running: set[asyncio.Task[None]] = set()

    async def open(self, request: web.Request) -> web.StreamResponse:
        """Answer a handshake. Its socket outlives the request, in a task of its own."""
        peer = peer_of(request)
        address = None if peer is None else peer.address
        with ExitStack() as unless_open:
            handshake = unless_open.enter_context(
                Handshake(self._quotas, next(self._handshakes), address, self._now)
            )
            try:
                admitted = await self._admit(request, handshake)
                registration = await self._register(admitted.query, admitted.claims.key, peer)
                handshake.name(registration.connection.ws_id)
            except OverQuota as error:
                agent = quoted(request.query.get("agent", ""))
                self._refusal_log.note(
                    error.option, f"{error.message} (agent {agent}, from {request.remote})", error.option
                )
                return error_response(error)
            except WsManagerError as error:
                if isinstance(error, (LedgerError, GatewayUnavailable)):
                    # An agent that cannot reconnect because of the gateway must not be swept, nor slowed down.
                    self._hub.give_time()
                    handshake.spare()
                # Metadata that is too large is in the query: there is no body that could be.
                return error_response(error, 400 if isinstance(error, TooLarge) else None)
            except _PeerGone:
                # Nobody is left to be answered.
                return admitted.answer
            connection = registration.connection
            unless_open.callback(self._note_end, _lost_early(connection.ws_id, connection.epoch))
            try:
                await admitted.answer.prepare(request)
                # So that aiohttp has nothing left to write when the connection is taken from it.
                await admitted.answer.write_eof()
                if peer is None or peer.transport is None:
                    raise ConnectionResetError("the peer went away at the handshake")
            except ConnectionError:
                # The peer has gone, so nobody is left to be answered.
                return admitted.answer
            socket = self._socket(peer, admitted, registration)
            self._begin(socket, self._greeting(connection, registration.pending), handshake)
            unless_open.pop_all()
            peer.upgrade(socket)
        return admitted.answer

    async def close(self) -> None:
        """Wait until the sockets have ended, after the hub has closed them; those that take too long are cut off."""
        if self._running:
            # Peers that misbehaved have a second to read the Close frame.
            await asyncio.wait(self._running, timeout=TURN_AWAY_SECONDS)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _begin(self, socket: AgentSocket, greeting: str, handshake: Handshake) -> None:
        ws_id, agent = socket.session.ws_id, socket.agent
        _log.info("%s opened (agent=%s)", ws_id, agent, extra={"fields": {"ws_id": ws_id, "agent": agent}})
        self._hub.add(socket)
        task = asyncio.ensure_future(self._serve(socket, greeting, handshake))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, socket: AgentSocket, greeting: str, handshake: Handshake) -> None:
        """Run a socket until it has closed, and report how it did."""
        closure = _lost_early(socket.session.ws_id, socket.session.epoch)
        with handshake:
            try:
                closure = await socket.run(greeting)
            except Exception:
                # A defect in one socket must not end the gateway.
                _log.exception("%s failed and is dropped", closure.ws_id)
                socket.abort()
            finally:
                self._hub.remove(socket)
                self._note_end(closure)
                if self.stopping:
                    # Otherwise an agent of a worker that ends could not come back to the others.
                    handshake.spare()
            await socket.linger()

    def _note_end(self, closure: Closure) -> None:
        self._receipts.report([closure], at_once=True)
        self._closed(closure.code)
        _log.info(
            "%s closed: %s (%d)",
            closure.ws_id,
            closure.reason,
            closure.code,
            extra={"fields": {"ws_id": closure.ws_id, "code": closure.code}},
        )

    async def _admit(self, request: web.Request, handshake: Handshake) -> _Admitted:
        await handshake.check_address()
        claims = self._access.check(request)
        answer = switched(request)
        query = parse_query(request.query)
        if query.ws_id is None:
            # A token for one connection names it, so the query need not.
            query = query._replace(ws_id=claims.ws_id)
        try:
            claims.check(query.agent, query.ws_id)
        except NotAuthorised as error:
            self._access.note_token(request, error.message)
            raise
        if self.stopping:
            raise GatewayUnavailable("the gateway is shutting down", hint="come back in a moment")
        await handshake.enter(claims, query.ws_id)
        return _Admitted(query, claims, answer)

    async def _register(
        self, query: HandshakeQuery, token: Optional[str], peer: Optional[TcpPeer]
    ) -> OpenedSocket:
        """Write the registration, within the time limit of a handshake.

        Raises:
            _PeerGone: nobody waits for it any more.
            LedgerBusy: the ledger could not be written in that time, or cannot be reached.
        """
        trouble = self._pump.trouble
        if isinstance(trouble, LedgerUnreachable):
            # Reports could wait for long. A new error: one that is raised again grows.
            raise LedgerUnreachable(trouble.message, hint=trouble.hint)
        deadline = self._now() + self._limits.handshake_seconds
        busy = LedgerBusy("the ledger is busy", hint="try again", cause="the ledger is busy")
        given_up = False

        def check_peer() -> None:
            # It may have waited for long for the ledger, and its agent may have a socket at another gateway by now.
            # That one would be closed for one that nobody has.
            if given_up:
                raise busy
            if peer is None or peer.transport is None:
                raise _PeerGone

        def open_socket(ledger: Ledger) -> OpenedSocket:
            if given_up:
                raise busy
            return ledger.delivery.open_socket(
                query.agent, query.ws_id, query.metadata, self._gateway_id, token, query.worker, check_peer
            )

        try:
            # A registration voids receipts of the one before it, so receipts that were reported are written first.
            await asyncio.wait_for(self._receipts.settled(), self._limits.handshake_seconds)
        except asyncio.TimeoutError:
            raise busy from None
        writing = self._threads.write(open_socket)
        try:
            await asyncio.wait({writing}, timeout=max(0.0, deadline - self._now()))
        except asyncio.CancelledError:
            # The gateway is stopping.
            given_up = True
            writing.add_done_callback(self._close_late)
            raise
        if writing.done():
            try:
                return writing.result()
            finally:
                # An error refers to this frame; if the frame also held the error, the cycle would stay in memory.
                del writing
        given_up = True
        writing.add_done_callback(self._close_late)
        raise busy

    def _close_late(self, writing: asyncio.Future[OpenedSocket]) -> None:
        """Close a registration that was written after its handshake had been refused."""
        if not writing.cancelled() and writing.exception() is None:
            connection = writing.result().connection
            self._receipts.report([_lost_early(connection.ws_id, connection.epoch)])

    def _socket(self, peer: TcpPeer, admitted: _Admitted, registration: OpenedSocket) -> AgentSocket:
        connection = registration.connection
        session = GatewaySession(
            ws_id=connection.ws_id,
            epoch=connection.epoch,
            confirmed_seq=connection.confirmed_seq,
            nonce=secrets.token_bytes(NONCE_BYTES),
            explicit_ack=admitted.query.explicit_ack,
            heartbeat=self._heartbeat,
            timeout=self._timeout,
            now=self._now(),
            # One of several messages that were begun may have ended the worker: they come one by one now.
            cautious=registration.last_code in REFUSALS or registration.begun > 1,
            frames_per_second=self._limits.frames_per_second,
        )
        claims = admitted.claims
        account = Account(self._quotas.charge, claims.key or connection.ws_id)
        return AgentSocket(
            connection.agent,
            peer,
            session,
            self._pump,
            self._receipts.report,
            RequestPerformer(self._threads, connection.ws_id, connection.epoch, claims, account),
            self._limits,
            self._now,
            self._hub,
            claims.expires_at,
        )

    def _greeting(self, connection: Connection, pending: int) -> str:
        return connected_frame(
            ws_id=connection.ws_id,
            agent=connection.agent,
            resumed=connection.epoch > 1,
            pending=pending,
            seq=connection.confirmed_seq,
            heartbeat=self._heartbeat,
        )


def _lost_early(ws_id: str, epoch: int) -> Closure:
    """Return the closure of a socket that was lost during its handshake."""
    return Closure(ws_id, epoch, CloseCode.LOST, "lost at the handshake", ended=False)
