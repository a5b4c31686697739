"""One agent's session, the gateway's side: what may be written, and what a receipt confirms. No IO.

The caller offers messages in the order of their ids, writes what `next_write` returns, sends the Pings
that `next_ping` returns right after it, and passes in what it reads. Time is passed in too: monotonic seconds.

Two kinds of receipt:

* by Pong. RFC 6455 section 5.5.3: a peer answers a Ping with its payload, so it has read every frame before it.
  Only the payload of a Ping of this very socket counts.
* by explicit ack, if the agent asked for it at the handshake.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Optional, Union

from ws_manager.errors import InvalidInput
from ws_manager.models import PendingMessage, Receipt, Rejection, SocketReport, Written
from ws_manager.protocol.bucket import Bucket
from ws_manager.protocol.close_codes import MISBEHAVIOUR, WITHOUT_RECEIPTS, CloseCode
from ws_manager.protocol.frames import (
    Ack,
    AgentFrame,
    AgentRequest,
    BadRequest,
    BroadcastRequest,
    Reject,
    SendRequest,
    error_frame,
    failure_frame,
    message_frame,
    parse_agent_frame,
)
from ws_manager.protocol.in_flight import InFlight
from ws_manager.protocol.writings import Writings

WRITE_BYTES = 64 * 1024
QUEUE_BYTES = 32 * 1024
RECEIPT_SECONDS = 0.05
MAX_ANSWERS, MAX_ANSWER_CHARACTERS = 100, 128 * 1024
FRAMES_PER_SECOND = 100
_ENVELOPE = 200
_PINGS_KEPT = 16


@dataclass(frozen=True)
class Window:
    """How much may be unconfirmed at once; one message always may."""

    messages: int = 1000
    bytes: int = 1024 * 1024


@dataclass(frozen=True)
class _Ping:
    seq: int
    sent_at: float


class GatewaySession:
    """The state of one agent's socket.

    Args:
        ws_id: the connection.
        epoch: the registration that this socket made; its receipts carry it.
        confirmed_seq: the highest message id that was confirmed before.
        nonce: text that no other socket has.
        explicit_ack: True if only the agent's own acks confirm.
        heartbeat: seconds between Pings.
        timeout: seconds without a sign of life after which the session ends.
        now: monotonic seconds.
        window: how much may be unconfirmed.
        cautious: True to have one message unconfirmed at a time until the backlog is confirmed, because the agent
            closed its last socket on one that it cannot take.
        receipt_interval: least seconds between two receipt Pings, so that under load one confirms many messages.
        frames_per_second: how many frames that confirm nothing the agent may send; it may save up one second's.

    Attributes:
        cursor: the id up to which this session has taken what is for its connection.
        live: True while it takes messages as they are committed; False while it reads its backlog.
        close_with: code and reason once the session has to end; None before.
        reports: receipts and rejections, in order, for the caller to take and apply.
        requests: what the agent asks to send, in order, for the caller to take and to `answer`.
        latency: the last measured round trip in seconds.
        heard_at: when the peer last showed a sign of life.
    """

    def __init__(
        self,
        *,
        ws_id: str,
        epoch: int,
        confirmed_seq: int,
        nonce: str,
        explicit_ack: bool,
        heartbeat: float,
        timeout: float,
        now: float,
        cautious: bool = False,
        receipt_interval: float = RECEIPT_SECONDS,
        window: Window = Window(),
        frames_per_second: int = FRAMES_PER_SECOND,
    ) -> None:
        self.ws_id = ws_id
        self.epoch = epoch
        self.cursor = confirmed_seq
        self.live = False
        self.close_with: Optional[tuple[int, str]] = None
        self.reports: list[SocketReport] = []
        self.requests: list[AgentRequest] = []
        self.latency: Optional[float] = None
        self.heard_at = now
        self._nonce = nonce
        self._explicit_ack = explicit_ack
        self._heartbeat = heartbeat
        self._timeout = timeout
        self._window = Window(messages=1, bytes=window.bytes) if cautious else window
        self._usual_window = window
        self._receipt_interval = receipt_interval
        self._receipt_at = now
        self._unpinged = 0
        self._queue: deque[tuple[int, str, int]] = deque()
        self._queued = 0
        self._in_flight = InFlight()
        self._bytes = 0
        self._full = False
        self._written = 0
        self._writings = Writings()
        self._answers: list[str] = []
        self._answer_characters = 0
        self._pings: dict[bytes, _Ping] = {}
        self._ping_count = 0
        self._pinged_seq = 0
        self._ping_at = now + heartbeat
        self._ping_due = False
        self._frames = Bucket(frames_per_second, frames_per_second, now)
        self._flooded = False

    @property
    def has_frames(self) -> bool:
        """True if `next_write` has something to return."""
        return bool(self._queue or self._answers)

    @property
    def has_work(self) -> bool:
        """True if there is something to write, to read from the backlog, or to close."""
        return bool(
            self.has_frames
            or self.close_with
            or self._ping_due
            or self.wants_backlog
            or self._wants_receipt()
        )

    # Messages to deliver

    @property
    def unconfirmed(self) -> int:
        """How many messages this session has taken and that are not confirmed."""
        return len(self._queue) + len(self._in_flight)

    @property
    def wants_backlog(self) -> bool:
        """True if the caller should read more of the backlog.

        It is not live, what was read before is written, and half the window is free.
        """
        return (
            not self.live
            and not self._queue
            and not self._full
            and self.close_with is None
            and self.unconfirmed * 2 <= self._window.messages
            and (self._bytes * 2 <= self._window.bytes or not self.unconfirmed)
        )

    @property
    def backlog_limit(self) -> int:
        """How many messages `take_backlog` can take at most; of small ones no more than the queue holds."""
        return max(1, min(self._window.messages - self.unconfirmed, QUEUE_BYTES // _ENVELOPE))

    @property
    def queue_is_full(self) -> bool:
        """True while no more is taken before something is written: the ledger keeps it, not the memory."""
        return self._queued >= QUEUE_BYTES

    def take_live(self, message: PendingMessage) -> bool:
        """Take a message that was just committed; False, and back to the backlog, if window or queue is full.

        Only while live. One that the backlog has brought already is left out.
        """
        if message.seq <= self.cursor:
            return True
        self.live = self._take(message)
        return self.live

    def take_backlog(self, messages: list[PendingMessage], reached: int, position: int) -> None:
        """Take what was read of the backlog above `cursor`.

        Args:
            messages: in order.
            reached: the id up to which the reading leaves nothing out.
            position: the id up to which committed messages were offered to live sessions. The session
                goes live only if it has come that far: otherwise what was committed between would be lost.
        """
        for message in messages:
            if not self._take(message):
                # The window's fault: a large one, for which half of it is not enough. Reading again would not help.
                self._full = not self.queue_is_full
                return
        self.cursor = max(self.cursor, reached)
        self.live = self.cursor >= position

    def _take(self, message: PendingMessage) -> bool:
        if self.queue_is_full:
            return False
        frame = message_frame(message)
        size = len(frame) if frame.isascii() else len(frame.encode("utf-8"))
        load = self.unconfirmed
        if load and (load >= self._window.messages or self._bytes + size > self._window.bytes):
            return False
        self._queue.append((message.seq, frame, size))
        self._queued += size
        self._bytes += size
        self.cursor = message.seq
        return True

    # To write

    def next_write(self, at: Optional[str] = None) -> list[str]:
        """Return the frames to write now, at most 64 KiB (but one message at least); empty for nothing.

        What is returned counts as written, at the time `at` (UTC text, for the ledger).
        """
        frames, self._answers, self._answer_characters = self._answers, [], 0
        first, size = self._queue[0][0] if self._queue else 0, 0
        while self._queue and (not size or size + self._queue[0][2] <= WRITE_BYTES):
            seq, frame, length = self._queue.popleft()
            self._in_flight.append(seq, length)
            self._written = seq
            size += length
            frames.append(frame)
        self._queued -= size
        self._unpinged += size
        if size:
            self._writings.add(first, self._written, at)
        return frames

    def unreported_writes(self) -> list[Written]:
        """Return what was written, is not confirmed, and was not returned here before."""
        return [
            Written(self.ws_id, self.epoch, writing.first, writing.last, writing.at or "")
            for writing in self._writings.take_unreported()
        ]

    def next_ping(self, now: float) -> Optional[bytes]:
        """Return the payload of a Ping to send now, or None.

        A receipt Ping goes out as soon as something was written, and the next only after its answer, and not
        before the interval is over or 64 KiB more were written; a heartbeat Ping when it is due. Each says how
        far the writing had come.
        """
        if not self._ping_due and self.receipt_due_in(now) != 0:
            return None
        return self._new_ping(now)

    def last_ping(self, now: float) -> Optional[bytes]:
        """Return the payload of a Ping to send right before the close frame.

        None where it would confirm nothing: nothing is unconfirmed, a Ping that covers it is under way, or
        receipts do not count any more.
        """
        if self._explicit_ack or not self._in_flight or not self.takes_receipts:
            return None
        return None if self._pings and self._pinged_seq >= self._written else self._new_ping(now)

    def _new_ping(self, now: float) -> bytes:
        self._ping_due = False
        self._receipt_at = now + self._receipt_interval
        self._unpinged = 0
        self._ping_at = now + self._heartbeat
        self._ping_count += 1
        self._pinged_seq = self._written
        payload = f"{self._nonce}.{self._ping_count}.{self._written}".encode("ascii")
        self._pings[payload] = _Ping(self._written, now)
        if len(self._pings) > _PINGS_KEPT:
            del self._pings[next(iter(self._pings))]
        return payload

    def receipt_due_in(self, now: float) -> Optional[float]:
        """Return the seconds until the next receipt Ping may go out; None if none is wanted."""
        if not self._wants_receipt():
            return None
        return 0 if self._unpinged >= WRITE_BYTES else max(0, self._receipt_at - now)

    def _wants_receipt(self) -> bool:
        """Something was written after the last Ping, and no Ping that confirms something is unanswered."""
        if self._explicit_ack or self._written <= self._pinged_seq:
            return False
        return not self._pings or self._pinged_seq < self._in_flight.first

    # What was read

    def pong(self, payload: bytes, now: float) -> None:
        """Take a Pong. Any Pong is a sign of life; one of our Pings' payloads confirms what went before it."""
        self.heard_at = now
        ping = self._pings.get(payload)
        if ping is None:
            self._count_frame(now)
            return
        self.latency = now - ping.sent_at
        # An answer to a later Ping answers the earlier ones too: some peers answer only the last.
        for earlier in list(self._pings):
            del self._pings[earlier]
            if earlier == payload:
                break
        if not self._explicit_ack and self.takes_receipts:
            self._confirm(ping.seq)

    def text(self, text: str, now: float) -> None:
        """Take a text frame. Once the session has ended, only what confirms a message may still count."""
        self.heard_at = now
        if not self.takes_receipts:
            self._count_frame(now)
            return
        try:
            frame = parse_agent_frame(text)
        except InvalidInput as error:
            self.close(CloseCode.NOT_THIS_PROTOCOL, error.message)
            self._count_frame(now)
            return
        if self._explicit_ack and isinstance(frame, (Ack, Reject)) and self._is_in_flight(frame):
            # There are no more of these than messages, so they are not counted.
            self._settle(frame)
            return
        self._count_frame(now)
        if self.close_with is None:
            self._take_frame(frame)

    def _take_frame(self, frame: AgentFrame) -> None:
        if isinstance(frame, (SendRequest, BroadcastRequest)):
            self.requests.append(frame)
        elif isinstance(frame, BadRequest):
            self.answer(failure_frame(frame.ref, "invalid", frame.reason))
        elif not self._explicit_ack:
            self._answer_conflict("this socket confirms by Pong; ask for ack=explicit")
        elif isinstance(frame, Reject):
            self._answer_conflict(f"message {frame.seq} is not in flight")

    def answer(self, frame: str) -> None:
        """Take a frame that answers the agent. One that asks, and does not read the answers, is closed."""
        self._answers.append(frame)
        self._answer_characters += len(frame)
        if len(self._answers) > MAX_ANSWERS or self._answer_characters > MAX_ANSWER_CHARACTERS:
            self.close(CloseCode.TOO_FAST, "too many unread answers")

    @property
    def only_in_flight(self) -> Optional[int]:
        """The number of the only message that is written and not confirmed; None if there are none or more."""
        return self._in_flight.first if len(self._in_flight) == 1 else None

    def ping(self, now: float) -> None:
        """Take a Ping of the peer's own; the caller answers it."""
        self.heard_at = now
        self._count_frame(now)

    @property
    def takes_receipts(self) -> bool:
        """True while a receipt counts: also after our close frame, until the peer's, where its code allows it."""
        return self.close_with is None or self.close_with[0] not in WITHOUT_RECEIPTS

    @property
    def reads_no_more(self) -> bool:
        """True once the peer has done what it should not: a flood costs as much after a close frame as before it."""
        return self._flooded or (self.close_with is not None and self.close_with[0] in MISBEHAVIOUR)

    def tick(self, now: float) -> bool:
        """Let time pass; True if there is something to write or to close now."""
        if now - self.heard_at > self._timeout:
            self.close(CloseCode.TOO_SLOW, "heartbeat timeout")
            return True
        if now >= self._ping_at:
            self._ping_due = True
        return self._ping_due

    def close(self, code: int, reason: str) -> None:
        """End the session; the first reason stays."""
        if self.close_with is None:
            self.close_with = (int(code), reason)

    def _is_in_flight(self, frame: Union[Ack, Reject]) -> bool:
        """Say whether a frame confirms or rejects something."""
        if isinstance(frame, Reject):
            return frame.seq in self._in_flight
        return len(self._in_flight) > 0 and self._in_flight.first <= frame.seq

    def _settle(self, frame: Union[Ack, Reject]) -> None:
        if isinstance(frame, Ack):
            self._confirm(frame.seq)
        else:
            self._reject(frame.seq, frame.reason)

    def _count_frame(self, now: float) -> None:
        if not self._frames.take(1, now):
            self._flooded = True
            self.close(CloseCode.TOO_FAST, "too many frames a second")

    def _confirm(self, seq: int) -> None:
        if not self._in_flight or self._in_flight.first > seq:
            return
        confirmed, size = self._in_flight.take_through(seq)
        self._bytes -= size
        self._full = False
        if self.live and not self._queue and not self._in_flight:
            self._window = self._usual_window
        for writing in self._writings.take_through(confirmed):
            self.reports.append(Receipt(self.ws_id, self.epoch, writing.first, writing.last, writing.at))

    def _reject(self, seq: int, reason: str) -> None:
        self._bytes -= self._in_flight.remove(seq)
        self._full = False
        self._writings.drop_before(self._in_flight.first if self._in_flight else None)
        self.reports.append(Rejection(self.ws_id, self.epoch, seq, reason))

    def _answer_conflict(self, message: str) -> None:
        self.answer(error_frame("conflict", message))
