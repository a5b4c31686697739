"""stdout of a command that runs until it is stopped.

The command ends between two writes when a signal comes, and when the reader has closed the pipe.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, Callable, NoReturn, Optional

from ws_manager.cli.exit_codes import TERMINATED
from ws_manager.cli.process.signals import ENDING, end_on_next_signal, not_ignored, twice

LAST_SECONDS = 5.0
"""Seconds in all to wait, after a signal, for a reader that does not read."""

# A pipe that is writable takes this many bytes without blocking (POSIX, `write`).
_PIECE = getattr(select, "PIPE_BUF", 512)
_STEP_SECONDS = 0.05


class Stop:
    """Asks a command to end after its current step. Any thread and any signal handler may set it.

    Attributes:
        signal: the signal that set it; None if it is not set, or was set without a signal.
        urgent: whether the current step is to end too.
    """

    def __init__(self) -> None:
        self.signal: Optional[int] = None
        self.urgent = False
        self._is_set = False
        self._reading, self._writing = os.pipe()

    def set(self, number: Optional[int] = None) -> None:
        """Ask for the end.

        Args:
            number: the signal that was received; None if there was none.
        """
        if not self._is_set:
            self.signal, self._is_set = number, True
            os.write(self._writing, b"\0")

    def is_set(self) -> bool:
        """Return whether the end was asked for."""
        return self._is_set

    def fileno(self) -> int:
        """Return a file descriptor for `poll`; it is readable once the end was asked for."""
        return self._reading

    def wait(self, seconds: float) -> None:
        """Wait until the end is asked for, at most this many seconds."""
        if hasattr(select, "poll"):
            _poll(self._reading, select.POLLIN).poll(_milliseconds(seconds))
            return
        ends = time.monotonic() + seconds
        while not self._is_set and (left := ends - time.monotonic()) > 0:
            # In steps, because Windows cannot poll a pipe.
            time.sleep(min(left, _STEP_SECONDS))

    def end(self) -> NoReturn:
        """End the command as its signal would have.

        Raises:
            KeyboardInterrupt: the signal was SIGINT.
            SystemExit: with exit code 143, otherwise.
        """
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(TERMINATED)

    def close(self) -> None:
        """Close the file descriptors."""
        os.close(self._reading)
        os.close(self._writing)


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """Yield a `Stop` that the first SIGTERM or SIGINT sets; the next one ends the process at once."""
    stop = Stop()
    numbers = not_ignored(ENDING)

    def first(number: int, _frame: Optional[FrameType]) -> None:
        end_on_next_signal(number, numbers)
        stop.set(number)

    with _handled(numbers, first, stop):
        yield stop


@contextlib.contextmanager
def stopped_by_two_signals() -> Iterator[Stop]:
    """Yield a `Stop` that SIGTERM or SIGINT sets, and a second one makes urgent. A third ends the process."""
    stop = Stop()

    def each(number: signal.Signals) -> None:
        stop.urgent = stop.is_set()
        stop.set(number)

    came = twice(each)
    with _handled(not_ignored(ENDING), lambda number, _frame: came(signal.Signals(number)), stop):
        yield stop


@contextlib.contextmanager
def _handled(
    numbers: Sequence[signal.Signals], handler: Callable[[int, Optional[FrameType]], None], stop: Stop
) -> Iterator[None]:
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, earlier in zip(numbers, before):
            signal.signal(number, earlier)
        stop.close()


class Stream:
    """stdout, flushed after each write. A reader that does not read cannot keep a command from ending.

    Args:
        stop: ends the waiting for the reader, after `GRACE_SECONDS`.
        clock: returns monotonic seconds.
    """

    def __init__(self, stop: Stop, clock: Callable[[], float] = time.monotonic) -> None:
        self._stop = stop
        self._clock = clock
        self._ends: Optional[float] = None
        self._descriptor = _descriptor()
        if self._descriptor is not None:
            sys.stdout.flush()
            self._room = _poll(self._descriptor, select.POLLOUT)
            self._room_or_stop = _poll(self._descriptor, select.POLLOUT, stop)
            # A pipe without a reader is an error of the pipe, which `poll` reports without being asked.
            self._gone_or_stop = _poll(self._descriptor, 0, stop)

    @property
    def stopped(self) -> bool:
        """Whether the command is to end."""
        return self._stop.is_set()

    def write(self, text: str) -> bool:
        """Write a text and flush it.

        Returns:
            False if a signal has come and the reader does not read.

        Raises:
            BrokenPipeError: the reader has closed the pipe.
        """
        if self._descriptor is None:
            sys.stdout.write(text)
            sys.stdout.flush()
            return True
        rest = memoryview(text.encode(sys.stdout.encoding, sys.stdout.errors or "strict"))
        while rest:
            if not self._has_room():
                return False
            rest = rest[os.write(self._descriptor, rest[:_PIECE]) :]
        return True

    def wait(self, seconds: Optional[float]) -> None:
        """Wait until the end is asked for.

        Args:
            seconds: the longest wait; None for no limit.

        Raises:
            BrokenPipeError: the reader has closed the pipe.
        """
        if self._descriptor is None:
            while seconds is None and not self._stop.is_set():
                self._stop.wait(_STEP_SECONDS)
            self._stop.wait(seconds or 0)
            return
        ready = self._gone_or_stop.poll(None if seconds is None else _milliseconds(seconds))
        if any(descriptor == self._descriptor for descriptor, _ in ready):
            raise BrokenPipeError

    def put(self, text: str) -> None:
        """Write a text; end the command if a signal has come and the reader does not read.

        Raises:
            BrokenPipeError: the reader has closed the pipe.
            KeyboardInterrupt, SystemExit: as `Stop.end`.
        """
        if not self.write(text):
            self._stop.end()

    def pause(self, seconds: float) -> None:
        """Wait for this many seconds; end the command if a signal comes.

        Raises:
            BrokenPipeError: the reader has closed the pipe.
            KeyboardInterrupt, SystemExit: as `Stop.end`.
        """
        self.wait(seconds)
        if self._stop.is_set():
            self._stop.end()

    def _has_room(self) -> bool:
        """Wait until stdout can be written; return False if it cannot and the command is to end."""
        if self._room.poll(0):
            return True
        if not self._stop.is_set():
            self._room_or_stop.poll()
        if not self._stop.is_set():
            return True
        now = self._clock()
        self._ends = now + LAST_SECONDS if self._ends is None else self._ends
        return bool(self._room.poll(_milliseconds(self._ends - now)))


def _descriptor() -> Optional[int]:
    """Return stdout's file descriptor; None if it has none, or if `poll` cannot watch it."""
    if not hasattr(select, "poll"):
        return None
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return None
    # Some systems cannot poll every device.
    cannot = any(events & select.POLLNVAL for _, events in _poll(descriptor, 0).poll(0))
    return None if cannot else descriptor


def _milliseconds(seconds: float) -> int:
    """Return milliseconds for `poll`, whose limit is a C int: 24 days."""
    return min(max(0, round(seconds * 1000)), 2**31 - 1)


def _poll(descriptor: int, events: int, stop: Optional[Stop] = None) -> Any:  # noqa: ANN401 - `select.poll` is not a type
    poll = select.poll()
    poll.register(descriptor, events)
    if stop is not None:
        poll.register(stop, select.POLLIN)
    return poll
