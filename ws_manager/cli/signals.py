"""Signals that end a command which runs until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from typing import Callable


def stop_on_signals(
    stop: Callable[[signal.Signals], object],
    numbers: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
) -> None:
    """Call `stop` at the first of these signals; a second one ends the process at once."""
    loop = asyncio.get_running_loop()

    def first(number: signal.Signals) -> None:
        for other in numbers:
            # Windows' event loop has no signal handlers of its own.
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(other)
            signal.signal(other, signal.SIG_DFL)
        stop(number)

    for number in numbers:
        try:
            loop.add_signal_handler(number, first, number)
        except NotImplementedError:
            signal.signal(
                number, lambda number, _frame: loop.call_soon_threadsafe(first, signal.Signals(number))
            )
