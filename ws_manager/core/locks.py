"""Who holds what: file locks beside the database, released by the system when their process ends.

Process ids and times decide nothing: a pid is used again, and a clock is set.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock


def gateway_lock(database: Path) -> BaseFileLock:
    """Return the lock that a gateway of this database holds for life; not yet acquired."""
    return _lock(database, "gateway")


def receiver_lock(database: Path, connection_id: int) -> BaseFileLock:
    """Return the lock of whoever takes one connection's messages without a gateway; not yet acquired."""
    return _lock(database, f"receive-{connection_id}")


def is_held(lock: BaseFileLock) -> bool:
    """Say whether somebody holds the lock now."""
    from filelock import Timeout

    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


def _lock(database: Path, what: str) -> BaseFileLock:
    # Imported late: a one-shot command on connections without a gateway never needs it.
    from filelock import FileLock

    return FileLock(f"{database}.{what}.lock", mode=0o600, thread_local=False)
