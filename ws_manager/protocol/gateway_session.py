"""The gateway's side of a session: what may be written, and what a receipt confirms. No IO.

The caller offers messages in the order of their seqs, writes what `next_write` returns, sends the Ping that
`next_ping` returns right after it, and passes in what it reads. It also passes the time in, in monotonic seconds.

Two kinds of receipt:

* by Pong: a peer answers a Ping with its payload (RFC 6455 section 5.5.3), so it has read every frame before the
  Ping. A Pong counts only if its payload is that of a Ping of this socket.
* by explicit ack, if the agent asked for it in the handshake.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Optional

from ws_manager.errors import InvalidInput
from ws_manager.models import Receipt, Rejection, Settled, SocketReport, Written
from ws_manager.protocol.ask_frames import ReplyRequest
from ws_manager.protocol.attempt_frames import Failed, Started
from ws_manager.protocol.bucket import Bucket
from ws_manager.protocol.close_codes import MISBEHAVIOUR, WITHOUT_RECEIPTS, CloseCode
from ws_manager.protocol.frames import (
    Ack,
    AgentFrame,
    AgentRequest,
    BadRequest,
    Reject,
    error_frame,
    failure_frame,
    parse_agent_frame,
)
from ws_manager.protocol.in_flight import USUAL, InFlight, Window
from ws_manager.protocol.message_frames import Framed
from ws_manager.protocol.pings import Pings
from ws_manager.protocol.wire import ping_frame, text_frame
from ws_manager.protocol.writings import Writings

WRITE_BYTES = 64 * 1024
QUEUE_BYTES = 32 * 1024
RECEIPT_SECONDS = 0.05
MAX_ANSWERS, MAX_ANSWER_BYTES = 100, 128 * 1024
FRAMES_PER_SECOND = 100
_ENVELOPE = 200


class GatewaySession:
    """The state of one agent's socket.

    Args:
        ws_id: the connection.
        epoch: the number of this socket's registration; its reports carry it.
        confirmed_seq: the highest seq that was confirmed before.
        nonce: random bytes that are unique to this socket; see `Pings`.
        explicit_ack: True if only the agent's acks confirm messages.
        heartbeat: seconds between Pings.
        timeout: seconds without a sign of life after which the session ends.
        now: monotonic seconds.
        window: how much may be unconfirmed.
        cautious: True allows one unconfirmed message at a time until the backlog is confirmed, because the agent
            closed its last socket to refuse a message.
        receipt_interval: least seconds between two receipt Pings, so that under load one Ping confirms many messages.
        frames_per_second: the rate of frames that confirm nothing; the unused frames of one second are kept.

    Attributes:
        cursor: the session has taken every message of its connection up to this seq.
        live: True while it takes messages when they are committed; False while it reads its backlog.
        close_with: code and reason once the session has to close; None before.
        reports: receipts and rejections, in order. The caller takes them and reports them to the ledger.
        requests: the agent's requests, in order. The caller takes them, performs them, and calls `answer`.
        latency: the last measured round trip in seconds.
        heard_at: when the last frame of the peer was received.
    """

    # fmt: off
    __slots__ = (
        "_answer_bytes", "_answers", "_bytes", "_explicit_ack", "_flooded", "_frames", "_full",
        "_heartbeat", "_in_flight", "_ping_at", "_ping_due", "_pings", "_queue", "_queued", "_receipt_at",
        "_receipt_interval", "_timeout", "_unpinged", "_usual_window", "_window", "_writings", "_written",
        "close_with", "cursor", "epoch", "heard_at", "latency", "live", "reports", "requests", "ws_id",
    )
    # fmt: on

    def __init__(
        self,
        *,
        ws_id: str,
        epoch: int,
        confirmed_seq: int,
        nonce: bytes,
        explicit_ack: bool,
        heartbeat: float,
        timeout: float,
        now: float,
        cautious: bool = False,
        receipt_interval: float = RECEIPT_SECONDS,
        window: Window = USUAL,
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
        self._pings = Pings(nonce)
        self._explicit_ack = explicit_ack
        self._heartbeat = heartbeat
        self._timeout = timeout
        self._window = Window(messages=1, bytes=window.bytes) if cautious else window
        self._usual_window = window
        self._receipt_interval = receipt_interval
        self._receipt_at = now
        self._queue: list[Framed] = []
        self._in_flight = InFlight()
        self._bytes = self._queued = self._unpinged = self._written = 0
        self._writings = Writings()
        self._answers: list[bytes] = []
        self._answer_bytes = 0
        self._ping_at = now + heartbeat
        self._frames = Bucket(frames_per_second, frames_per_second, now)
        self._flooded = self._full = self._ping_due = False

    @property
    def has_frames(self) -> bool:
        """True if `next_write` has something to return."""
        return bool(self._queue or self._answers)

    @property
    def has_work(self) -> bool:
        """True if there is something to write, to read from the backlog, or to close."""
        waits = self.has_frames or self._ping_due or self.wants_backlog or self._wants_receipt()
        return waits or self.close_with is not None

    # Messages to deliver

    @property
    def unconfirmed(self) -> int:
        """The number of messages that this session has taken and that are not confirmed."""
        return len(self._queue) + len(self._in_flight)

    @property
    def wants_backlog(self) -> bool:
        """True if the caller should read more of the backlog.

        That is if the session is not live, what was read before is written, and half of the window is free.
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
        """The most messages that `take_backlog` can take; at most as many small ones as fit into the queue."""
        return max(1, min(self._window.messages - self.unconfirmed, QUEUE_BYTES // _ENVELOPE))

    @property
    def queue_is_full(self) -> bool:
        """True while no message is taken before something is written. More wait in the ledger, not in memory."""
        return self._queued >= QUEUE_BYTES

    def take_at_once(self, messages: list[Framed], at: str, now: float) -> Optional[bytes]:
        """Take messages that were just committed, and return all that is to be written at once, with its Ping.

        This is the fast path of a live session that has nothing queued. Return None and take nothing if another
        frame waits, if a message came with the backlog already, or if the messages exceed the window or one write.
        Then call `take_live` for each.

        Args:
            messages: at least one, in order. They count as written with this call.
            at: the present time as UTC text.
            now: the present time in monotonic seconds.
        """
        frames = [frame for _, frame in messages]
        size = sum(map(len, frames))
        if (
            self._queue
            or self._answers
            or self.close_with is not None
            or messages[0][0] <= self.cursor
            or size > WRITE_BYTES
            or self._bytes + size > self._window.bytes
            or len(self._in_flight) + len(frames) > self._window.messages
        ):
            return None
        for seq, frame in messages:
            self._in_flight.append(seq, len(frame))
        self.cursor = self._written = messages[-1][0]
        self._bytes += size
        self._unpinged += size
        self._writings.add(messages[0][0], self._written, at, now)
        ping = self.next_ping(now)
        if ping is not None:
            frames.append(ping_frame(ping))
        return b"".join(frames)

    def take_live(self, message: Framed) -> bool:
        """Take a message that was just committed. If the window or the queue is full, return False and leave live.

        Call it only while live. A message that came with the backlog already is skipped.
        """
        if message[0] <= self.cursor:
            return True
        self.live = self._take(message)
        return self.live

    def take_backlog(self, messages: Iterable[Framed], *, live: bool) -> None:
        """Take messages of the backlog above `cursor`.

        Args:
            messages: the messages, in order.
            live: whether the session goes live with them: they are all, and every later message will be offered.
        """
        for message in messages:
            if not self._take(message):
                # If the window is the reason, the message exceeds its free half, and reading again would not help.
                self._full = not self.queue_is_full
                return
        self.live = live
        self._end_caution()

    def _take(self, message: Framed) -> bool:
        if self.queue_is_full:
            return False
        seq, frame = message
        size, load = len(frame), self.unconfirmed
        if load and (load >= self._window.messages or self._bytes + size > self._window.bytes):
            return False
        self._queue.append(message)
        self._queued += size
        self._bytes += size
        self.cursor = seq
        return True

    # To write

    def next_write(self, at: Optional[str], now: float) -> list[bytes]:
        """Return the frames to write now: at most 64 KiB of messages, but at least one message if there is any.

        They count as written at the time `at` (UTC text), which is `now` in monotonic seconds.
        """
        frames, self._answers, self._answer_bytes = self._answers, [], 0
        size = taken = 0
        for seq, frame in self._queue:
            if size and size + len(frame) > WRITE_BYTES:
                break
            self._in_flight.append(seq, len(frame))
            frames.append(frame)
            size += len(frame)
            taken += 1
        if taken:
            first, self._written = self._queue[0][0], self._queue[taken - 1][0]
            self._writings.add(first, self._written, at, now)
            del self._queue[:taken]
            self._queued -= size
            self._unpinged += size
        return frames

    def unreported_writes(self) -> list[Written]:
        """Return the writes that are not confirmed and were not returned before."""
        found = self._writings.take_unreported()
        return [Written(self.ws_id, self.epoch, each.first, each.last, each.at or "") for each in found]

    def next_ping(self, now: float) -> Optional[bytes]:
        """Return the payload of a Ping to send now, or None: the nonce and the count of the Ping, 12 bytes.

        A receipt Ping is sent after something was written. The next one is sent after its answer, and after the
        interval or 64 KiB of messages, whichever comes first. A heartbeat Ping is sent when it is due.
        """
        if not self._ping_due and self.receipt_due_in(now) != 0:
            return None
        return self._new_ping(now)

    def last_ping(self, now: float) -> Optional[bytes]:
        """Return the payload of a Ping to send right before the Close frame.

        None if it would confirm nothing: everything is confirmed, an unanswered Ping covers it already, or receipts
        no longer count.
        """
        if self._explicit_ack or not self._in_flight or not self.takes_receipts:
            return None
        return None if self._pings and self._pings.seq >= self._written else self._new_ping(now)

    def _new_ping(self, now: float) -> bytes:
        self._ping_due = False
        self._receipt_at = now + self._receipt_interval
        self._unpinged = 0
        self._ping_at = now + self._heartbeat
        return self._pings.new(self._written, now)

    def receipt_due_in(self, now: float) -> Optional[float]:
        """Return the seconds until the next receipt Ping may be sent; None if none is wanted."""
        if not self._wants_receipt():
            return None
        return 0 if self._unpinged >= WRITE_BYTES else max(0, self._receipt_at - now)

    def _wants_receipt(self) -> bool:
        """Return whether something was written after the last Ping, and no receipt Ping is unanswered."""
        if self._explicit_ack or self._written <= self._pings.seq:
            return False
        return not self._pings or self._pings.seq < self._in_flight.first

    # What was read

    def pong(self, payload: bytes, now: float) -> None:
        """Take a Pong: a sign of life. With the payload of a Ping it confirms what was written before that Ping."""
        self.heard_at = now
        answered = self._pings.answered(payload)
        if answered is None:
            self._count_frame(now)
            return
        seq, sent_at = answered
        self.latency = now - sent_at
        if not self._explicit_ack and self.takes_receipts:
            self._confirm(seq, now)

    def text(self, text: str, now: float) -> None:
        """Take a text frame. Once the session is closing, only an ack or a rejection may still count."""
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
        # What tells of messages in flight is not counted: there is at most as much as messages.
        if self._explicit_ack and isinstance(frame, Ack) and self._in_flight.reaches(frame.seq):
            self._confirm(frame.seq, now)
            return
        if self._explicit_ack and isinstance(frame, Reject) and frame.seq in self._in_flight:
            self._take_out(frame.seq)
            self.reports.append(Rejection(self.ws_id, self.epoch, frame.seq, frame.reason))
            return
        if not self._tells_of_work(frame):
            self._count_frame(now)
        if self.close_with is None:
            self._take_frame(frame)

    def _take_frame(self, frame: AgentFrame) -> None:
        if isinstance(frame, BadRequest):
            self.answer(failure_frame(frame.ref, "invalid", frame.reason))
        elif not isinstance(frame, (Ack, Reject)):
            self.requests.append(frame)
        elif not self._explicit_ack:
            self.answer(error_frame("conflict", "this socket confirms by Pong; ask for ack=explicit"))
        elif isinstance(frame, Reject):
            self.answer(error_frame("conflict", f"message {frame.seq} is not in flight"))

    def answer(self, frame: str) -> None:
        """Queue an answer for the agent. The session closes if the agent does not read its answers."""
        self._answers.append(text_frame(frame.encode()))
        self._answer_bytes += len(frame)
        if len(self._answers) > MAX_ANSWERS or self._answer_bytes > MAX_ANSWER_BYTES:
            self.close(CloseCode.TOO_FAST, "too many unread answers")

    def settled(self, seq: int, *, confirmed: bool) -> None:
        """Note that a request has settled a message: its answer has confirmed it, or its last attempt has failed."""
        if seq in self._in_flight:
            self.reports.append(Settled(self.ws_id, self.epoch, seq, self._take_out(seq), confirmed))
            self._end_caution()

    @property
    def only_in_flight(self) -> Optional[int]:
        """The seq of the only message in flight; None if there is none or more than one."""
        return self._in_flight.first if len(self._in_flight) == 1 else None

    def ping(self, now: float) -> None:
        """Take a Ping from the peer. The caller answers it."""
        self.heard_at = now
        self._count_frame(now)

    @property
    def takes_receipts(self) -> bool:
        """True while a receipt counts. After some close codes it counts until the peer's Close frame."""
        return self.close_with is None or self.close_with[0] not in WITHOUT_RECEIPTS

    @property
    def reads_no_more(self) -> bool:
        """True once the peer has broken a rule: a flood costs as much after a Close frame as before it."""
        return self._flooded or (self.close_with is not None and self.close_with[0] in MISBEHAVIOUR)

    @property
    def tick_at(self) -> float:
        """When `tick` has something to do, in monotonic seconds."""
        return min(self._ping_at, self.heard_at + self._timeout)

    def tick(self, now: float) -> bool:
        """Check the heartbeats. Return True if there is something to write or to close now."""
        if now - self.heard_at > self._timeout:
            self.close(CloseCode.TOO_SLOW, "heartbeat timeout")
            return True
        self._ping_due = self._ping_due or now >= self._ping_at
        return self._ping_due

    def close(self, code: int, reason: str) -> None:
        """Begin to close the session. If it is closing already, the first code is kept."""
        if self.close_with is None:
            self.close_with = (int(code), reason)

    def _tells_of_work(self, frame: AgentFrame) -> bool:
        """Return whether a frame says something new of a message in flight."""
        if isinstance(frame, Started):
            return self._in_flight.begin(frame.seq)
        if isinstance(frame, ReplyRequest):
            return self._in_flight.reply(frame.seq)
        return isinstance(frame, Failed) and self._in_flight.end(frame.seq)

    def _count_frame(self, now: float) -> None:
        if not self._frames.take(1, now):
            self._flooded = True
            self.close(CloseCode.TOO_FAST, "too many frames a second")

    def _confirm(self, seq: int, now: float) -> None:
        if not self._in_flight or self._in_flight.first > seq:
            return
        confirmed, size = self._in_flight.take_through(seq)
        self._bytes -= size
        self._full = False
        self._end_caution()
        seconds = self._writings.take_seconds(now) if self._writings.timed <= confirmed[-1] else None
        for writing in self._writings.take_through(confirmed[-1]):
            end = bisect_right(confirmed, writing.last)
            seqs, confirmed = confirmed[:end], confirmed[end:]
            if seqs:  # All that was written then may have been rejected.
                self.reports.append(Receipt(self.ws_id, self.epoch, seqs, writing.at, seconds))
                seconds = None

    def _end_caution(self) -> None:
        """Use the usual window once the backlog is confirmed."""
        if self.live and not self._queue and not self._in_flight:
            self._window = self._usual_window

    def _take_out(self, seq: int) -> Optional[str]:
        """Remove one message in flight, whatever becomes of those before it; return when it was written."""
        self._bytes -= self._in_flight.remove(seq)
        self._full = False
        return self._writings.take_out(seq, self._in_flight.first if self._in_flight else None)
