"""The IO of one agent's socket. Bytes come in by `receive`; one task writes. The protocol is in `GatewaySession`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Iterable
from typing import Callable, Optional, Protocol

from ws_manager.errors import LedgerError, LedgerUnreachable
from ws_manager.gateway.delivery.pump import Pump
from ws_manager.gateway.delivery.requests import RequestPerformer
from ws_manager.gateway.limits import Limits
from ws_manager.gateway.net.tcp import TcpPeer
from ws_manager.models import Closure, SignOfLife, SocketReport, seconds_before, utc_now
from ws_manager.protocol.close_codes import MISBEHAVIOUR, REFUSALS, CloseCode, is_goodbye, meaning
from ws_manager.protocol.frame_reader import Frame, FrameReader
from ws_manager.protocol.frames import AgentRequest, failure_frame
from ws_manager.protocol.gateway_session import GatewaySession
from ws_manager.protocol.message_frames import MessageFrames
from ws_manager.protocol.wire import BINARY, PING, PONG, TEXT, close_frame, ping_frame, pong_frame, text_frame

MAX_REQUESTS = 100
TURN_AWAY_SECONDS = 1.0
_PIECE_BYTES = 16 * 1024
_TICK_SOON_SECONDS = 1.0
_log = logging.getLogger("ws_manager.gateway")


class Attendant(Protocol):
    """What calls a socket when time has passed. Times are in monotonic seconds."""

    def attend(self, socket: AgentSocket, at: float) -> None:
        """Have `tick` called at a time, or before."""

    def attend_receipt(self, socket: AgentSocket, at: float) -> None:
        """Have `wake` called at a time, or a moment later."""


class AgentSocket:
    """An open socket and its session.

    Args:
        agent: the connection's agent.
        peer: its connection, which was answered with 101 and has a transport.
        session: the state of the protocol.
        pump: reads the backlog.
        report: queues reports for the ledger.
        requests: performs the agent's requests.
        limits: what an agent may use.
        now: a monotonic clock, in seconds.
        attendant: calls it when time has passed.
        expires_at: when its token expires, in seconds since 1970; infinity if it does not.

    Attributes:
        recorded_at, record_at: when the peer's last sign of life was reported, and when the next one is due.
        logged_at: when one was logged.
    """

    # fmt: off
    __slots__ = (
        "__weakref__", "_attendant", "_buffered", "_close_timer", "_ended", "_limits", "_now",
        "_parked", "_peer", "_peer_closed", "_performer", "_performing", "_pong", "_pump", "_reader", "_reading",
        "_report_to_ledger", "_requests", "_shrunk_at", "_tick_at", "_transport",
        "_turned_away", "_woken", "agent", "expires_at", "logged_at", "record_at", "recorded_at", "session",
    )
    # fmt: on

    def __init__(
        self,
        agent: str,
        peer: TcpPeer,
        session: GatewaySession,
        pump: Pump,
        report: Callable[[Iterable[SocketReport]], None],
        requests: RequestPerformer,
        limits: Limits,
        now: Callable[[], float],
        attendant: Attendant,
        expires_at: float,
    ) -> None:
        self.agent = agent
        self.session = session
        self.expires_at = expires_at
        self.recorded_at = self.record_at = now()
        self.logged_at: Optional[float] = None
        assert peer.transport is not None
        self._peer = peer
        self._transport = peer.transport
        self._pump = pump
        self._report_to_ledger = report
        self._performer = requests
        self._limits = limits
        self._now = now
        self._attendant = attendant
        self._tick_at = -math.inf
        self._pong: Optional[bytes] = None
        # What the writing task waits for, and whether it has something to do at its next turn.
        self._parked: Optional[asyncio.Future[None]] = None
        self._woken = False
        self._reading: Optional[asyncio.Future[None]] = None
        self._requests: list[AgentRequest] = []
        self._performing: Optional[asyncio.Future[None]] = None
        self._turned_away = False
        self._close_timer: Optional[asyncio.TimerHandle] = None
        self._reader = FrameReader(limits.frame_bytes)
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._peer_closed: Optional[tuple[int, str]] = None
        self._buffered = 0
        self._shrunk_at = now()
        # With 0, `drain` waits until the kernel has everything: a peer that does not read costs one write, not two.
        self._transport.set_write_buffer_limits(high=0)

    async def run(self, greeting: str) -> Closure:
        """Send the greeting, write until the socket has closed, and return how it closed."""
        writer = asyncio.create_task(self._write(greeting))
        try:
            await self._ended
        finally:
            # The writer sends our Close frame last, so it may finish. A writer that is blocked is cancelled.
            self._wake_writer()
            if self._close_timer is not None:
                self._close_timer.cancel()
            if self.session.close_with is None:
                writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
            # Signs of life are reported in intervals. The last one is reported now: the timeout counts from it.
            self.session.reports.append(self.sign_of_life(self._now(), logged=False))
            self._report()
            if self.session.close_with is None and self._peer_closed is not None:
                self._answer_close(self._peer_closed[0])
            if not self._turned_away:
                self._transport.close()
            if self._unwritten():
                # The peer may read the rest, but a peer that has stopped reading must not keep the connection.
                asyncio.get_running_loop().call_later(self._limits.write_seconds, self._transport.abort)
        return self._closure()

    def is_free(self) -> bool:
        """Return whether messages may be written at once: there is room, and no Pong of the socket's waits."""
        return self._pong is None and self.has_room()

    def has_room(self) -> bool:
        """Return whether the kernel has taken all that was written, and the writing task is waiting."""
        return (
            self._parked is not None
            and self.session.close_with is None
            and not self._transport.is_closing()
            and not self._unwritten()
        )

    def write(self, data: bytes, now: float) -> None:
        """Write messages that the session has taken. The socket must be free. `now` is in monotonic seconds."""
        self._buffered, self._shrunk_at = 0, now
        self._transport.write(data)
        self._tick_soon(now)
        self._wake_for_receipt(now)

    def write_queued(self) -> bool:
        """Write what is ready, at most 64 KiB and a Ping. Return False if there was nothing.

        All frames go out in one write. One write for each frame, as in aiohttp, takes twice the time.

        Raises:
            ConnectionResetError: the transport is closing.
        """
        # Check it before the session counts anything as written.
        self._make_sure_it_is_open()
        frames = self.session.next_write(utc_now(), self._now()) if self.session.has_frames else []
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
        self._tick_soon(self._now())
        return True

    def receive(self, data: bytes) -> None:
        """Take received bytes. Once the peer has broken a rule or the socket has ended, they are thrown away."""
        session = self.session
        if self._ended.done():
            return
        now = self._now()
        # In pieces, so that of a flood not much is read before it is noticed.
        for start in range(0, len(data), _PIECE_BYTES):
            for frame in self._reader.read(data[start : start + _PIECE_BYTES]):
                self._take_frame(frame, now)
            if session.reads_no_more or self._ended.done():
                break
        if now >= self.record_at:
            self._tick_soon(now)
        violation = self._reader.violation
        if violation is not None and not self._ended.done():
            session.close(*violation)
        self._report()
        if violation is not None or session.reads_no_more:
            # The writer sends the Close frame, unless it has.
            self.lost()
            return
        self._take_requests()
        if self._pong is not None or session.has_work:
            self.wake()

    def lost(self) -> None:
        """End the socket: nothing more is read."""
        if not self._ended.done():
            self._ended.set_result(None)

    async def linger(self) -> None:
        """Give a peer that misbehaved a second to read the Close frame. What it sends meanwhile is thrown away.

        A TCP connection that is closed with unread data is reset, and the Close frame would be lost.
        """
        if self._turned_away:
            try:
                await asyncio.sleep(TURN_AWAY_SECONDS)
            finally:
                self._transport.abort()

    def wake(self) -> None:
        """Write what there is to write: at once if the transport has room, otherwise in the writing task."""
        if self.has_room():
            self.write_queued()
            if not self.session.has_work:
                return
            if not self.session.has_frames and not self.session.wants_backlog:
                self._wake_for_receipt(self._now())
                return
        self._wake_writer()

    def close(self, code: int, reason: str) -> None:
        """Close the socket. If it is closing already, the first code is kept."""
        self.session.close(code, reason)
        self._wake_writer()
        if self._reading is not None:
            self._reading.cancel()

    def abort(self) -> None:
        """Drop the connection without a Close frame. Nothing else ends a blocked write."""
        self._transport.abort()

    def sign_of_life(self, now: float, *, logged: bool) -> SignOfLife:
        """Return when the peer was last heard, and the round trip. `logged` also writes it to the heartbeat log."""
        session = self.session
        latency = None if session.latency is None else round(session.latency * 1000)
        at = seconds_before(utc_now(), now - session.heard_at)
        return SignOfLife(session.ws_id, session.epoch, at, latency, logged)

    def tick(self, now: float) -> float:
        """Check what depends on time: a peer that does not read, and heartbeats. Return when to call it again."""
        self._look_at_buffer(now)
        if now - self._shrunk_at > self._limits.write_seconds:
            self.session.close(CloseCode.TOO_SLOW, "reads too slowly")
            self.abort()
        elif self.session.tick(now):
            self.wake()
        self._tick_at = now if self._buffered else self.session.tick_at
        return self._tick_at

    def _tick_soon(self, now: float) -> None:
        """Have `tick` called within a second or two: something was written, or heard."""
        if now + _TICK_SOON_SECONDS < self._tick_at:
            self._tick_at = now + _TICK_SOON_SECONDS
            self._attendant.attend(self, self._tick_at)

    def _unwritten(self) -> int:
        """Return how many bytes the kernel has not taken yet."""
        try:
            return self._transport.get_write_buffer_size()
        except AttributeError:
            # asyncio's TLS transport raises it once the connection is lost.
            return 0

    def _look_at_buffer(self, now: float) -> None:
        buffered = self._unwritten()
        if not buffered or buffered < self._buffered:
            self._shrunk_at = now
        self._buffered = buffered

    def _take_frame(self, frame: Frame, now: float) -> None:
        session = self.session
        if session.reads_no_more or self._ended.done():
            return
        if frame.opcode == PONG:
            session.pong(frame.payload, now)
        elif frame.opcode == TEXT:
            session.text(frame.text, now)
        elif frame.opcode == PING:
            # RFC 6455 section 5.5.3: only the most recent Ping has to be answered.
            self._pong = frame.payload
            session.ping(now)
        elif frame.opcode == BINARY:
            session.close(CloseCode.NOT_THIS_PROTOCOL, "binary frame")
        else:
            self._peer_closed = frame.code or CloseCode.NO_STATUS, frame.text
            self.lost()

    def _take_requests(self) -> None:
        """Perform the agent's requests one after the other, in a task of their own so that receipts do not wait."""
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
            request = self._requests.pop(0)
            frame, settled, confirmed = await self._performer.perform(request)
            if settled is not None:
                self.session.settled(settled, confirmed=confirmed)
                self._report()
            self.session.answer(frame)
            self.wake()
        self._performing = None

    async def _write(self, greeting: str) -> None:
        try:
            self._put(text_frame(greeting.encode()))
            while self.session.close_with is None:
                try:
                    await self._flush()
                except LedgerUnreachable:
                    # The socket stays. What waits for it is read when that is possible again.
                    asyncio.get_running_loop().call_later(_TICK_SOON_SECONDS, self._wake_writer)
                except LedgerError as error:
                    _log.error("cannot read the ledger: %s", error)
                    self.session.close(CloseCode.RESTARTING, "the ledger cannot be read")
                    continue
                await self._park()
            code, reason = self.session.close_with
            if code in MISBEHAVIOUR:
                self._turn_away(code, reason)
            else:
                self._say_close(code, reason)
        except ConnectionError:
            # The connection is lost or closed. The reader notices it too; unconfirmed messages stay pending.
            self._transport.close()
        except Exception:
            # A defect. Without its writer, the socket would stay open and silent.
            self._transport.abort()
            raise

    async def _park(self) -> None:
        """Wait until there is something to do. It does what `asyncio.Event` would, in a tenth of its memory."""
        if not self._woken:
            self._parked = asyncio.get_running_loop().create_future()
            await self._parked
            self._parked = None
        self._woken = False

    def _wake_writer(self) -> None:
        self._woken = True
        if self._parked is not None and not self._parked.done():
            self._parked.set_result(None)

    def _turn_away(self, code: int, reason: str) -> None:
        """Send the Close frame and take nothing more, because a flood costs as much after it as before."""
        self._turned_away = True
        self.lost()
        self._put(close_frame(code, reason))

    def _say_close(self, code: int, reason: str) -> None:
        """Send the Close frame, and read until the peer answers it: what it confirms until then counts.

        A Ping before the Close frame asks for the last receipt.
        """
        ping = self.session.last_ping(self._now())
        self._put((b"" if ping is None else ping_frame(ping)) + close_frame(code, reason))
        self._close_timer = asyncio.get_running_loop().call_later(self._limits.close_seconds, self.lost)

    def _answer_close(self, code: int) -> None:
        """Answer the peer's Close frame with the same code (RFC 6455 section 5.5.1)."""
        if not self._transport.is_closing():
            self._transport.write(close_frame(None if code == CloseCode.NO_STATUS else code))

    async def _flush(self) -> None:
        session = self.session
        while session.close_with is None:
            while self.write_queued():
                # asyncio's TLS transport pauses writing with every other write, also where nothing waits.
                if self._unwritten():
                    await self._peer.drain()
                self._look_at_buffer(self._now())
            if not session.wants_backlog:
                self._wake_for_receipt(self._now())
                return
            await self._read_backlog()

    async def _read_backlog(self) -> None:
        # It is cancelled when the socket closes: a ledger that does not answer must not delay that.
        self._reading = reading = asyncio.ensure_future(self._take_backlog())
        try:
            await asyncio.wait({reading})
        finally:
            reading.cancel()
            self._reading = None
        if not reading.cancelled():
            reading.result()

    async def _take_backlog(self) -> None:
        # Nothing may run in between: a session that goes live later misses what was offered meanwhile.
        session = self.session
        messages, live = await self._pump.backlog(session.ws_id, session.cursor, session.backlog_limit)
        session.take_backlog(map(MessageFrames().of, messages), live=live)

    def _put(self, data: bytes) -> None:
        self._make_sure_it_is_open()
        self._transport.write(data)

    def _make_sure_it_is_open(self) -> None:
        # On a closing transport, asyncio's `write` does nothing, and uvloop's raises an error of another type.
        if self._transport.is_closing():
            raise ConnectionResetError("the connection is closing")

    def _wake_for_receipt(self, now: float) -> None:
        """Be woken for the next receipt Ping, if one has to wait."""
        due_in = self.session.receipt_due_in(now)
        if due_in:
            self._attendant.attend_receipt(self, now + due_in)

    def _report(self) -> None:
        if self.session.reports:
            reports, self.session.reports = self.session.reports, []
            self._report_to_ledger(reports)

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
        return Closure(session.ws_id, session.epoch, CloseCode.LOST, meaning(CloseCode.LOST), ended=False)
