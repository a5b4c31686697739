"""Whether there is room on the disk: SQLite does not always report a full disk as such."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ws_manager.errors import is_full

_PROBE_BYTES = 64 * 1024
"""What SQLite needs to open a file in WAL mode is 32 KiB for the -shm file, and the -wal file."""


def has_room(folder: Path) -> bool:
    """Return whether something can be written in a folder; by trying, because quotas and inodes run out too.

    True too if it fails for another reason.
    """
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            for _ in range(_PROBE_BYTES // 4096):
                file.write(b"\0" * 4096)
    except OSError as error:
        return not is_full(error)
    return True
