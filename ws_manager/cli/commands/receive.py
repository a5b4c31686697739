"""`ws-manager receive`: print a connection's pending messages or work on them, without a gateway."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
import contextlib
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Optional, Protocol

import typer

import ws_manager.cli.work.options as work_options
from ws_manager.cli.errors import not_active
from ws_manager.cli.ledger import ledger_to_write
from ws_manager.cli.options import global_options
from ws_manager.cli.output.messages import message_line, stream_format
from ws_manager.cli.output.text import note, note_to_terminal
from ws_manager.cli.process.stream import Stop, Stream, stopped_by_signals, stopped_by_two_signals
from ws_manager.cli.work.options import check_only, parse_work
from ws_manager.client.worker import new_worker
from ws_manager.core.delivery import Delivery
from ws_manager.core.ledger import Ledger
from ws_manager.errors import GatewayUnavailable, InvalidInput, WsManagerError
from ws_manager.forms import WIRE_FIELDS, wire_form
from ws_manager.models import Connection, PendingMessage
from ws_manager.settings import heartbeat_timeout, parse_duration

_BATCH = 100
_STEP_SECONDS = 0.01
_LOG_SECONDS = 60.0


def receive(
    ctx: typer.Context,
    ws_id: str = typer.Argument(..., metavar="<ws_id>", help="The connection."),
    follow: bool = typer.Option(
        False, "--follow", help="Continue with new messages, and renew the heartbeat, until a signal ends it."
    ),
    count: Optional[int] = typer.Option(
        None, "--count", metavar="N", help="End after N messages; the others stay pending."
    ),
    command: Optional[list[str]] = work_options.COMMAND,
    execute: bool = work_options.EXEC,
    raw: bool = work_options.EXEC_RAW_FORM,
    envelope: bool = work_options.EXEC_ENVELOPE_FORM,
    max_attempts: Optional[int] = work_options.MAX_ATTEMPTS,
    timeout: Optional[str] = work_options.TIMEOUT,
    kill_after: Optional[str] = work_options.KILL_AFTER,
    grace: Optional[str] = work_options.EXEC_GRACE,
    idle_timeout: Optional[str] = work_options.FOLLOW_IDLE_TIMEOUT,
) -> None:
    """Print a connection's pending messages, or work on them.

    The oldest comes first. No gateway is needed. A terminal shows readable lines; elsewhere there is one JSON
    object per line. A message is confirmed once it has been written; with --exec, once the command has done its work.
    """
    work = parse_work(
        "ws-manager receive <ws_id>",
        work_options.RECEIVES,
        execute=execute,
        command=command,
        raw=raw,
        envelope=envelope,
        max_attempts=max_attempts,
        timeout=timeout,
        kill_after=kill_after,
    )
    check_only("--exec", execute, {"--grace": grace})
    check_only("--follow", follow, {"--idle-timeout": idle_timeout})
    form = "" if work is not None else stream_format(global_options(ctx))
    if count is not None and count < 1:
        raise InvalidInput(f"not a number of messages: {count}", hint="give --count 1 or more")
    seconds = heartbeat_timeout() if follow else 0.0
    idle = None if idle_timeout is None else parse_duration(idle_timeout)
    patience = parse_duration("30s" if grace is None else grace)
    if work is not None:
        from ws_manager.cli.work.command import check_command

        check_command(work.command)
    worker = None if work is None else new_worker(work.max_attempts)
    stopping = stopped_by_signals() if work is None else stopped_by_two_signals()
    with ledger_to_write(ctx) as ledger, stopping as stop:
        if ledger.find(ws_id) is None:
            raise not_active(ledger, ws_id)
        with ledger.delivery.holding(ws_id, worker) as connection:
            receiver: _Receiving
            if work is None:
                receiver = _Printer(ledger.delivery, connection, form, stop, count)
            else:
                from ws_manager.cli.work.held import HeldWorker

                receiver = HeldWorker(ledger.delivery, connection, work, stop, patience, count)
            if follow:
                _follow(receiver, ledger, connection, stop, seconds, idle)
            else:
                while receiver.receive():
                    pass
        if stop.signal is not None and not follow:
            stop.end()
    if not receiver.received and not follow:
        note_to_terminal(f"nothing is pending for {ws_id}")


class _Receiving(Protocol):
    """What prints messages, or works on them.

    Attributes:
        received: the number of messages that are done with.
        busy_at: monotonic seconds when it last had something to do.
    """

    received: int
    busy_at: float

    @property
    def has_enough(self) -> bool:
        """Whether as many messages as were asked for are done with."""

    def receive(self) -> bool:
        """Take some of what is pending, and return whether there may be more to do now."""

    def wait(self, seconds: float) -> None:
        """Wait until the end is asked for, at most this many seconds."""


class _Printer:
    """Writes the messages of one connection and confirms them.

    Attributes:
        received: the number of messages that were written.
        busy_at: monotonic seconds when it last had something to write.
    """

    def __init__(
        self, delivery: Delivery, connection: Connection, form: str, stop: Stop, most: Optional[int]
    ) -> None:
        self.received = 0
        self.busy_at = time.monotonic()
        self._delivery = delivery
        self._connection = connection
        self._stop = stop
        self._stream = Stream(stop)
        self._form = form
        self._most = most
        self._cursor = connection.confirmed_seq

    @property
    def has_enough(self) -> bool:
        """Whether the number of messages that was asked for is written."""
        return self.received == self._most

    def receive(self) -> bool:
        """Write and confirm a batch of pending messages, and return whether there may be more to do now."""
        if self._stop.is_set() or self.has_enough:
            return False
        limit = _BATCH if self._most is None else min(_BATCH, self._most - self.received)
        batch = self._delivery.pending_held(self._connection, self._cursor, limit)
        if batch:
            if self._form == "csv" and not self.received:
                self._stream.write(",".join(WIRE_FIELDS) + "\n")
            self._write(batch)
            self.busy_at = time.monotonic()
        return bool(batch)

    def wait(self, seconds: float) -> None:
        """Wait until the end is asked for, at most this many seconds.

        Raises:
            BrokenPipeError: the reader of the output has closed the pipe.
        """
        self._stream.wait(seconds)

    def _write(self, batch: Sequence[PendingMessage]) -> None:
        """Write messages, and confirm those that were written, even if an error ends the writing."""
        written = []
        try:
            for line, seq in _lines(batch, self._form):
                if self._stop.is_set() or not self._stream.write(line):
                    return
                self._cursor = seq
                written.append(seq)
                self.received += 1
        finally:
            if written:
                self._delivery.confirm_held(self._connection, written)


def _lines(batch: Sequence[PendingMessage], form: str) -> Iterable[tuple[str, int]]:
    for message in batch:
        yield message_line(wire_form(message), form) + "\n", message.seq


def _follow(
    receiver: _Receiving,
    ledger: Ledger,
    connection: Connection,
    stop: Stop,
    timeout: float,
    idle: Optional[float],
) -> None:
    """Receive until a signal comes, enough messages are done with, there is nothing to do, or the connection ends.

    Args:
        receiver: prints the messages, or works on them.
        ledger: of the connection.
        connection: the connection; it is held.
        stop: ends it.
        timeout: the heartbeat timeout in seconds; the heartbeat is renewed every third of it.
        idle: seconds with nothing to do, after which it ends; None for never.

    Raises:
        BrokenPipeError: the reader of the output has closed the pipe.
        Conflict: a socket or a command has registered the ws_id again.
        NotFound: the connection was disconnected.
    """
    ws_id, changes = connection.ws_id, ledger.changes()
    if ledger.get(ws_id) is None:
        raise not_active(ledger, ws_id)
    pulse = _HeartbeatThread(ledger, connection, timeout / 3, stop)
    with pulse:
        note(f"Ready: receiving for {ws_id} (agent={connection.agent})")
        more = False
        while not stop.is_set() and not receiver.has_enough:
            if changes.happened() or more:
                more = False
                # A gateway that goes away is waited for; so is one whose restart takes longer than a request waits.
                with contextlib.suppress(GatewayUnavailable):
                    more = receiver.receive()
                    if ledger.get(ws_id) is None:
                        raise not_active(ledger, ws_id)
            if not more:
                if idle is not None and time.monotonic() - receiver.busy_at >= idle:
                    break
                receiver.wait(_STEP_SECONDS)
    if pulse.error is not None:
        raise pulse.error


class _HeartbeatThread:
    """Renews a connection's heartbeat in a thread, so that a slow reader or a long command does not delay it.

    It goes on after a signal, while a command finishes.

    Attributes:
        error: the error that has ended the thread; None for none.
    """

    def __init__(self, ledger: Ledger, connection: Connection, interval: float, stop: Stop) -> None:
        self.error: Optional[WsManagerError] = None
        self._ledger = ledger
        self._connection = connection
        self._interval = interval
        self._stop = stop
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "_HeartbeatThread":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._ledger.again() as ledger:
                self._beat(ledger.delivery)
        except WsManagerError as error:
            self.error = error
            self._stop.set()

    def _beat(self, delivery: Delivery) -> None:
        logged_at = float("-inf")
        while True:
            # Like a gateway, log only some of the heartbeats.
            logged = time.monotonic() - logged_at >= _LOG_SECONDS
            with contextlib.suppress(GatewayUnavailable):
                delivery.heard_held(self._connection, logged=logged)
            logged_at = time.monotonic() if logged else logged_at
            if self._over.wait(min(self._interval, threading.TIMEOUT_MAX)):
                return
