"""A ledger in a database of PostgreSQL, as `ws_manager.repository.store` describes a store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Optional

from ws_manager.errors import InvalidInput
from ws_manager.models import Connection
from ws_manager.repository.findings import Finding
from ws_manager.repository.postgres.asks import Asks
from ws_manager.repository.postgres.attempts import Attempts
from ws_manager.repository.postgres.bars import Bars
from ws_manager.repository.postgres.broadcasts import Broadcasts
from ws_manager.repository.postgres.changes import Changes
from ws_manager.repository.postgres.connections import Connections
from ws_manager.repository.postgres.copying import Copying
from ws_manager.repository.postgres.database import Database
from ws_manager.repository.postgres.events import Events
from ws_manager.repository.postgres.feed import Feed
from ws_manager.repository.postgres.gateways import Gateways
from ws_manager.repository.postgres.heartbeat_log import HeartbeatLog
from ws_manager.repository.postgres.history import History
from ws_manager.repository.postgres.holds import Holds
from ws_manager.repository.postgres.keys import Keys
from ws_manager.repository.postgres.locks import Lease, SessionLock, living
from ws_manager.repository.postgres.maintenance import Maintenance
from ws_manager.repository.postgres.messages import Messages
from ws_manager.repository.postgres.overview import Overview
from ws_manager.repository.postgres.receipts import Receipts
from ws_manager.repository.postgres.schema import VERSION
from ws_manager.repository.postgres.webhook_events import WebhookEvents
from ws_manager.repository.records import LEASE_SECONDS


class PostgresStore:
    """One session with a ledger in PostgreSQL."""

    version = VERSION
    one_writer = False
    makes_checkpoints = False

    def __init__(self, db: Database) -> None:
        self.db = db
        self.location = db.location
        self.connections = Connections(db)
        self.messages = Messages(db)
        self.receipts = Receipts(db)
        self.bars = Bars(db)
        self.keys = Keys(db)
        self.holds = Holds(db)
        self.attempts = Attempts(db)
        self.asks = Asks(db)
        self.history = History(db)
        self.broadcasts = Broadcasts(db)
        self.events = Events(db)
        self.heartbeat_log = HeartbeatLog(db)
        self.gateways = Gateways(db)
        self.webhook_events = WebhookEvents(db)
        self.feed = Feed(db)
        self.overview = Overview(db)
        self.maintenance = Maintenance(db)
        self.copying = Copying(db)

    @property
    def in_transaction(self) -> bool:
        return self.db.in_transaction

    def atomic(self) -> contextlib.AbstractContextManager[None]:
        return self.db.transaction()

    def snapshot(self) -> contextlib.AbstractContextManager[None]:
        return self.db.snapshot()

    def changes(self, gateway: Optional[str] = None) -> Changes:
        return Changes(self.db, gateway)

    def check(self) -> None:
        # A URL names a ledger by its place alone.
        return None

    def again(self) -> PostgresStore:
        return PostgresStore(Database(self.db.url))

    @cached_property
    def _identity(self) -> tuple[str, int]:
        row = self.db.row(
            "SELECT (SELECT system_identifier::text FROM pg_control_system()), oid::bigint FROM pg_database"
            " WHERE datname = current_database()"
        )
        assert row is not None
        return str(row[0]), int(row[1])

    def is_same(self, other: object) -> bool:
        return isinstance(other, PostgresStore) and (self.db is other.db or self._identity == other._identity)

    def gateway_runs(self) -> Optional[bool]:
        return bool(self.living_gateways())

    def hold_gateway(self, gateway_id: str, seconds: float = LEASE_SECONDS) -> Lease:
        return Lease(self.db, gateway_id, seconds)

    def living_gateways(self) -> Optional[frozenset[str]]:
        return living(self.db)

    def gateways_here(self) -> Optional[frozenset[str]]:
        return living(self.db, here=True)

    def hold(self, connection: Connection) -> Optional[SessionLock]:
        lock = SessionLock(self.db.url, f"ws-manager receive {connection.ws_id}")
        return lock if lock.acquire() else None

    def hold_copying(self) -> Optional[SessionLock]:
        lock = SessionLock(self.db.url, f"ws-manager copy {self._identity[1]}")
        return lock if lock.acquire() else None

    def checkpoint(self) -> None:
        # The server does it.
        return None

    def backup(self, target: Path) -> None:
        raise InvalidInput(
            "a ledger in PostgreSQL is backed up by PostgreSQL's own tools",
            hint="use pg_dump, or a base backup with archived WAL for recovery to any moment",
        )

    def sizes(self) -> tuple[int, int]:
        return int(self.db.value("SELECT pg_database_size(current_database())")), 0

    def examine(self) -> Iterator[Finding]:
        from ws_manager.repository.postgres.doctor import examine

        return examine(self.db.url)

    def use_memory(self, kibibytes: int) -> None:
        # What the server keeps in memory is for its administrator to say.
        return None

    def interrupt(self) -> None:
        self.db.interrupt()

    def break_off(self) -> None:
        self.db.break_off()

    def close(self) -> None:
        self.db.close()
