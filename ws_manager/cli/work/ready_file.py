"""The file that says that `listen` is connected."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Optional

from ws_manager.errors import InvalidInput


class ReadyFile:
    """A file that exists from the first greeting to the end of the block, and holds the ws_id.

    Args:
        path: of the file; None for no file. One that an earlier run has left is deleted at once.

    Raises:
        InvalidInput: what is there is no file, or cannot be deleted.
    """

    def __init__(self, path: Optional[Path]) -> None:
        self._path = path
        self._written = False
        if path is not None and os.path.lexists(path):
            if path.is_symlink() or not path.is_file():
                raise InvalidInput(
                    f"{path} is not a file, and is not replaced", hint="give the name of a file"
                )
            self._remove()

    def write(self, ws_id: str) -> None:
        """Write the file, at the first greeting.

        Raises:
            InvalidInput: it cannot be written.
        """
        if self._path is None or self._written:
            return
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            # O_EXCL neither follows a link nor opens an existing file.
            with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644), "w") as file:
                file.write(f"{ws_id}\n")
            # Whoever waits for the file never sees it half written.
            draft.replace(self._path)
        except OSError as error:
            raise InvalidInput(
                f"cannot write {self._path}: {os.strerror(error.errno or 0)}", hint="choose another place"
            ) from None
        self._written = True

    def __enter__(self) -> ReadyFile:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Delete the file."""
        if self._written:
            self._remove()

    def _remove(self) -> None:
        assert self._path is not None
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise InvalidInput(f"cannot delete {self._path}: {os.strerror(error.errno or 0)}") from None
