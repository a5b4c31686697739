"""`ws-manager receive`: take what is pending for a connection, without a gateway."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Optional

import typer

from ws_manager.cli.missing import not_active
from ws_manager.cli.options import global_options, open_registry
from ws_manager.cli.output import MESSAGE_FIELDS, message_line, note, note_to_terminal, stream_format
from ws_manager.cli.signals import next_one_ends
from ws_manager.core.delivery import Delivery
from ws_manager.errors import WsManagerError
from ws_manager.models import Connection, PendingMessage, SignOfLife, utc_now
from ws_manager.repository.database import Database
from ws_manager.settings import heartbeat_timeout
from ws_manager.strict_json import Json

_BATCH = 100
_STEP_SECONDS = 0.01
_LOG_SECONDS = 60.0


def receive(
    ctx: typer.Context,
    ws_id: str = typer.Argument(..., metavar="<ws_id>", help="The connection."),
    follow: bool = typer.Option(
        False, "--follow", help="Go on with what comes, and keep the connection alive, until it is stopped."
    ),
) -> None:
    """Print what is pending for a connection, and confirm it.

    Oldest first, without a gateway: JSON objects, one a line, or readable lines on a terminal. A message is
    confirmed once it has been written.
    """
    form = stream_format(global_options(ctx))
    seconds = heartbeat_timeout() if follow else 0.0
    with open_registry(ctx) as registry:
        delivery = Delivery(registry.db)
        with delivery.holding(ws_id) as connection:
            receiver = _Receiver(delivery, connection, form)
            if follow:
                _follow(receiver, seconds)
            else:
                receiver.receive()
    if not receiver.count and not follow:
        note_to_terminal(f"nothing is pending for {ws_id}")


class _Receiver:
    """Writes the messages of one connection and confirms them.

    Attributes:
        count: how many were written so far.
        stop: set it to end after the batch that is being written.
    """

    def __init__(self, delivery: Delivery, connection: Connection, form: str) -> None:
        self.delivery = delivery
        self.connection = connection
        self.count = 0
        self.stop = threading.Event()
        self._form = form
        self._cursor = connection.confirmed_seq

    def receive(self) -> None:
        """Write what is pending, batch by batch."""
        while not self.stop.is_set():
            # What is pending may have been set aside, or be somebody else's, by now.
            self.delivery.check_held(self.connection)
            batch = self.delivery.pending(self.connection.ws_id, self._cursor, _BATCH)
            if not batch:
                return
            if self._form == "csv" and not self.count:
                sys.stdout.write(",".join(MESSAGE_FIELDS) + "\n")
            self._write(batch)
            self.count += len(batch)

    def _write(self, batch: Sequence[PendingMessage]) -> None:
        """Write messages and confirm those that went out, whatever ends the writing."""
        written = 0
        try:
            for line, seq in _lines(batch, self._form):
                sys.stdout.write(line)
                sys.stdout.flush()
                written = seq
        finally:
            if written:
                self.delivery.confirm_held(self.connection, batch[0].seq, written)
        self._cursor = written


def _lines(batch: Sequence[PendingMessage], form: str) -> Iterable[tuple[str, int]]:
    for message in batch:
        fields = {
            "seq": message.seq,
            "id": message.msg_id,
            "msg_type": message.msg_type,
            "sender": message.sender_id,
            "sent_at": message.sent_at,
            "content": Json(message.content),
        }
        yield message_line(fields, form) + "\n", message.seq


def _follow(receiver: _Receiver, timeout: float) -> None:
    """Go on until a signal comes, or the connection is another's or has ended.

    Raises:
        Conflict: a socket or a command has registered the ws_id again.
        NotFound: it was disconnected.
    """
    registry, connection = receiver.delivery.registry, receiver.connection
    ws_id, version = connection.ws_id, None
    if registry.get(ws_id) is None:
        raise not_active(registry, ws_id)
    pulse = _Pulse(registry.db, connection, timeout / 3, receiver.stop)
    with _stopped_by_signals(receiver.stop), pulse:
        note(f"Ready: receiving for {ws_id} (agent={connection.agent})")
        while not receiver.stop.is_set():
            current = registry.db.data_version()
            if current != version:
                version = current
                receiver.receive()
                if registry.get(ws_id) is None:
                    raise not_active(registry, ws_id)
            receiver.stop.wait(_STEP_SECONDS)
    if pulse.error is not None:
        raise pulse.error


class _Pulse:
    """Renews a connection's heartbeat from a thread: whoever reads the output may take their time.

    Attributes:
        error: what has ended it, None where nothing has.
    """

    def __init__(self, db: Database, connection: Connection, interval: float, stop: threading.Event) -> None:
        self.error: Optional[WsManagerError] = None
        self._path = db.path
        self._connection = connection
        self._interval = interval
        self._stop = stop
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "_Pulse":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        from ws_manager.repository.schema import open_ledger

        try:
            db = open_ledger(self._path, create=False)
            try:
                self._beat(Delivery(db))
            finally:
                db.close()
        except WsManagerError as error:
            self.error = error
            self._stop.set()

    def _beat(self, delivery: Delivery) -> None:
        ws_id, epoch = self._connection.ws_id, self._connection.epoch
        logged_at = float("-inf")
        while True:
            # The log is sampled, as a gateway does it.
            logged = time.monotonic() - logged_at >= _LOG_SECONDS
            delivery.settle([SignOfLife(ws_id, epoch, utc_now(), None, logged)])
            logged_at = time.monotonic() if logged else logged_at
            if self._stop.wait(self._interval):
                return


@contextlib.contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Set `stop` at the first SIGTERM or SIGINT; a second one ends the process at once."""
    numbers = (signal.SIGTERM, signal.SIGINT)

    def first(number: int, _frame: object) -> None:
        stop.set()
        next_one_ends(number, numbers)

    before = [signal.signal(number, first) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)
