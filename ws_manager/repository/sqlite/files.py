"""The file of a ledger: which file a name stands for, whether it can be used, and how a new one is made.

Looking here is `os.stat` alone; see `ws_manager.repository.sqlite.database` for why.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple, Optional, Union

from ws_manager.errors import InvalidInput, LedgerError, LedgerFull, is_full
from ws_manager.own_files import real
from ws_manager.remedies import CHECK_ACCESS, CHECK_LOCATION, CHOOSE_LOCATION, MAKE_LEDGER
from ws_manager.settings import expanded

SMALLEST = 512
"""Bytes: no SQLite database has fewer (sqlite.org/fileformat.html, section 1.3.2)."""


class State(NamedTuple):
    """What shows that a database file was written: every way in which SQLite writes changes one of these."""

    device: int
    inode: int
    size: int
    written_ns: int
    changed_ns: int
    has_wal: bool
    has_shm: bool
    has_journal: bool

    @classmethod
    def of(cls, file: Path) -> State:
        """Look at a file, links followed.

        Raises:
            LedgerError: it is not there any more.
        """
        try:
            status = os.stat(file)
        except OSError as error:
            raise LedgerError(
                f"{file} cannot be opened: {os.strerror(error.errno or errno.EIO)}", remedy=CHECK_LOCATION
            ) from None
        there = (os.path.lexists(f"{file}{suffix}") for suffix in ("-wal", "-shm", "-journal"))
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, *there
        )


def named(path: Union[str, Path]) -> Path:
    """Return the absolute path that was meant, links not followed.

    Raises:
        InvalidInput: it names no file.
    """
    if str(path) in ("", ":memory:") or str(path).startswith("file:"):
        raise InvalidInput(
            f"not the path of a file: {str(path)!r}", hint="other processes must be able to open it too"
        )
    return Path(os.path.abspath(expanded(path)))


def look(path: Path) -> Optional[os.stat_result]:
    """Return what the system says about a database file; None if there is no file of that name.

    Raises:
        LedgerError: there is something that cannot be a database, or it cannot be reached.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise LedgerError(
                f"{path} is a link to {real(path)}, which does not exist",
                hint="remove the link, or make sure that what it leads to is there",
            ) from None
        return None
    except OSError as error:
        raise LedgerError(
            f"{path} cannot be opened: {os.strerror(error.errno or errno.EIO)}",
            hint="check its owner and mode, and those of its folder",
        ) from None
    if stat.S_ISDIR(status.st_mode):
        raise LedgerError(f"{path} is a folder, not a database", hint="give the path of a file")
    if not stat.S_ISREG(status.st_mode):
        raise LedgerError(f"{path} is not an ordinary file", remedy=CHECK_LOCATION)
    if 0 < status.st_size < SMALLEST:
        # SQLite would take a single byte for an empty file, and write over it.
        raise LedgerError(f"{path} is not a SQLite database: {status.st_size} byte(s)", remedy=CHECK_LOCATION)
    return status


def missing(path: Path) -> LedgerError:
    """Return the error for a database that is not there, or empty."""
    what = (
        f"{path} is an empty file, not a ledger yet" if path.exists() else f"there is no database at {path}"
    )
    return LedgerError(what, remedy=MAKE_LEDGER)


def check_readable(path: Path) -> None:
    """Refuse a file that this user may not read.

    Raises:
        LedgerError: no permission to read it.
    """
    if not os.access(path, os.R_OK):
        raise LedgerError(f"no permission to read {path}", remedy=CHECK_ACCESS)


def check_writable(path: Path, status: os.stat_result) -> None:
    """Refuse a file that this user may not write, or that has several names.

    Raises:
        LedgerError: no permission to write it, or it has several names.
    """
    if not os.access(path, os.R_OK | os.W_OK):
        raise LedgerError(f"no permission to read and write {path}", remedy=CHECK_ACCESS)
    check_names(path, status)


def check_names(path: Path, status: os.stat_result) -> None:
    """Refuse a file that has several names.

    Raises:
        LedgerError: it has several names.
    """
    if status.st_nlink > 1:
        # Each name would have a write-ahead log, a lock and a key of its own.
        raise LedgerError(
            f"{path} has {status.st_nlink} names (hard links): it is not written to",
            hint="remove the others; find them with find -inum; a symbolic link does no harm",
        )


def check_companions(file: Path) -> None:
    """Refuse a database with a link in the place of a file that SQLite keeps beside it: SQLite would follow it.

    Raises:
        LedgerError: there is such a link.
    """
    for suffix in ("-wal", "-shm", "-journal"):
        if Path(f"{file}{suffix}").is_symlink():
            raise LedgerError(f"{file}{suffix} is a link: {file} is not opened", hint="remove the link")


def may_write(path: Path) -> bool:
    """Return whether this user may write a file, and make others beside it."""
    return os.access(path, os.R_OK | os.W_OK) and os.access(real(path).parent, os.W_OK | os.X_OK)


def create(path: Path) -> bool:
    """Make an empty file of mode 0600, in a folder of 0700. False if it was there already.

    Raises:
        LedgerError: it cannot be made.
    """
    try:
        missing_folders = [parent for parent in path.parents if not _exists(parent)]
        for parent in reversed(missing_folders):
            parent.mkdir(mode=0o700, exist_ok=True)
        # O_EXCL: this never opens an existing file, so it can never drop SQLite's locks on one.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return False
    except OSError as error:
        if _exists(path):
            return False
        raise (LedgerFull if is_full(error) else LedgerError)(
            f"cannot create {path}: {os.strerror(error.errno or errno.EIO)}",
            remedy=CHOOSE_LOCATION,
        ) from error
    return True


def _exists(path: Path) -> bool:
    """Return whether a path can be seen; `Path.exists` raises where a folder above it cannot be read."""
    try:
        path.stat()
    except OSError:
        return False
    return True
