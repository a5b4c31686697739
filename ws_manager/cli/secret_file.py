"""A file that holds a secret: created with mode 0600, and replaced atomically."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path
from typing import Optional

from ws_manager.errors import InvalidInput, WsManagerError


def check_place(path: Path) -> None:
    """Check that a secret can be written to a path: to a new file, or over a file of this user.

    Raises:
        InvalidInput: the path is something else, or its folder does not exist.
    """
    _owner(path)
    if not path.parent.is_dir():
        raise InvalidInput(f"there is no folder {path.parent}", hint="create it first, mode 0700")


def write_secret(path: Path, text: str) -> None:
    """Write a secret to a file that only its owner can read; an existing file is replaced.

    A process that has the old file open continues to read the old one. When root replaces a file, its owner stays.

    Raises:
        InvalidInput: as `check_place`.
        WsManagerError: it cannot be written; an existing file is unchanged.
    """
    owner = _owner(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        # O_EXCL neither follows a link nor opens an existing file.
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                if owner is not None:
                    os.fchown(descriptor, *owner)
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            # This replaces the name itself: even a link that was put there meanwhile is not followed.
            draft.replace(path)
        except BaseException:
            draft.unlink()
            raise
    except OSError as error:
        raise WsManagerError(
            f"cannot write {path}: {os.strerror(error.errno or errno.EIO)}",
            hint="nothing was changed; choose another place",
        ) from None


def _owner(path: Path) -> Optional[tuple[int, int]]:
    """Return the user and group that a replaced file keeps; None for those of this process.

    Raises:
        InvalidInput: what is at the path must not be replaced.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidInput(
            f"cannot write {path}: {os.strerror(error.errno or errno.EIO)}", hint="choose another place"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "not a file"
        raise InvalidInput(f"{path} is {kind}, and is not replaced", hint="give the name of a file")
    if not hasattr(os, "geteuid") or status.st_uid == os.geteuid():
        return None
    if os.geteuid() == 0:
        return status.st_uid, status.st_gid
    raise InvalidInput(
        f"{path} belongs to another user, and is not replaced", hint="run it as that user, or delete it"
    )
