"""What a copy of a ledger takes over, whatever engine keeps either side, and the seal that ends the writing to one.

What is not taken over belongs to the processes of one place: leases, holds and locks.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

from ws_manager.errors import LedgerSealed
from ws_manager.remedies import FINISH_COPY, UNSEAL, USE_MOVED
from ws_manager.repository.findings import PROBLEM, Finding

Values = tuple[Any, ...]
"""A row: its values are numbers, texts and None, in the order of `CopiedTable.columns`."""


class CopiedTable(NamedTuple):
    """A table as it crosses the seam.

    Attributes:
        name: its name.
        key: the columns that rows are in order of, and found by. They come first in each row.
        others: the other columns.
        large: the column whose texts decide how many rows fit into memory.
        unique: a column with a value of its own in each row, which may come back under a lower key: SQLite's VACUUM
            may give other rowids.
    """

    name: str
    key: tuple[str, ...]
    others: tuple[str, ...]
    large: Optional[str] = None
    unique: Optional[str] = None

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns."""
        return (*self.key, *self.others)

    def key_of(self, row: Values) -> Values:
        """Return the key of a row."""
        return row[: len(self.key)]

    def described(self, row: Values) -> str:
        """Return words for a row, without what it says."""
        return f"{self.name}, {', '.join(f'{name} {value}' for name, value in zip(self.key, row))}"


def _table(
    name: str, key: str, others: str, *, large: Optional[str] = None, unique: Optional[str] = None
) -> CopiedTable:
    return CopiedTable(name, tuple(key.split()), tuple(others.split()), large, unique)


# `number` is the order in which the rows of a table were written that has no id: SQLite's rowid. `ranges` are the
# messages that a row of the journal names, as `ranges_of` writes them.
COPIED = (
    _table(
        "connections",
        "id",
        "ws_id agent metadata connected_at last_heartbeat status message_count disconnected_at epoch confirmed_seq"
        " close_code close_reason gateway token",
        large="metadata",
    ),
    _table(
        "messages",
        "id",
        "msg_id msg_type sender_id recipient_id content sent_at delivered confirmed_at rejected_at reject_reason"
        " retry_of refusals written_at broadcast_id traceparent wants_reply reply_to",
        large="content",
    ),
    _table("heartbeat_log", "id", "ws_id ts latency_ms"),
    _table(
        "broadcasts",
        "number",
        "broadcast_id first_id last_id recipients msg_type sender_id sent_at traceparent",
        unique="broadcast_id",
    ),
    _table("events", "id", "ts ws_id msg_id kind detail"),
    _table("gateways", "number", "id pid url started_at seen_at", unique="id"),
    _table(
        "webhook_events",
        "number",
        "event_id event_type agent msg_type payload received_at status recipients routed_at broadcast_id reason",
        large="payload",
        unique="event_id",
    ),
    _table("receipts", "id", "ts ranges", large="ranges"),
    _table("bars", "kind name", "at"),
    _table("idempotency_keys", "subject operation name", "fingerprint result ts"),
    _table("workers", "ws_id", "worker max_attempts"),
    _table("attempts", "seq", "ws_id ended running"),
    _table(
        "asks", "seq", "msg_id recipient_id sender_id subject ts answer_id answer answered_at", large="answer"
    ),
)
"""The tables that are copied, in this order: what refers to messages comes behind them."""

NUMBERED = ("connections", "messages", "heartbeat_log", "events", "receipts")
"""The tables whose ids are never given twice, whatever was deleted."""

FREE_TEXTS = frozenset({"close_reason", "reject_reason", "detail", "reason"})
"""Columns with words for people. A NUL in them, which PostgreSQL cannot hold, is copied as U+FFFD."""


class Counters(NamedTuple):
    """What goes on in a copy.

    Attributes:
        highest: for each table of `NUMBERED`, the highest id that was ever given out.
        connected: how many connections there ever were.
    """

    highest: dict[str, int]
    connected: int


MOVED, UNFINISHED = "moved", "unfinished"

_SAID = {MOVED: "the ledger was moved to ", UNFINISHED: "the ledger is an unfinished copy of "}


class Seal(NamedTuple):
    """Why nothing can be written to a ledger.

    Attributes:
        kind: `MOVED`, or `UNFINISHED`: it is a copy that was not finished yet.
        other: where it was moved to, or what it is a copy of: a location without a password.
    """

    kind: str
    other: str

    @property
    def text(self) -> str:
        """What the engine itself says when somebody writes."""
        return f"{_SAID[self.kind]}{self.other}"

    def error(self, location: str) -> LedgerSealed:
        """Return the error for a ledger that has this seal."""
        if self.kind == MOVED:
            return LedgerSealed(
                f"{location} was moved to {self.other}, and takes nothing more",
                remedy=USE_MOVED,
                about=self.other,
                cause="the ledger was moved, and takes nothing more",
            )
        return LedgerSealed(
            f"{location} is an unfinished copy of {self.other}, and takes nothing else",
            remedy=FINISH_COPY,
            cause="the ledger is an unfinished copy",
        )

    @property
    def finding(self) -> Finding:
        """What `doctor` says of it."""
        what = "it was moved to" if self.kind == MOVED else "it is an unfinished copy of"
        remedy = UNSEAL if self.kind == MOVED else FINISH_COPY
        return Finding("seal", PROBLEM, f"{what} {self.other}: nothing can be written", None, remedy)


def seal_in(text: str) -> Optional[Seal]:
    """Return the seal of which an engine's error speaks, if it does."""
    return next(
        (Seal(kind, text[len(said) :]) for kind, said in _SAID.items() if text.startswith(said)), None
    )
