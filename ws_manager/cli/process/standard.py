"""The standard streams of this process: prepared at its start, and released at its end."""

from __future__ import annotations

import os
import select
import sys


def prepare() -> None:
    """Let stdout and stderr accept every character in any locale; replace a closed one by /dev/null."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - for life
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def release(*, stopped: bool) -> None:
    """Flush stdout, and discard the rest if it cannot be written.

    Otherwise the interpreter would try again when it exits.

    Args:
        stopped: whether a signal has ended the command. Then a reader that does not read is not waited for.
    """
    if stopped and not _takes_more():
        _leave()
    try:
        sys.stdout.flush()
    except OSError:
        _leave()


def _takes_more() -> bool:
    """Return whether stdout can be written without waiting, as far as the system shows it."""
    try:
        return not hasattr(select, "poll") or bool(select.select([], [sys.stdout], [], 0)[1])
    except (OSError, ValueError):
        return True


def _leave() -> None:
    """Redirect the rest of stdout to /dev/null."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
