"""What a storage engine is: the contract of every store, whatever keeps the ledger.

`ws_manager.core` is written against these protocols alone. An engine implements them in a package of its own, beside
`ws_manager.repository.sqlite`; `ws_manager.repository.engines` chooses one. What crosses this seam is a model or a
record, never a row. One suite of tests holds for every store: `tests/contract/test_store.py`.

Rules for all of them:

- Every write happens inside `Store.atomic`. What a verb returned inside of it about a connection (that it is active,
  its epoch) stays true until the block ends.
- A block that touches several connections locks them all at first, by one call of a verb that takes or returns many,
  such as `Connections.lock`. Two blocks that lock one connection after the other may wait for each other.
  What belongs to a connection (its messages, its attempts, its asks, its hold) is changed behind its lock.
- A connection's messages are numbered by `seq`, in ascending order. Nothing else follows from a number: not the order
  between connections, nor that the numbers are without gaps.
- Times are fixed-width UTC text (`ws_manager.models`).
- A verb raises `LedgerError` where the ledger cannot be used. Then nothing of the block is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Optional, Protocol

from ws_manager.models import Connection
from ws_manager.repository.findings import Finding
from ws_manager.repository.records import LEASE_SECONDS
from ws_manager.repository.tables import (
    Bars,
    Broadcasts,
    Connections,
    Events,
    Gateways,
    HeartbeatLog,
    Keys,
    Messages,
    Receipts,
    WebhookEvents,
)
from ws_manager.repository.views import Copying, Feed, History, Maintenance, Overview
from ws_manager.repository.working import Asks, Attempts, Holds
from ws_manager.settings import Location


class Changes(Protocol):
    """Watches for commits of any process."""

    def happened(self) -> bool:
        """Return whether anything may have been committed since the last call. The first call says yes.

        Every commit leads to a yes, on SQLite at once. On PostgreSQL that takes a moment, usually a few ms: it may
        also say yes without a cause.
        """

    def wait(self) -> None:
        """Wait until somebody may have committed: at most about 2 ms longer than that, and at most 20 ms."""

    def widen(self, everything: bool) -> None:
        """Report every commit from now on, or again only what concerns the gateway."""

    def close(self) -> None:
        """Free what `wait` takes of the system."""


class Hold(Protocol):
    """Something that one process has for itself. The system releases it too when the process ends."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """File descriptors that a child process may inherit. The hold lasts until the child has ended too."""

    def release(self) -> None:
        """Release it."""


class Lease(Protocol):
    """What a gateway process has to renew, or else it counts as ended.

    It has a session of its own. One thread renews it; any may call `break_off`.
    """

    def renew(self) -> bool:
        """Let it last anew from now on, and note that the gateway runs. False if it had run out: it begins again.

        Raises:
            LedgerError: the ledger cannot be written.
        """

    def break_off(self) -> None:
        """Let a renewal fail that is under way, also where the ledger does not answer."""


class GatewayHold(Hold, Protocol):
    """What shows that a gateway process lives."""

    @property
    def lease(self) -> Optional[Lease]:
        """What has to be renewed; None where the hold lasts as long as the process."""


class Store(Protocol):
    """An open ledger. It belongs to the thread and the process that opened it.

    Attributes:
        location: its name, as it is shown to people.
        version: of the schema: what `export` names.
        one_writer: whether only one block writes at a time, so that it may touch connections in any order.
        makes_checkpoints: whether work piles up behind commits, which `checkpoint` does.
    """

    location: str
    version: int
    one_writer: bool
    makes_checkpoints: bool

    @property
    def connections(self) -> Connections:
        """Connections by their ws_id."""

    @property
    def messages(self) -> Messages:
        """Messages on their way."""

    @property
    def receipts(self) -> Receipts:
        """What was confirmed."""

    @property
    def bars(self) -> Bars:
        """Who is not let in."""

    @property
    def keys(self) -> Keys:
        """The requests that were done lately."""

    @property
    def holds(self) -> Holds:
        """Who takes messages over HTTP."""

    @property
    def attempts(self) -> Attempts:
        """Workers, and what they have begun."""

    @property
    def asks(self) -> Asks:
        """What wants an answer, and the answers."""

    @property
    def history(self) -> History:
        """Messages for those who look for them."""

    @property
    def broadcasts(self) -> Broadcasts:
        """Broadcasts and their messages."""

    @property
    def events(self) -> Events:
        """What happened."""

    @property
    def heartbeat_log(self) -> HeartbeatLog:
        """Signs of life."""

    @property
    def gateways(self) -> Gateways:
        """Gateways that have run."""

    @property
    def webhook_events(self) -> WebhookEvents:
        """What webhooks have brought."""

    @property
    def feed(self) -> Feed:
        """What happened, as one sequence."""

    @property
    def overview(self) -> Overview:
        """Questions about this moment."""

    @property
    def maintenance(self) -> Maintenance:
        """Statements over whole tables."""

    @property
    def copying(self) -> Copying:
        """The rows for a copy, and the seal."""

    @property
    def in_transaction(self) -> bool:
        """Whether the caller has a transaction of its own open, so that nothing is committed yet."""

    def atomic(self) -> AbstractContextManager[None]:
        """Write everything inside the block, or nothing. Blocks may be nested: the outermost one commits."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Read one state of the ledger throughout the block. Inside an open transaction it is the state of that."""

    def changes(self, gateway: Optional[str] = None) -> Changes:
        """Return a `Changes`, which reports commits from now on.

        Args:
            gateway: report only what concerns this gateway, where the engine can tell: messages to its connections,
                and what writes an event.
        """

    def check(self) -> None:
        """Check that the ledger is still the one that was opened.

        Raises:
            LedgerReplaced: it was moved, deleted or replaced.
        """

    def again(self) -> Store:
        """Open the same ledger for another thread.

        Raises:
            LedgerReplaced: it was moved, deleted or replaced.
        """

    def is_same(self, other: Store) -> bool:
        """Return whether another store is open on the same ledger."""

    def gateway_runs(self) -> Optional[bool]:
        """Return whether a gateway runs on this ledger; None if this user may not know."""

    def hold_gateway(self, gateway_id: str, seconds: float = LEASE_SECONDS) -> GatewayHold:
        """Show that a gateway process lives, until it releases the hold or ends.

        Args:
            gateway_id: of the gateway.
            seconds: how long a lease lasts after it was renewed, by the ledger's clock.

        Raises:
            LedgerError: that cannot be shown here.
        """

    def living_gateways(self) -> Optional[frozenset[str]]:
        """Return the ids of the gateway processes that live; None if this user may not know."""

    def gateways_here(self) -> Optional[frozenset[str]]:
        """Return the ids of those that live on this machine; None if all of them do."""

    def hold(self, connection: Connection) -> Optional[Hold]:
        """Hold a connection's messages; None if another receiver holds them."""

    def hold_copying(self) -> Optional[Hold]:
        """Hold the right to copy into this ledger; None if another process has it."""

    def checkpoint(self) -> None:
        """Do the work that piles up behind commits. A gateway calls it once a second if something changed."""

    def backup(self, target: Path) -> None:
        """Copy the ledger as it is now to a new file, while others go on writing.

        Raises:
            InvalidInput: the target exists.
            LedgerError: it cannot be written.
        """

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of the ledger and of its write-ahead log."""

    def examine(self) -> Iterator[Finding]:
        """Look at the ledger and at the engine, for `doctor`: as `Engine.examine` does it."""

    def use_memory(self, kibibytes: int) -> None:
        """Keep at most this much of the ledger in memory."""

    def interrupt(self) -> None:
        """Let the statement fail that runs now. Another thread may call it than the one that uses the store."""

    def break_off(self) -> None:
        """Interrupt also what waits for a ledger that does not answer. The present transaction is lost."""

    def close(self) -> None:
        """Close it."""


class Engine(Protocol):
    """What can be asked about a location before, or without, opening the ledger there."""

    def exists(self, location: Location) -> bool:
        """Return whether there is a ledger, or something else that is not empty.

        Raises:
            LedgerError: there is something that cannot be a ledger, or it cannot be reached.
        """

    def check(self, location: Location, *, shared: bool = False) -> None:
        """Refuse a location that cannot be served. Nothing at all, and an empty file, may still become a ledger.

        Raises:
            InvalidInput, LedgerError: as `open_to_write`.
        """

    def open_to_write(self, location: Location, *, create: bool = True, shared: bool = False) -> Store:
        """Open a ledger, and bring its schema up to date.

        Args:
            location: where.
            create: False to refuse a place where there is not a ledger.
            shared: put the ledger into a database of another program too, beside what is there.

        Raises:
            InvalidInput: the location is not one of this engine's.
            LedgerError: it cannot be used, is not a ledger, or a newer ws-manager wrote it.
        """

    def open_to_read(self, location: Location) -> Store:
        """Open a ledger that is there, and write nothing: only an older schema is brought up to date.

        Raises:
            InvalidInput, LedgerError: as `open_to_write`.
        """

    def hold_gateway(self, location: Location) -> Optional[Hold]:
        """Hold the right to be the gateway of a ledger, which need not be open; None if another has it."""

    def caveats(self, location: Location) -> list[str]:
        """Return what a reader of this ledger should know."""

    def engine_caveat(self) -> Optional[str]:
        """Return a known fault of the installed engine, or None."""

    def complete(self, location: Location, kind: str, prefix: str) -> list[str]:
        """Return names that begin with a prefix, for the shell, without waiting: at most 100.

        Args:
            location: of the ledger.
            kind: `agent`, `ws_id`, `active ws_id`, `msg_id`, `broadcast_id`, or `metadata` (of active connections, as
                JSON text, whatever it begins with).
            prefix: what was typed.
        """

    def examine(self, location: Location) -> Iterator[Finding]:
        """Look at a ledger and at the engine, for `doctor`. Nothing is created, migrated or repaired."""
