"""A ledger in a SQLite file, as `ws_manager.repository.store` describes a store."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from ws_manager.models import Connection
from ws_manager.own_files import beside
from ws_manager.repository.records import LEASE_SECONDS
from ws_manager.repository.sqlite.connections import Connections
from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.sqlite.events import Events
from ws_manager.repository.sqlite.messages import Messages
from ws_manager.repository.sqlite.schema import VERSION

if TYPE_CHECKING:
    from ws_manager.repository.findings import Finding
    from ws_manager.repository.sqlite.asks import Asks
    from ws_manager.repository.sqlite.attempts import Attempts
    from ws_manager.repository.sqlite.bars import Bars
    from ws_manager.repository.sqlite.broadcasts import Broadcasts
    from ws_manager.repository.sqlite.changes import Changes
    from ws_manager.repository.sqlite.copying import Copying
    from ws_manager.repository.sqlite.feed import Feed
    from ws_manager.repository.sqlite.gateways import Gateways
    from ws_manager.repository.sqlite.heartbeat_log import HeartbeatLog
    from ws_manager.repository.sqlite.history import History
    from ws_manager.repository.sqlite.holds import Holds
    from ws_manager.repository.sqlite.keys import Keys
    from ws_manager.repository.sqlite.locks import Lock
    from ws_manager.repository.sqlite.maintenance import Maintenance
    from ws_manager.repository.sqlite.overview import Overview
    from ws_manager.repository.sqlite.receipts import Receipts
    from ws_manager.repository.sqlite.webhook_events import WebhookEvents

_LOOK_SECONDS = 0.001


class SqliteStore:
    """One open SQLite file. What only few commands need is loaded when it is asked for."""

    version = VERSION
    one_writer = True
    makes_checkpoints = True

    def __init__(self, db: Database) -> None:
        self.db = db
        self.location = str(db.path)
        self.connections = Connections(db)
        self.messages = Messages(db)
        self.events = Events(db)

    @cached_property
    def receipts(self) -> Receipts:
        from ws_manager.repository.sqlite.receipts import Receipts

        return Receipts(self.db)

    @cached_property
    def bars(self) -> Bars:
        from ws_manager.repository.sqlite.bars import Bars

        return Bars(self.db)

    @cached_property
    def keys(self) -> Keys:
        from ws_manager.repository.sqlite.keys import Keys

        return Keys(self.db)

    @cached_property
    def holds(self) -> Holds:
        from ws_manager.repository.sqlite.holds import Holds

        return Holds(self.db)

    @cached_property
    def attempts(self) -> Attempts:
        from ws_manager.repository.sqlite.attempts import Attempts

        return Attempts(self.db)

    @cached_property
    def asks(self) -> Asks:
        from ws_manager.repository.sqlite.asks import Asks

        return Asks(self.db)

    @cached_property
    def history(self) -> History:
        from ws_manager.repository.sqlite.history import History

        return History(self.db)

    @cached_property
    def broadcasts(self) -> Broadcasts:
        from ws_manager.repository.sqlite.broadcasts import Broadcasts

        return Broadcasts(self.db, self.messages)

    @cached_property
    def heartbeat_log(self) -> HeartbeatLog:
        from ws_manager.repository.sqlite.heartbeat_log import HeartbeatLog

        return HeartbeatLog(self.db)

    @cached_property
    def gateways(self) -> Gateways:
        from ws_manager.repository.sqlite.gateways import Gateways

        return Gateways(self.db)

    @cached_property
    def webhook_events(self) -> WebhookEvents:
        from ws_manager.repository.sqlite.webhook_events import WebhookEvents

        return WebhookEvents(self.db)

    @cached_property
    def feed(self) -> Feed:
        from ws_manager.repository.sqlite.feed import Feed

        return Feed(self.db)

    @cached_property
    def overview(self) -> Overview:
        from ws_manager.repository.sqlite.overview import Overview

        return Overview(self.db)

    @cached_property
    def maintenance(self) -> Maintenance:
        from ws_manager.repository.sqlite.maintenance import Maintenance

        return Maintenance(self.db)

    @cached_property
    def copying(self) -> Copying:
        from ws_manager.repository.sqlite.copying import Copying

        return Copying(self.db)

    @property
    def in_transaction(self) -> bool:
        return self.db.in_transaction

    def atomic(self) -> contextlib.AbstractContextManager[None]:
        return self.db.transaction()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        if self.db.in_transaction:
            yield
            return
        with self.db.translated():
            self.db.execute("BEGIN")
        try:
            yield
        finally:
            self.db.execute("ROLLBACK")

    def changes(self, gateway: Optional[str] = None) -> Changes:
        # Only for those who wait: what tells them of writes needs ctypes.
        from ws_manager.repository.sqlite.changes import Changes

        return Changes(self.db)

    def check(self) -> None:
        self.db.check_file()

    def again(self) -> SqliteStore:
        from ws_manager.repository.sqlite.opening import open_again

        return SqliteStore(open_again(self.db.path, self.db.identity))

    def is_same(self, other: object) -> bool:
        return isinstance(other, SqliteStore) and (
            self.db is other.db or self.db.path.resolve() == other.db.path.resolve()
        )

    def gateway_runs(self) -> Optional[bool]:
        from ws_manager.repository.sqlite.locks import gateway_lock

        return gateway_lock(self.db.path).holder()

    def hold_gateway(self, gateway_id: str, seconds: float = LEASE_SECONDS) -> Lock:
        from ws_manager.repository.sqlite.locks import living_lock, remove_stale

        remove_stale(self.db.path)
        lock = living_lock(self.db.path, gateway_id)
        while not lock.acquire():
            # Another gateway looks at this moment whether the file is stale.
            time.sleep(_LOOK_SECONDS)
        return lock

    def living_gateways(self) -> Optional[frozenset[str]]:
        from ws_manager.repository.sqlite.locks import living

        return living(self.db.path)

    def gateways_here(self) -> Optional[frozenset[str]]:
        # A file has the gateway of its own machine alone, also one that could not write yet that it runs.
        return None

    def hold(self, connection: Connection) -> Optional[Lock]:
        from ws_manager.repository.sqlite.locks import receiver_lock

        assert connection.db_id is not None
        lock = receiver_lock(self.db.path, connection.db_id)
        return lock if lock.acquire() else None

    def hold_copying(self) -> Optional[Lock]:
        from ws_manager.repository.sqlite.locks import Lock

        lock = Lock(self.db.path, "copy", lasting=False)
        return lock if lock.acquire() else None

    def checkpoint(self) -> None:
        self.db.checkpoint()

    def backup(self, target: Path) -> None:
        self.db.backup_to(target)

    def sizes(self) -> tuple[int, int]:
        pages, page = self.db.value("PRAGMA page_count"), self.db.value("PRAGMA page_size")
        try:
            log = beside(self.db.path, "-wal").stat().st_size
        except OSError:
            log = 0
        return int(pages) * int(page), log

    def examine(self) -> Iterator[Finding]:
        from ws_manager.repository.sqlite.doctor import examine

        return examine(self.db.path)

    def use_memory(self, kibibytes: int) -> None:
        self.db.execute(f"PRAGMA cache_size = -{kibibytes}")

    def interrupt(self) -> None:
        # Its own thread may have closed it meanwhile.
        with contextlib.suppress(sqlite3.ProgrammingError):
            self.db.interrupt()

    def break_off(self) -> None:
        # A file always answers.
        self.interrupt()

    def close(self) -> None:
        self.db.close()
