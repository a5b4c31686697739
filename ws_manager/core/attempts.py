"""Attempts: how often a worker has begun a message, for receivers that ask for it (`max_attempts`).

A worker says that it begins a message, and begins only when that is committed. If its process ends before it has
confirmed the message, that was an attempt: a message that kills its worker is set aside after `max_attempts` of them.
The end of a gateway is no attempt, nor is a lost socket: the same process comes back under the same name and
goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Optional

from ws_manager.core.validation import check_name, kept_reason
from ws_manager.errors import Conflict, InvalidInput
from ws_manager.models import MOST_ATTEMPTS, Connection, MessageWorker, PendingMessage, utc_now

if TYPE_CHECKING:
    from ws_manager.repository.store import Store


class Attempt(NamedTuple):
    """An attempt at a message: its number, from 1 on, and whether the message was set aside after it."""

    number: int
    set_aside: bool


def worker_of(name: Optional[str], max_attempts: Optional[int]) -> Optional[MessageWorker]:
    """Return what a receiver says of its process; None if it says nothing.

    Raises:
        InvalidInput: it says one of the two only.
    """
    if (name is None) != (max_attempts is None):
        raise InvalidInput("max_attempts and worker go together", hint="give both, or leave both out")
    return None if name is None or max_attempts is None else MessageWorker(name, max_attempts)


def arrive(store: Store, connection: Connection, worker: Optional[MessageWorker]) -> int:
    """Note which process works on a connection's messages from now on; None for one that does not count attempts.

    The caller has locked the connection. If it is another process than before, what that one had begun counts as an
    attempt.

    Returns:
        How many messages the process before had begun: one of them may have ended it.

    Raises:
        InvalidInput: the worker's name or number cannot be accepted.
    """
    ws_id = connection.ws_id
    before = store.attempts.worker(ws_id)
    if worker is not None:
        check_name(worker.name, "worker")
        if not 1 <= worker.max_attempts <= MOST_ATTEMPTS:
            raise InvalidInput(f"max_attempts is between 1 and {MOST_ATTEMPTS}")
    ended = []
    if before is not None and (worker is None or before[0] != worker.name):
        store.attempts.forget(ws_id)
        ended = store.attempts.running(ws_id)
        for seq, count in ended:
            (message,) = store.messages.pending(ws_id, seq - 1, 1)
            _end(store, message, count, before[1], "the worker ended")
    if worker != before:
        store.attempts.put_worker(ws_id, worker)
    return len(ended)


def begin(store: Store, ws_id: str, epoch: int, seq: int) -> Attempt:
    """Note that a worker begins a message. To say it again is the same attempt.

    Raises:
        InvalidInput: the receiver does not count attempts.
        Conflict: the message is not pending, or the ws_id was registered again.
    """
    with store.atomic():
        most, message = _checked(store, ws_id, epoch, seq)
        ended, running = store.attempts.find(seq)
        if not running:
            store.attempts.forget(ws_id)
            store.attempts.put(ws_id, seq, ended, running=True)
            store.events.insert("started", utc_now(), ws_id, message.msg_id, f"attempt {ended + 1} of {most}")
    return Attempt(ended + 1, set_aside=False)


def fail(store: Store, ws_id: str, epoch: int, seq: int, reason: str) -> Attempt:
    """Note that an attempt has failed; the last one sets the message aside. Errors are those of `begin`."""
    with store.atomic():
        most, message = _checked(store, ws_id, epoch, seq)
        ended, running = store.attempts.find(seq)
        if not running:
            raise Conflict(f"message {seq} was not started", hint="say started before it begins")
        return _end(store, message, ended, most, kept_reason(reason))


def _end(store: Store, message: PendingMessage, ended: int, most: int, reason: str) -> Attempt:
    """Count an attempt, and set the message aside after the last."""
    ws_id, seq, number = message.recipient_id, message.seq, ended + 1
    store.events.insert("failed", utc_now(), ws_id, message.msg_id, f"attempt {number} of {most}: {reason}")
    if number < most:
        store.attempts.put(ws_id, seq, number, running=False)
        return Attempt(number, set_aside=False)
    now = utc_now()
    why = f"attempt {number} of {most} failed: {reason}"
    for msg_id in store.messages.set_aside(ws_id, seq, seq, why, now):
        store.events.insert("set_aside", now, ws_id, msg_id, why)
    store.attempts.forget(ws_id)
    return Attempt(number, set_aside=True)


def check_registration(store: Store, ws_id: str, epoch: int) -> None:
    """Refuse what a receiver says whose registration has ended.

    Raises:
        Conflict: the ws_id was registered again.
    """
    if not store.connections.has_epoch(ws_id, epoch):
        raise Conflict(f"{ws_id} was registered again meanwhile", hint="the present socket gets the messages")


def _checked(store: Store, ws_id: str, epoch: int, seq: int) -> tuple[int, PendingMessage]:
    check_registration(store, ws_id, epoch)
    worker = store.attempts.worker(ws_id)
    if worker is None:
        raise InvalidInput("this receiver does not count attempts", hint="give max_attempts and worker")
    waiting = store.messages.pending(ws_id, seq - 1, 1)
    if not waiting or waiting[0].seq != seq:
        raise Conflict(f"message {seq} is not pending", hint="it is confirmed or set aside already")
    return worker[1], waiting[0]
