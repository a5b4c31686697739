"""Signals that end a command.

A signal that is ignored when the command starts stays ignored. `nohup` ignores SIGHUP, and a POSIX shell ignores
SIGINT for the background jobs of a script.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import Any, Callable, Optional

_SAME_SECONDS = 0.3
"""Seconds within which a repeated signal is a duplicate: sent to the process group, and forwarded by our parent."""

ENDING = (signal.SIGTERM, signal.SIGINT)
"""The signals that ask a command to end."""


def not_ignored(numbers: Iterable[int]) -> list[signal.Signals]:
    """Return the signals among these that this process does not ignore."""
    return [signal.Signals(number) for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def handle(number: int, handler: Callable[[int, Optional[FrameType]], Any]) -> None:
    """Let a signal call `handler`, unless this process ignores it."""
    for known in not_ignored([number]):
        signal.signal(known, handler)


def stop_on_signals(
    stop: Callable[[signal.Signals], object], numbers: Sequence[signal.Signals] = ENDING
) -> None:
    """Call `stop` in the running event loop at the first of these signals; the next one ends the process at once."""
    import asyncio

    loop = asyncio.get_running_loop()
    arrived: list[signal.Signals] = []
    numbers = not_ignored(numbers)

    def first(number: signal.Signals) -> None:
        if not arrived:
            arrived.append(number)
            # The loop's own handler is not removed: it still calls this function, which ignores further
            # signals.
            end_on_next_signal(number, numbers)
            stop(number)

    for number in numbers:
        try:
            loop.add_signal_handler(number, first, number)
        except NotImplementedError:
            signal.signal(
                number, lambda number, _frame: loop.call_soon_threadsafe(first, signal.Signals(number))
            )


def call_on_signals(
    each: Callable[[signal.Signals], object], numbers: Sequence[signal.Signals] = ENDING
) -> None:
    """Call `each` in the running event loop at the first and at the second of these signals, on POSIX.

    The third ends the process at once. Duplicates do not count: see `end_on_next_signal`.
    """
    import asyncio

    loop, came = asyncio.get_running_loop(), twice(each)
    for number in not_ignored(numbers):
        loop.add_signal_handler(number, came, number)


def twice(each: Callable[[signal.Signals], object]) -> Callable[[signal.Signals], None]:
    """Return what is to be called at every signal: it calls `each` at the first two, and the third ends the process.

    Duplicates do not count: see `end_on_next_signal`.
    """
    arrived: list[float] = []

    def came(number: signal.Signals) -> None:
        if arrived and time.monotonic() - arrived[-1] < _SAME_SECONDS:
            return
        arrived.append(time.monotonic())
        if len(arrived) > 2:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        each(number)

    return came


def end_on_next_signal(arrived: int, numbers: Iterable[int]) -> None:
    """Let the next of these signals end the process, unless it is a duplicate of the one that has arrived.

    A parent that forwards its signals, such as npm, is usually in our process group. A signal to the group then
    reaches us twice.

    Args:
        arrived: the signal that has arrived.
        numbers: the signals that end the process.
    """
    since = time.monotonic()

    def again(number: int, _frame: Optional[FrameType]) -> None:
        if time.monotonic() - since >= _SAME_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in not_ignored(numbers):
        signal.signal(number, again if number == arrived else signal.SIG_DFL)
