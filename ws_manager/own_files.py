"""Our own files beside a database, the locks and the key: where they are, who owns them, and how they are opened.

They are beside the real file of the database, whatever links lead there, and belong to that file's owner. A link in
their place is never followed: it could lead anywhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from ws_manager.errors import LedgerError

# Without waiting for the other end of a pipe, and without taking over a terminal.
_CAREFULLY = (
    getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
)


def real(path: Path) -> Path:
    """Return the file that a path leads to when all links are followed. It need not exist."""
    return Path(os.path.realpath(path))


def beside(database: Path, suffix: str) -> Path:
    """Return the path of one of our files, beside the real file of the database."""
    return Path(f"{real(database)}{suffix}")


def user() -> int:
    """Return the id of the user who runs this; 0 where there are no such ids (Windows)."""
    return os.geteuid() if os.name == "posix" else 0


def owner(database: Path) -> int:
    """Return the user id of a database's owner; ours if there is no database yet."""
    try:
        return database.stat().st_uid
    except OSError:
        return user()


def may_own(database: Path) -> bool:
    """Return whether this user can make files for the database's owner: as that owner, or as root."""
    return user() in (0, owner(database))


@contextlib.contextmanager
def opened(path: Path, database: Path, *, write: bool = False) -> Iterator[int]:
    """Open one of our files for the length of a block; see `open_own`."""
    descriptor = open_own(path, database, write=write)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_own(path: Path, database: Path, *, write: bool = False) -> int:
    """Open one of our files, which must exist.

    Raises:
        LedgerError: it is a link, is not an ordinary file, or does not belong to the database's owner.
        OSError: it does not exist, or may not be opened.
    """
    if path.is_symlink():
        raise _refused(path, "is a link", "remove the link")
    try:
        descriptor = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | _CAREFULLY)
    except OSError as error:
        # It has become a link since: Linux says ELOOP, FreeBSD EMLINK.
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise _refused(path, "is a link", "remove the link") from None
        raise
    try:
        _check(path, os.fstat(descriptor), database)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def make_own(path: Path, database: Path) -> int:
    """Make one of our files, mode 0600, for the database's owner, and open it for writing.

    Raises:
        LedgerError: this user is neither the database's owner nor root.
        FileExistsError: there is a file of this name already.
        OSError: it cannot be made.
    """
    if not may_own(database):
        raise LedgerError(
            f"{path} can be made only by the owner of {real(database)} (uid {owner(database)}) or root",
            hint="run it as that user",
        )
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | _CAREFULLY, 0o600)
    try:
        _give(descriptor, database)
    except BaseException:
        os.close(descriptor)
        path.unlink()
        raise
    return descriptor


def open_or_make_own(path: Path, database: Path) -> int:
    """Open one of our files for reading and writing, mode 0600, and make a missing one.

    Raises:
        LedgerError: as `open_own` and `make_own`.
        OSError: it cannot be made, or may not be opened.
    """
    while True:
        try:
            descriptor = open_own(path, database, write=True)
            break
        except FileNotFoundError:
            pass
        # If it exists now, another process was first.
        with contextlib.suppress(FileExistsError):
            return make_own(path, database)
    try:
        if os.name == "posix" and stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            # Whoever can open it can hold a lock on it.
            os.fchmod(descriptor, 0o600)
        # Root may have been killed before it gave the file away.
        _give(descriptor, database)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def make_whole(path: Path, content: bytes, database: Path) -> None:
    """Make one of our files with its content, mode 0600, unless something has its name.

    It is written as a draft beside it, and renamed: it has one name at any time, and nobody sees a part of it. If
    several processes do it at the same time, the content of one of them is there.

    Raises:
        LedgerError: as `make_own`, or a draft that another process has left is not ours.
        OSError: it cannot be made; there is no draft then.
    """
    if sys.platform == "win32":
        _rename_new(path, content, database)
        return
    import fcntl

    # All have the same draft, and its lock decides who writes it. So one that a killed process has left is used.
    draft = Path(f"{path}.new")
    while not os.path.lexists(path):
        descriptor = open_or_make_own(draft, database)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # If not, another process was first.
            if is_at(draft, descriptor):
                _fill_and_rename(draft, descriptor, path, content)
        finally:
            os.close(descriptor)


def is_at(path: Path, descriptor: int) -> bool:
    """Return whether a path leads to an open file still: it may have been removed or renamed meanwhile."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def _fill_and_rename(draft: Path, descriptor: int, path: Path, content: bytes) -> None:
    """Write a draft whose lock is held, and rename it unless something has the name."""
    try:
        os.ftruncate(descriptor, 0)
        _fill(descriptor, content)
        if not os.path.lexists(path):
            draft.rename(path)
            return
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    draft.unlink()


def _rename_new(path: Path, content: bytes, database: Path) -> None:
    """Do what `make_whole` does where an open file cannot be renamed, and renaming replaces nothing: on Windows."""
    # Imported here, because it loads OpenSSL: a one-shot command makes no such file.
    import secrets

    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = make_own(draft, database)
    try:
        try:
            _fill(descriptor, content)
        finally:
            os.close(descriptor)
        draft.rename(path)
    except FileExistsError:
        draft.unlink()
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _fill(descriptor: int, content: bytes) -> None:
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _give(descriptor: int, database: Path) -> None:
    """Give a file that root has made to the database's owner."""
    if os.name == "posix" and os.fstat(descriptor).st_uid != owner(database) != user():
        status = database.stat()
        os.fchown(descriptor, status.st_uid, status.st_gid)


def _check(path: Path, status: os.stat_result, database: Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise _refused(path, "is not an ordinary file", "remove it")
    if os.name != "posix":
        return
    if status.st_nlink > 1:
        raise _refused(path, f"has {status.st_nlink} names (hard links)", "remove it, or the other names")
    # Root makes a file, and then gives it to the owner: for a moment it is root's, and empty.
    if status.st_uid != owner(database) and (user(), status.st_uid, status.st_size) != (0, 0, 0):
        raise _refused(
            path,
            f"belongs to the user {status.st_uid}, and {real(database)} to {owner(database)}",
            "remove it if you do not know it, or give it to that user with chown",
        )


def _refused(path: Path, what: str, hint: str) -> LedgerError:
    return LedgerError(f"{path} {what}: it is not used", hint=hint)
