"""The parts of a store for those who look at the whole of a ledger, or care for it: their verbs, for every engine.

`ws_manager.repository.store` has the rules that hold for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Optional, Protocol

from ws_manager.models import (
    Message,
)
from ws_manager.repository.copied import CopiedTable, Counters, Seal, Values
from ws_manager.repository.findings import (
    ActiveConnection,
    Backlog,
    Ended,
    FeedEntry,
    MessageFilter,
    RecentMessage,
    TableColumns,
)
from ws_manager.repository.records import (
    Position,
)


class History(Protocol):
    """Messages, by filters."""

    def names(self, first: str, end: str, limit: int) -> list[str]:
        """Return the msg_ids from one name to another, which is left out, in the order of their names."""

    def names_ending(self, part: str, limit: int) -> list[str]:
        """Return msg_ids that end with a text."""

    def find(self, msg_id: str) -> Optional[Message]:
        """Return one message."""

    def newest(self, wanted: MessageFilter, limit: int) -> list[Message]:
        """Return the newest of the messages that are wanted, newest first."""

    def position(self, since: Optional[str] = None) -> Position:
        """Return the position behind what is committed now, or before the first message sent at a time or later."""

    def after(self, position: Position, wanted: MessageFilter, limit: int) -> tuple[list[Message], Position]:
        """Return the messages behind a position that are wanted, oldest first, and the position that was reached."""

    def text_of(self, position: Position) -> str:
        """Return a position as text without spaces, for those who come back with it."""

    def position_of(self, text: str) -> Position:
        """Return the position of such a text.

        Raises:
            InvalidInput: the text is not a place.
        """


class Overview(Protocol):
    """Questions about this moment. Each is bounded, or answered from an index."""

    def connections(
        self, order: str, limit: int, agent: Optional[str], text: Optional[str]
    ) -> list[ActiveConnection]:
        """Return active connections.

        Args:
            order: one of `ORDERS`.
            limit: at most this many.
            agent: only this agent's.
            text: only those with it in their ws_id, agent or metadata, in upper or lower case.
        """

    def count(self, agent: Optional[str], text: Optional[str]) -> int:
        """Return how many `connections` there would be without a limit."""

    def whole_backlog(self) -> Backlog:
        """Return what has not arrived, over the whole ledger."""

    def backlog(self, ws_id: str, after: int) -> tuple[int, Optional[str]]:
        """Return how many messages of a connection above a `seq` are pending, and when the oldest was sent.

        It counts up to `MOST_COUNTED`.
        """

    def messages(self, limit: int, characters: int) -> list[RecentMessage]:
        """Return the newest messages, newest first, with that many characters of their content."""

    def endings(self, limit: int) -> list[Ended]:
        """Return the newest of the last 10,000 events that say why something ended, newest first."""

    def count_sent(self) -> int:
        """Return how many messages were ever sent."""

    def count_connections(self) -> int:
        """Return how many connections there are, active or not."""


class Feed(Protocol):
    """What happened, as one sequence: events, and confirmations. A cursor is text, and the engine's own."""

    def end(self) -> str:
        """Return the cursor behind everything so far."""

    def since(self, at: str) -> str:
        """Return the cursor before the first thing that happened at a time or later, as far as it is kept."""

    def count_confirmed(self, cursor: str) -> int:
        """Return how many messages were confirmed behind a cursor, as far as the journal is kept."""

    def is_cursor(self, text: str) -> bool:
        """Return whether a text has the form of a cursor."""

    def has_gap(self, cursor: str) -> bool:
        """Return whether something behind a cursor is no longer kept, or the cursor is of another ledger."""

    def after(self, cursor: str, limit: int) -> list[FeedEntry]:
        """Return what happened behind a cursor, in order; at most `limit`."""


class Copying(Protocol):
    """A ledger's rows, for a copy of it on any engine, and the seal that ends the writing to it."""

    def page(self, table: CopiedTable, after: Optional[Values], limit: int, characters: int) -> list[Values]:
        """Return the next rows of a table, in the order of their keys; none if there are no more.

        Args:
            table: one of `COPIED`.
            after: the key behind which they are; None for the first.
            limit: at most this many.
            characters: about the most of the table's large column; at least one row.
        """

    def write(self, table: CopiedTable, gone: Sequence[Values], rows: Sequence[Values]) -> None:
        """Delete rows by their keys, and then write others, in one transaction: in an unfinished copy alone.

        Raises:
            LedgerError: the ledger is not one, or a row cannot be written. The error names it.
        """

    def counters(self) -> Counters:
        """Return what has to go on in a copy."""

    def finish(self, counters: Counters) -> None:
        """Let an unfinished copy go on where its source has ended, and take its seal off."""

    def seal(self) -> Optional[Seal]:
        """Return the seal; None if the ledger is not sealed."""

    def put_seal(self, seal: Seal) -> None:
        """Refuse every write from now on, of those too who have the ledger open. What was under way is committed.

        Inside a transaction it is a part of that.

        Raises:
            LedgerBusy: somebody goes on writing for 30 seconds.
        """

    def take_seal(self) -> None:
        """Take the seal off, if there is one."""


class Maintenance(Protocol):
    """Statements over whole tables. `delete_over` and `trim` commit by themselves, in small parts."""

    def count_over(self, table: str, cutoff: str) -> int:
        """Return how many entries of a table are over and older than a time."""

    def delete_over(self, table: str, cutoff: str) -> int:
        """Delete them in small parts, between which others can write. Return their number."""

    def trim(self, log: str, since: str, until: str) -> int:
        """Delete a log's entries from its first to the first between two times, and return how many they were.

        Args:
            log: `heartbeat_log` or `receipts`.
            since: the earlier time.
            until: the later time.
        """

    def vacuum(self) -> None:
        """Return the space of deleted rows to the file system."""

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give every row of the ledger's tables, for an export: the table, and the values by the names of columns."""

    def columns(self, version: int) -> dict[str, TableColumns]:
        """Return the columns of each table in an export of a version.

        Raises:
            InvalidInput: this program does not know that version.
        """

    def is_empty(self) -> bool:
        """Return whether no table has, or ever had, a row."""

    def insert(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows of an export as they are; all have the same columns.

        Raises:
            RowRefused: the table cannot take one: one like it is there already, or a value is missing.
        """

    def complete_import(self, at: str) -> None:
        """Bring what an export of an older version has brought up to date."""
