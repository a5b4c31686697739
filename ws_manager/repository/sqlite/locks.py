"""Who holds what: file locks beside the database, released by the system when their process ends.

Process ids and times decide nothing: a pid is used again, and a clock is set. The lock is flock(2), which is
the descriptor's own, so that two holders in one process exclude each other too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Optional

from ws_manager.errors import LedgerError, LedgerFull, is_full
from ws_manager.own_files import beside, is_at, open_or_make_own, opened


class Lock:
    """A lock on a file of its own, which stays when the lock is released.

    Args:
        database: the file that it belongs to.
        what: is held; a part of the lock file's name.

    Attributes:
        path: the lock file.
    """

    def __init__(self, database: Path, what: str) -> None:
        self.path = beside(database, f".{what}.lock")
        self._database = database
        self._descriptor: Optional[int] = None

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
        if self._descriptor is not None:
            # Closing releases: no other descriptor is of the same opening.
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
