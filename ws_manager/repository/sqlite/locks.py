"""Who holds what: file locks beside the database, released by the system when their process ends.

Process ids and times decide nothing: a pid is used again, and a clock is set. The lock is flock(2), which is
the descriptor's own, so that two holders in one process exclude each other too.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Optional

from ws_manager.errors import LedgerError, LedgerFull, is_full
from ws_manager.own_files import beside, is_at, open_or_make_own, opened

_SUFFIX = ".lock"
_LIVING = "gateway-"


class Lock:
    """A lock on a file of its own.

    Args:
        database: the file that it belongs to.
        what: is held; a part of the lock file's name.
        lasting: True leaves the lock file when the lock is released, for the next holder; False removes it.

    Attributes:
        path: the lock file.
        lease: always None, because the hold lasts as long as the process.
    """

    lease = None

    def __init__(self, database: Path, what: str, *, lasting: bool = True) -> None:
        self.path = beside(database, f".{what}{_SUFFIX}")
        self._database = database
        self._lasting = lasting
        self._descriptor: Optional[int] = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The open descriptor of a held lock. A child process that inherits it holds the lock too (flock(2))."""
        return () if self._descriptor is None else (self._descriptor,)

    def acquire(self) -> bool:
        """Take the lock, without waiting. False if it is held.

        Raises:
            LedgerError: the lock file cannot be made or opened, or is not ours.
        """
        while True:
            try:
                descriptor = open_or_make_own(self.path, self._database)
            except OSError as error:
                raise (LedgerFull if is_full(error) else LedgerError)(
                    f"cannot open the lock file {self.path}: {error.strerror}",
                    hint="check its owner and mode, those of its folder, and the free space",
                ) from None
            try:
                if not _take(descriptor, shared=False):
                    return False
                if is_at(self.path, descriptor):
                    self._descriptor, descriptor = descriptor, -1
                    return True
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def release(self) -> None:
        """Release the lock, if it is held here."""
        if self._descriptor is None:
            return
        # First, while nobody else can hold it. Windows removes no open file: there it stays until `remove_stale`.
        if not self._lasting:
            with contextlib.suppress(OSError):
                self.path.unlink()
        # Closing releases, unless a child process has inherited the descriptor.
        os.close(self._descriptor)
        self._descriptor = None

    def holder(self) -> Optional[bool]:
        """Return whether the lock is held now; None if this user may not know. Nothing is made or changed.

        Raises:
            LedgerError: the lock file is not ours.
        """
        try:
            with opened(self.path, self._database) as descriptor:
                return not _take(descriptor, shared=True)
        except FileNotFoundError:
            return False
        except OSError:
            return None


def gateway_lock(database: Path) -> Lock:
    """Return the lock that a gateway of this database holds for life; not yet acquired."""
    return Lock(database, "gateway")


def living_lock(database: Path, gateway_id: str) -> Lock:
    """Return the lock that says that one gateway process lives; not yet acquired."""
    return Lock(database, f"{_LIVING}{gateway_id}", lasting=False)


def living(database: Path) -> Optional[frozenset[str]]:
    """Return the ids of the gateway processes that live; None if this user may not know."""
    found: dict[str, Optional[bool]] = {}
    for each in _noted(database):
        # A file of another user says nothing.
        with contextlib.suppress(LedgerError):
            found[each] = living_lock(database, each).holder()
    if None in found.values():
        return None
    return frozenset(each for each, lives in found.items() if lives)


def remove_stale(database: Path) -> None:
    """Remove the lock files of gateway processes that were killed."""
    for each in _noted(database):
        lock = living_lock(database, each)
        with contextlib.suppress(LedgerError):
            if lock.acquire():
                lock.release()


def _noted(database: Path) -> list[str]:
    """Return the ids of the gateway processes that have a lock file."""
    first = beside(database, f".{_LIVING}")
    try:
        names = [each.name for each in first.parent.iterdir()]
    except OSError:
        return []
    return [
        name[len(first.name) : -len(_SUFFIX)]
        for name in names
        if name.startswith(first.name) and name.endswith(_SUFFIX)
    ]


def receiver_lock(database: Path, connection_id: int) -> Lock:
    """Return the lock for taking one connection's messages without a gateway; not yet acquired."""
    return Lock(database, f"receive-{connection_id}")


def _take(descriptor: int, *, shared: bool) -> bool:
    """Lock an open file, without waiting. False if it is locked."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
