"""Which processes read a ledger at this moment: what they read stays in the write-ahead log. Only Linux shows it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple, Optional

_PROC = Path("/proc")
# Bytes of the -shm file that SQLite locks for the length of a read: WAL_READ_LOCK(0) to (4) in its wal.c,
# behind UNIX_SHM_BASE in its os_unix.c. They are part of its file format (sqlite.org/walformat.html, section 2.3.1).
_FIRST_LOCK, _LAST_LOCK = 123, 127


class Reader(NamedTuple):
    """A process that has a read open.

    Attributes:
        pid: process id.
        program: its name, at most 15 characters.
        seconds: how long the process has been running, and so the most that the read can have been open. No
            system tells since when a lock is held.
    """

    pid: int
    program: str
    seconds: float


def readers(database: Path) -> Optional[list[Reader]]:
    """Return the processes that read a ledger now, the oldest first; None if the system does not show them.

    Processes in another container cannot be seen.
    """
    try:
        status = Path(f"{database}-shm").stat()
        locks = (_PROC / "locks").read_text(encoding="ascii", errors="replace")
        uptime = float((_PROC / "uptime").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return None
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    pids = {pid for pid, locked in _read_locks(locks) if locked == file} - {os.getpid()}
    found = [reader for reader in (_reader(pid, uptime) for pid in pids) if reader is not None]
    return sorted(found, key=lambda reader: reader.seconds, reverse=True)


def _read_locks(locks: str) -> list[tuple[int, str]]:
    """Return pid and file of each lock that a read holds, out of /proc/locks (man 5 proc_locks)."""
    found = []
    for line in locks.splitlines():
        fields = line.split()
        # 1: POSIX  ADVISORY  READ 4711 fd:00:1234 123 123; one that waits has -> before its type.
        if len(fields) != 8 or fields[1] != "POSIX" or fields[3] != "READ":
            continue
        pid, file, first, last = fields[4:]
        if int(first) <= _LAST_LOCK and (last == "EOF" or int(last) >= _FIRST_LOCK):
            found.append((int(pid), file))
    return found


def _reader(pid: int, uptime: float) -> Optional[Reader]:
    """Look a process up; None if it has ended meanwhile."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name stands in brackets and may hold some itself. Field 22 is the start, in ticks since the system's
    # (man 5 proc_pid_stat): no clock that is set changes it.
    name, _, rest = text.partition("(")[2].rpartition(")")
    started = int(rest.split()[19]) / os.sysconf("SC_CLK_TCK")
    return Reader(pid, name, max(0.0, uptime - started))
