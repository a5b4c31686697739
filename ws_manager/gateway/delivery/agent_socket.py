"""One agent's socket: one task reads, one task writes. `GatewaySession` decides what the frames mean."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable
from typing import Callable, Optional

from aiohttp import ClientError, WebSocketError, WSMessage, WSMsgType, web

from ws_manager.errors import LedgerError
from ws_manager.gateway.delivery.channels import Channels
from ws_manager.gateway.delivery.requests import perform
from ws_manager.gateway.limits import Limits
from ws_manager.gateway.net.tcp import TcpPeer, forget_frames
from ws_manager.gateway.quotas import Account
from ws_manager.models import Closure, PendingMessage, SignOfLife, seconds_before, utc_now
from ws_manager.protocol.close_codes import MISBEHAVIOUR, REFUSALS, CloseCode, is_goodbye, meaning
from ws_manager.protocol.frames import AgentRequest, failure_frame
from ws_manager.protocol.gateway_session import GatewaySession
from ws_manager.protocol.wire import close_frame, ping_frame, pong_frame, text_frame
from ws_manager.repository.records import Position
from ws_manager.tokens import EVERYTHING, Claims

MAX_REQUESTS = 100
TURN_AWAY_SECONDS = 1.0
_log = logging.getLogger("ws_manager.gateway")


class AgentSocket:
    """An open socket and its session.

    Args:
        agent: the agent that the ws_id belongs to.
        websocket: prepared, with `autoping=False` and without a heartbeat of its own.
        transport: of the request.
        drain: waits until the transport has room.
        session: the state.
        channels: the ways to and from the ledger.
        limits: for one agent.
        now: a monotonic clock.
        account: pays for what it sends.
        claims: of its token: what it may ask for, and when it expires.
        clock: the time of day, in seconds since 1970: when tokens expire.
    """

    def __init__(
        self,
        agent: str,
        websocket: web.WebSocketResponse,
        transport: asyncio.Transport,
        drain: Callable[[], Awaitable[None]],
        session: GatewaySession,
        channels: Channels,
        limits: Limits,
        now: Callable[[], float],
        account: Account,
        claims: Claims = EVERYTHING,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.agent = agent
        self.session = session
        self.recorded_at = now()
        self.logged_at: Optional[float] = None
        self._websocket = websocket
        self._transport = transport
        self._drain = drain
        self._channels = channels
        self._limits = limits
        self._now = now
        self._account = account
        self._claims = claims
        self._clock = clock
        self._wake = asyncio.Event()
        self._pong: Optional[bytes] = None
        self._parked = False
        self._requests: deque[AgentRequest] = deque()
        self._performing: Optional[asyncio.Future[None]] = None
        self._receipt_timer: Optional[asyncio.TimerHandle] = None
        self._turned_away = False
        self._stops_reading = False
        self._close_timer: Optional[asyncio.TimerHandle] = None
        self._reader: Optional[asyncio.Task[None]] = None
        self._peer_closed: Optional[tuple[int, str]] = None
        self._buffered = 0
        self._shrunk_at = now()
        protocol = transport.get_protocol()
        self._connection = protocol if isinstance(protocol, TcpPeer) else None
        if self._connection is not None:
            self._connection.expect_mask(
                lambda: self.close(CloseCode.PROTOCOL_ERROR, "a frame without a mask")
            )
        # "Drained" means that the system has all of it: a peer that does not read holds up one write, not two.
        transport.set_write_buffer_limits(high=0)

    async def run(self, greeting: str) -> Closure:
        """Greet, then read and write until the socket is gone, and return how it ended."""
        writer = asyncio.create_task(self._write(greeting))
        self._reader = asyncio.create_task(self._read())
        try:
            await self._reader
        except asyncio.CancelledError:
            if not self._stops_reading:
                raise
        finally:
            # The writer sends our close frame last: let it finish, but do not wait for a blocked one.
            self._wake.set()
            for timer in (self._receipt_timer, self._close_timer):
                if timer is not None:
                    timer.cancel()
            if self.session.close_with is None:
                writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
            # Signs of life are reported at intervals. Report the last one: the time-out counts from it.
            self.session.reports.append(self.sign_of_life(self._now(), logged=False))
            self._report()
            if self.session.close_with is None and self._peer_closed is not None:
                self._answer_close(self._peer_closed[0])
            if not self._turned_away:
                self._transport.close()
            if self._unwritten():
                # The rest is sent if the peer reads it in time. A peer that has stopped does not keep the connection
                # for ever.
                asyncio.get_running_loop().call_later(self._limits.write_seconds, self._transport.abort)
        return self._closure()

    def offer(self, message: PendingMessage) -> None:
        """Give a live session a message that was just committed."""
        if self.session.queue_is_full and self._may_write():
            self._write_now()
        self.session.take_live(message)

    async def linger(self) -> None:
        """Release everything. A peer that was turned away first gets time to read the close frame.

        If the connection ended at once, with unread data, a reset could destroy the close frame.
        """
        if self._turned_away:
            await asyncio.sleep(TURN_AWAY_SECONDS)
            self._transport.abort()
        # Otherwise aiohttp would do it later, and its error could not be dropped any more.
        await self._websocket.close()
        # aiohttp keeps the error that ended a socket.
        forget_frames(self._websocket.exception())

    def wake(self) -> None:
        """There may be something to write. It is written at once if the transport has room."""
        if self._may_write():
            self._write_now()
            if not self.session.has_work:
                return
            if not self.session.has_frames and not self.session.wants_backlog:
                self._wake_for_receipt()
                return
        self._wake.set()

    def close(self, code: int, reason: str) -> None:
        """Close the socket; the first code stays."""
        self.session.close(code, reason)
        self._wake.set()

    def abort(self) -> None:
        """Drop the connection at once. Nothing else ends a blocked write."""
        self._transport.abort()

    def sign_of_life(self, now: float, *, logged: bool) -> SignOfLife:
        """Return when the peer was last heard, for the ledger. `logged`: it goes into the heartbeat log too."""
        session = self.session
        latency = None if session.latency is None else round(session.latency * 1000)
        at = seconds_before(utc_now(), now - session.heard_at)
        return SignOfLife(session.ws_id, session.epoch, at, latency, logged)

    def tick(self, now: float) -> None:
        """Let time pass: heartbeats, the end of the token, and a peer that does not read."""
        if self._clock() >= self._claims.expires_at:
            self.close(CloseCode.TOKEN_EXPIRED, "the token has expired")
        self._look_at_buffer(now)
        if now - self._shrunk_at > self._limits.write_seconds:
            self.session.close(CloseCode.TOO_SLOW, "reads too slowly")
            self.abort()
        elif self.session.tick(now):
            self._wake.set()

    def _unwritten(self) -> int:
        """Return how many bytes the system has not taken yet."""
        try:
            return self._transport.get_write_buffer_size()
        except AttributeError:
            # asyncio's TLS transport raises this once the connection is lost.
            return 0

    def _look_at_buffer(self, now: float) -> None:
        buffered = self._unwritten()
        if not buffered or buffered < self._buffered:
            self._shrunk_at = now
        self._buffered = buffered

    async def _read(self) -> None:
        session = self.session
        while True:
            message: WSMessage = await self._websocket.receive()
            if message.type == WSMsgType.PONG:
                session.pong(bytes(message.data), self._now())
            elif message.type == WSMsgType.TEXT:
                if self._is_too_large(message.data):
                    session.close(CloseCode.TOO_LARGE, "a frame was over the size limit")
                else:
                    session.text(message.data, self._now())
            elif message.type == WSMsgType.PING:
                # RFC 6455 section 5.5.3: only the most recent Ping has to be answered.
                self._pong = bytes(message.data)
                session.ping(self._now())
            elif message.type == WSMsgType.BINARY:
                session.close(CloseCode.NOT_THIS_PROTOCOL, "binary frame")
            else:
                if message.type == WSMsgType.ERROR and isinstance(message.data, WebSocketError):
                    # aiohttp has closed it: too large, not UTF-8, against RFC 6455.
                    session.close(message.data.code, str(message.data))
                elif message.type == WSMsgType.CLOSE:
                    self._peer_closed = _close_of(message)
                return
            self._report()
            if session.reads_no_more:
                return
            self._take_requests()
            if self._pong is not None or session.has_work:
                self.wake()

    def _is_too_large(self, text: str) -> bool:
        most = self._limits.frame_bytes
        # A character has at most four bytes, so most frames need not be encoded to know that they fit.
        return len(text) * 4 > most and len(text.encode("utf-8")) > most

    def _take_requests(self) -> None:
        """Perform the agent's requests one after the other, without delaying its receipts."""
        if not self.session.requests:
            return
        requests, self.session.requests = self.session.requests, []
        for request in requests:
            if len(self._requests) < MAX_REQUESTS:
                self._requests.append(request)
            else:
                self.session.answer(failure_frame(request.ref, "busy", "too many requests wait already"))
        if self._performing is None:
            self._performing = asyncio.ensure_future(self._perform())

    async def _perform(self) -> None:
        while self._requests:
            request = self._requests.popleft()
            answer = await self._channels.threads.write(
                lambda ledger, request=request: perform(  # type: ignore[misc]
                    ledger, self.session.ws_id, request, self._claims, self._account
                )
            )
            self.session.answer(answer)
            self.wake()
        self._performing = None

    async def _write(self, greeting: str) -> None:
        try:
            self._put(text_frame(greeting))
            while self.session.close_with is None:
                try:
                    await self._flush()
                except LedgerError as error:
                    _log.error("cannot read the ledger: %s", error)
                    self.session.close(CloseCode.RESTARTING, "the ledger cannot be read")
                    continue
                self._parked = True
                await self._wake.wait()
                self._parked = False
                self._wake.clear()
            code, reason = self.session.close_with
            if code in MISBEHAVIOUR:
                self._turn_away(code, reason)
            else:
                self._say_close(code, reason)
        except (ClientError, ConnectionError):
            # The peer has gone or closed. The reader notices it too; what was written stays unconfirmed.
            self._transport.close()
        except Exception:
            # A defect. Without a writer the socket would stay open and silent.
            self._transport.abort()
            raise

    def _turn_away(self, code: int, reason: str) -> None:
        """Close, and read nothing more: after the close frame a flood would cost as much as before it."""
        if self._connection is not None:
            self._connection.read_no_more()
        self._turned_away = True
        self._stop_reading()
        self._put(close_frame(code, reason))

    def _say_close(self, code: int, reason: str) -> None:
        """Close, and go on reading until the peer answers: what it confirms until then counts.

        The Ping before the close frame asks for a last receipt.
        """
        ping = self.session.last_ping(self._now())
        self._put((b"" if ping is None else ping_frame(ping)) + close_frame(code, reason))
        self._close_timer = asyncio.get_running_loop().call_later(
            self._limits.close_seconds, self._stop_reading
        )

    def _answer_close(self, code: int) -> None:
        """Answer the peer's close frame with its code (RFC 6455 section 5.5.1)."""
        if not self._transport.is_closing():
            self._transport.write(close_frame(None if code == CloseCode.NO_STATUS else code))

    def _stop_reading(self) -> None:
        self._stops_reading = True
        if self._reader is not None:
            # It would wait for ever.
            self._reader.cancel()

    async def _flush(self) -> None:
        session = self.session
        while session.close_with is None:
            while self._write_now():
                await self._drain()
                self._look_at_buffer(self._now())
            if not session.wants_backlog:
                self._wake_for_receipt()
                return
            await self._read_backlog()

    async def _read_backlog(self) -> None:
        # A method of its own, so that a blocked writer does not keep in memory what was read.
        session = self.session
        pump = self._channels.pump
        messages, reached = await pump.backlog(session.ws_id, Position(session.cursor), session.backlog_limit)
        session.take_backlog(messages, reached, pump.position)

    def _may_write(self) -> bool:
        """Say whether the transport has room and the writer task is idle."""
        return (
            self._parked
            and self.session.close_with is None
            and not self._transport.is_closing()
            and not self._unwritten()
        )

    def _write_now(self) -> bool:
        """Write what is due, at most 64 KiB and a Ping. False if there was nothing.

        It is one write: aiohttp's way, a frame at a time, costs twice as much.

        Raises:
            ConnectionResetError: the transport is closing.
        """
        # Checked before anything counts as written.
        self._make_sure_it_is_open()
        frames: list[bytes] = []
        if self.session.has_frames:
            frames = [text_frame(text) for text in self.session.next_write(utc_now())]
        if self._pong is not None:
            frames.append(pong_frame(self._pong))
            self._pong = None
        ping = self.session.next_ping(self._now())
        if ping is not None:
            frames.append(ping_frame(ping))
        if not frames:
            return False
        self._look_at_buffer(self._now())
        self._put(b"".join(frames))
        return True

    def _put(self, data: bytes) -> None:
        self._make_sure_it_is_open()
        self._transport.write(data)

    def _make_sure_it_is_open(self) -> None:
        # On a closing transport asyncio drops data silently, and uvloop raises an error of its own.
        if self._transport.is_closing():
            raise ConnectionResetError("the connection is closing")

    def _wake_for_receipt(self) -> None:
        """Wake up when the next receipt Ping is due, if one is waiting."""
        due_in = self.session.receipt_due_in(self._now())
        if due_in and self._receipt_timer is None:
            self._receipt_timer = asyncio.get_running_loop().call_later(due_in, self._receipt_is_due)

    def _receipt_is_due(self) -> None:
        self._receipt_timer = None
        self.wake()

    def _report(self) -> None:
        if self.session.reports:
            reports, self.session.reports = self.session.reports, []
            self._channels.receipts.report(reports)

    def _closure(self) -> Closure:
        session = self.session
        if session.close_with is not None:
            code, reason = session.close_with
            return Closure(session.ws_id, session.epoch, code, reason, ended=False)
        if self._peer_closed is not None:
            code, reason = self._peer_closed
            refused = session.only_in_flight if code in REFUSALS else None
            ended = is_goodbye(code)
            return Closure(session.ws_id, session.epoch, code, meaning(code, reason), ended, refused)
        # aiohttp's `close_code` will not do: it is 1000 without a close frame too.
        return Closure(session.ws_id, session.epoch, CloseCode.LOST, meaning(CloseCode.LOST), ended=False)


def _close_of(message: WSMessage) -> tuple[int, str]:
    """Return code and reason of a peer's close frame.

    RFC 6455 section 7.4 reserves some codes that no frame may carry, and has none from 5000 on. aiohttp accepts them.
    """
    # 0 stands for a close frame without a code.
    code, reason = message.data or CloseCode.NO_STATUS, message.extra or ""
    if message.data and (code in (CloseCode.NO_STATUS, CloseCode.LOST) or code >= 5000):
        return CloseCode.PROTOCOL_ERROR, f"{code} is not a close code that may be sent"
    return code, reason
