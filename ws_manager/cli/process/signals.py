"""Signals that end a command which runs until it is told to stop.

A signal that is ignored when the command starts stays ignored, as POSIX shells and `nohup` mean it: a script's
background job has SIGINT ignored, and Ctrl-C is not for it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import Any, Callable, Optional

_SAME_SECONDS = 0.3
"""Within so long the same signal is the same request: it reached the process group, and a parent handed it on."""

ENDING = (signal.SIGTERM, signal.SIGINT)
"""The signals that ask a command to end."""


def heeded(numbers: Iterable[int]) -> list[signal.Signals]:
    """Return those signals that this process does not ignore."""
    return [signal.Signals(number) for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def handle(number: int, handler: Callable[[int, Optional[FrameType]], Any]) -> None:
    """Let a signal call `handler`, unless this process ignores it."""
    for known in heeded([number]):
        signal.signal(known, handler)


def stop_on_signals(
    stop: Callable[[signal.Signals], object], numbers: Sequence[signal.Signals] = ENDING
) -> None:
    """Call `stop` in the running event loop at the first of these signals; a second one ends the process at once."""
    import asyncio

    loop = asyncio.get_running_loop()
    arrived: list[signal.Signals] = []
    numbers = heeded(numbers)

    def first(number: signal.Signals) -> None:
        if not arrived:
            arrived.append(number)
            # The loop keeps its handlers, so that there is no moment without one, and still calls this.
            next_one_ends(number, numbers)
            stop(number)

    for number in numbers:
        try:
            loop.add_signal_handler(number, first, number)
        except NotImplementedError:
            signal.signal(
                number, lambda number, _frame: loop.call_soon_threadsafe(first, signal.Signals(number))
            )


def next_one_ends(arrived: int, numbers: Iterable[int]) -> None:
    """Let the next of these signals end the process, unless it is only the double of the one that has arrived.

    A program that starts us and hands its signals on, such as npm, is in our process group as a rule. Then what is
    sent to the group reaches us twice.
    """
    since = time.monotonic()

    def again(number: int, _frame: Optional[FrameType]) -> None:
        if time.monotonic() - since >= _SAME_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in heeded(numbers):
        signal.signal(number, again if number == arrived else signal.SIG_DFL)
