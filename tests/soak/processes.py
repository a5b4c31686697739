"""The processes of a gateway, as /proc shows them: the parent, and with `serve --workers` its workers."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Optional

from ws_manager.settings import Location

_AS_WORKER = b"--as-worker"


def workers_on(database: Location) -> dict[int, int]:
    """Return the process id of every worker that serves a ledger, with its parent's, whoever that is now.

    A process that has ended has no command line any more, even before anybody has waited for it.
    """
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        command = _read(folder / "cmdline").split(b"\0")
        if _AS_WORKER not in command or str(database).encode() not in command:
            continue
        # The name of the program may contain anything, also a parenthesis.
        fields = _read(folder / "stat").rpartition(b")")[2].split()
        if fields:
            found[int(folder.name)] = int(fields[1])
    return found


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each, if it is still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def memory_of(pid: int) -> int:
    """Return the anonymous memory of a process, in bytes."""
    found = re.search(rb"RssAnon:\s+(\d+) kB", _read(Path(f"/proc/{pid}/status")))
    return int(found[1]) * 1024 if found else 0


def has_loaded(pid: int, library: str) -> Optional[bool]:
    """Return whether a process has loaded a library; None if it has ended."""
    maps = _read(Path(f"/proc/{pid}/maps"))
    return library.encode() in maps if maps else None


def _read(path: Path) -> bytes:
    """Return what a file of /proc has; nothing once the process has ended."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
