"""A file that holds a secret: mode 0600 from its first byte, and replaced by a whole one or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path
from typing import Optional

from ws_manager.errors import InvalidInput, WsManagerError


def check_place(path: Path) -> None:
    """Make sure that a secret may be written to a file: a new one, or one that it may replace.

    Raises:
        InvalidInput: there is something else than a file of this user's, or no folder for it.
    """
    _owner(path)
    if not path.parent.is_dir():
        raise InvalidInput(f"there is no folder {path.parent}", hint="make it first, mode 0700")


def write_secret(path: Path, text: str) -> None:
    """Write a secret to a file that only its owner can read, in the place of one that is there.

    Whoever has the old file open goes on reading the old one. Root leaves a file with the owner that it had.

    Raises:
        InvalidInput: as `check_place`.
        WsManagerError: it cannot be written; what was there is still there.
    """
    owner = _owner(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        # O_EXCL follows no link, and nothing that is there is ever opened.
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                if owner is not None:
                    os.fchown(descriptor, *owner)
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            # The name is replaced, whatever it stands for by now: a link is not followed either.
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
    """Return whose a new file is to be where that is not this user and group.

    Raises:
        InvalidInput: what is there is not to be replaced.
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
        raise InvalidInput(f"{path} is {kind}: it is not replaced", hint="give the name of a file")
    if not hasattr(os, "geteuid") or status.st_uid == os.geteuid():
        return None
    if os.geteuid() == 0:
        return status.st_uid, status.st_gid
    raise InvalidInput(
        f"{path} belongs to another user: it is not replaced", hint="run it as that user, or delete it"
    )
