"""What can be asked about a SQLite file without a ledger being open; see `ws_manager.repository.store.Engine`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

from ws_manager.repository.sqlite.files import look, named
from ws_manager.repository.sqlite.opening import check_file, open_to_read, open_to_write
from ws_manager.repository.sqlite.store import SqliteStore
from ws_manager.settings import DatabaseUrl

if TYPE_CHECKING:
    from ws_manager.repository.findings import Finding
    from ws_manager.repository.sqlite.locks import Lock
    from ws_manager.settings import Location


class SqliteEngine:
    """Ledgers in SQLite files."""

    def exists(self, location: Location) -> bool:
        status = look(named(_path(location)))
        return status is not None and status.st_size > 0

    def check(self, location: Location, *, shared: bool = False) -> None:
        check_file(_path(location), shared=shared)

    def open_to_write(self, location: Location, *, create: bool = True, shared: bool = False) -> SqliteStore:
        return SqliteStore(open_to_write(_path(location), create=create, shared=shared))

    def open_to_read(self, location: Location) -> SqliteStore:
        return SqliteStore(open_to_read(_path(location)))

    def hold_gateway(self, location: Location) -> Optional[Lock]:
        from ws_manager.repository.sqlite.locks import gateway_lock

        lock = gateway_lock(named(_path(location)))
        return lock if lock.acquire() else None

    def caveats(self, location: Location) -> list[str]:
        path = named(_path(location))
        if path.stat().st_nlink == 1:
            return []
        return [f"{path} has several names (hard links): rows in the -wal file of another name are not shown"]

    def engine_caveat(self) -> Optional[str]:
        from ws_manager.repository.sqlite.database import resets_wal_safely

        if resets_wal_safely():
            return None
        return (
            f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug, which 3.51.3 fixes; checkpoints avoid it, so no"
            " action is needed"
        )

    def complete(self, location: Location, kind: str, prefix: str) -> list[str]:
        from ws_manager.repository.sqlite.completion import complete

        return complete(named(_path(location)), kind, prefix)

    def examine(self, location: Location) -> Iterator[Finding]:
        from ws_manager.repository.sqlite.doctor import examine

        return examine(Path(_path(location)))


def _path(location: Location) -> Union[str, Path]:
    """Return a location as the path that it is: `ws_manager.repository.engines` gives no other to this engine."""
    assert not isinstance(location, DatabaseUrl)
    return location
