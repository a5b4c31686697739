"""Who holds what: file locks beside the database, released by the system when their process ends.

Process ids and times decide nothing: a pid is used again, and a clock is set.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from filelock import BaseFileLock


def gateway_lock(database: Path) -> BaseFileLock:
    """Return the lock that a gateway of this database holds for life; not yet acquired."""
    return _lock(database, "gateway")


def receiver_lock(database: Path, connection_id: int) -> BaseFileLock:
    """Return the lock of whoever takes one connection's messages without a gateway; not yet acquired."""
    return _lock(database, f"receive-{connection_id}")


def try_to_hold(lock: BaseFileLock) -> Optional[contextlib.AbstractContextManager[object]]:
    """Acquire the lock until the returned block ends; None if somebody holds it."""
    from filelock import Timeout

    try:
        return lock.acquire(timeout=0)
    except Timeout:
        return None


def is_held(lock: BaseFileLock) -> bool:
    """Say whether somebody holds the lock now."""
    held = try_to_hold(lock)
    if held is None:
        return True
    with held:
        return False


def _lock(database: Path, what: str) -> BaseFileLock:
    # Imported late: a one-shot command on connections without a gateway never needs it.
    from filelock import FileLock

    return FileLock(f"{database}.{what}.lock", mode=0o600, thread_local=False)
