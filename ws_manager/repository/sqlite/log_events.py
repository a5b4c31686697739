"""Tells when a process writes to a database's log, without looking again and again (Linux, man 7 inotify)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
from pathlib import Path
from typing import Optional

from ws_manager.own_files import beside

_MODIFIED = 0x2
_FLAGS = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
_EVENT_BYTES = 4096


class LogEvents:
    """Writes to a log. The file itself is never opened: closing it would release SQLite's locks.

    Args:
        descriptor: of inotify.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Wait until something is written, or was since the last call. Return False if the time has passed."""
        if not self._poll.poll(seconds * 1000):
            return False
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._descriptor, _EVENT_BYTES)) > _EVENT_BYTES // 2:
                pass
        return True

    def close(self) -> None:
        """Free what it takes of the system."""
        os.close(self._descriptor)


def log_events(database: Path) -> Optional[LogEvents]:
    """Return the events of a database's log, which must be open; None where the system has none."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor: int = libc.inotify_init1(_FLAGS)
    except (AttributeError, OSError, TypeError):
        return None
    if descriptor < 0:
        # Such as too many of them: /proc/sys/fs/inotify/max_user_instances.
        return None
    if libc.inotify_add_watch(descriptor, os.fsencode(beside(database, "-wal")), _MODIFIED) < 0:
        os.close(descriptor)
        return None
    return LogEvents(descriptor)
