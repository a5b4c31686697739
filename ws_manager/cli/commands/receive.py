"""`ws-manager receive`: print a connection's pending messages, without a gateway."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
import contextlib
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Optional

import typer

from ws_manager.cli.errors import not_active
from ws_manager.cli.ledger import ledger_to_write
from ws_manager.cli.options import global_options
from ws_manager.cli.output.messages import message_line, stream_format
from ws_manager.cli.output.text import note, note_to_terminal
from ws_manager.cli.process.stream import Stop, Stream, stopped_by_signals
from ws_manager.core.delivery import Delivery
from ws_manager.core.ledger import Ledger
from ws_manager.errors import GatewayUnavailable, InvalidInput, WsManagerError
from ws_manager.forms import WIRE_FIELDS, wire_form
from ws_manager.models import Connection, PendingMessage
from ws_manager.settings import heartbeat_timeout

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
) -> None:
    """Print the pending messages of a connection, and confirm them.

    The oldest comes first. No gateway is needed. A terminal shows readable lines; elsewhere there is one JSON
    object per line. A message is confirmed once it has been written.
    """
    form = stream_format(global_options(ctx))
    if count is not None and count < 1:
        raise InvalidInput(f"not a number of messages: {count}", hint="give --count 1 or more")
    seconds = heartbeat_timeout() if follow else 0.0
    with ledger_to_write(ctx) as ledger, stopped_by_signals() as stop:
        if ledger.find(ws_id) is None:
            raise not_active(ledger, ws_id)
        with ledger.delivery.holding(ws_id) as connection:
            receiver = _Receiver(ledger, connection, form, stop, count)
            if follow:
                _follow(receiver, seconds)
            else:
                receiver.receive()
        if stop.signal is not None and not follow:
            stop.end()
    if not receiver.received and not follow:
        note_to_terminal(f"nothing is pending for {ws_id}")


class _Receiver:
    """Writes the messages of one connection and confirms them.

    Attributes:
        received: the number of messages that were written.
        stop: ends the receiving after the current message.
        stream: stdout.
    """

    def __init__(
        self, ledger: Ledger, connection: Connection, form: str, stop: Stop, most: Optional[int]
    ) -> None:
        self.ledger = ledger
        self.connection = connection
        self.received = 0
        self.stop = stop
        self.stream = Stream(stop)
        self._form = form
        self._most = most
        self._cursor = connection.confirmed_seq

    @property
    def has_enough(self) -> bool:
        """Whether the number of messages that was asked for is written."""
        return self.received == self._most

    def receive(self) -> None:
        """Write and confirm the pending messages, in batches."""
        while not self.stop.is_set() and not self.has_enough:
            limit = _BATCH if self._most is None else min(_BATCH, self._most - self.received)
            batch = self.ledger.delivery.pending_held(self.connection, self._cursor, limit)
            if not batch:
                return
            if self._form == "csv" and not self.received:
                self.stream.write(",".join(WIRE_FIELDS) + "\n")
            self._write(batch)

    def _write(self, batch: Sequence[PendingMessage]) -> None:
        """Write messages, and confirm those that were written, even if an error ends the writing."""
        written = []
        try:
            for line, seq in _lines(batch, self._form):
                if self.stop.is_set() or not self.stream.write(line):
                    return
                self._cursor = seq
                written.append(seq)
                self.received += 1
        finally:
            if written:
                self.ledger.delivery.confirm_held(self.connection, written)


def _lines(batch: Sequence[PendingMessage], form: str) -> Iterable[tuple[str, int]]:
    for message in batch:
        yield message_line(wire_form(message), form) + "\n", message.seq


def _follow(receiver: _Receiver, timeout: float) -> None:
    """Receive until a signal comes, enough messages are written, or the connection ends.

    Args:
        receiver: writes and confirms the messages.
        timeout: the heartbeat timeout in seconds; the heartbeat is renewed every third of it.

    Raises:
        BrokenPipeError: the reader of the output has closed the pipe.
        Conflict: a socket or a command has registered the ws_id again.
        NotFound: the connection was disconnected.
    """
    ledger, connection = receiver.ledger, receiver.connection
    ws_id, changes = connection.ws_id, ledger.changes()
    if ledger.get(ws_id) is None:
        raise not_active(ledger, ws_id)
    pulse = _HeartbeatThread(ledger, connection, timeout / 3, receiver.stop)
    with pulse:
        note(f"Ready: receiving for {ws_id} (agent={connection.agent})")
        while not receiver.stop.is_set() and not receiver.has_enough:
            if changes.happened():
                # A gateway that goes away is waited for; so is one whose restart takes longer than a request waits.
                with contextlib.suppress(GatewayUnavailable):
                    receiver.receive()
                    if ledger.get(ws_id) is None:
                        raise not_active(ledger, ws_id)
            receiver.stream.wait(_STEP_SECONDS)
    if pulse.error is not None:
        raise pulse.error


class _HeartbeatThread:
    """Renews a connection's heartbeat in a thread, so that a slow reader of the output does not delay it.

    Attributes:
        error: the error that has ended the thread; None for none.
    """

    def __init__(self, ledger: Ledger, connection: Connection, interval: float, stop: Stop) -> None:
        self.error: Optional[WsManagerError] = None
        self._ledger = ledger
        self._connection = connection
        self._interval = interval
        self._stop = stop
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "_HeartbeatThread":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
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
            self._stop.wait(self._interval)
            if self._stop.is_set():
                return
