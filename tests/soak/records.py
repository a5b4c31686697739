"""What is known of a soak: what was sent, what every socket has read and confirmed, and what the ledger says."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

BY_OPERATOR = "4010"
"""The close code that says that an operator has disconnected a connection."""

_SENT_AWAY = ("1001", "1012")

TIMEOUT = 3.0
"""Seconds: the heartbeat timeout of the gateway."""

_LAG = 1.0
"""Seconds by which an agent may be late to see that its socket has ended."""

PENDING, DELIVERED, ASIDE, BOTH = "pending", "delivered", "set aside", "delivered and set aside"


class Sent(NamedTuple):
    """What a sender has committed: one message, or a broadcast."""

    key: str
    at: float
    to: list[str]
    msg_id: Optional[str]
    broadcast_id: Optional[str]


class Tried(NamedTuple):
    """What a sender is about to send. It may be committed without the sender's knowledge, where an answer is lost."""

    key: str


class Row(NamedTuple):
    """A message as the ledger has it. `at` is when it was confirmed or set aside, in seconds since 1970."""

    seq: int
    msg_id: str
    recipient: str
    broadcast_id: Optional[str]
    state: str
    at: float
    reason: Optional[str]
    refusals: int


@dataclass
class Link:
    """One socket of an agent, and all that went through it. Times are seconds since 1970.

    Attributes:
        number: which one.
        begun: before it was opened.
        greeted: when the first frame was read: from here on it is surely registered.
        seqs: what it has read, ascending.
        times: when.
        receipts: the seqs up to which it has confirmed, ascending.
        receipt_times: when.
        rejected: what it has rejected, and when.
        refused: it was closed with 1009 after this seq.
        closed: when and why it has ended.
        closed_at: when it has ended.
        closed_with: the code with which the gateway has closed it, if it has.
        deaf: it has read nothing for a while, so it may have seen its end late.
    """

    number: int
    begun: float
    greeted: float = math.inf
    seqs: array[int] = field(default_factory=lambda: array("q"))
    times: array[float] = field(default_factory=lambda: array("d"))
    receipts: array[int] = field(default_factory=lambda: array("q"))
    receipt_times: array[float] = field(default_factory=lambda: array("d"))
    rejected: dict[int, float] = field(default_factory=dict)
    refused: Optional[int] = None
    closed: str = "open"
    closed_at: float = math.inf
    closed_with: str = ""
    deaf: bool = False

    def read_at(self, seq: int) -> Optional[float]:
        """When it has read a message; None if it has not."""
        place = bisect_left(self.seqs, seq)
        return self.times[place] if place < len(self.seqs) and self.seqs[place] == seq else None

    def confirmed_at(self, seq: int) -> Optional[float]:
        """When it has confirmed a message that it has read; None if it has not."""
        place = bisect_left(self.receipts, seq)
        if place == len(self.receipts) or seq in self.rejected or self.read_at(seq) is None:
            return None
        return self.receipt_times[place]


class Registration(NamedTuple):
    """The ledger was written to at some time between these two: receipts of sockets before it are void."""

    begun: float
    ended: float
    by: str


@dataclass
class Recipient:
    """One connection.

    Attributes:
        links: its sockets, by number.
        by_commands: its registrations by commands.
        disconnected: when each command that has disconnected it began and ended.
        swept: when a gateway has called it lost.
        read: the seq and the msg_id of every message that it has read, by key.
        highest: the highest seq of them.
    """

    links: dict[int, Link] = field(default_factory=dict)
    by_commands: list[Registration] = field(default_factory=list)
    disconnected: list[tuple[float, float]] = field(default_factory=list)
    swept: list[float] = field(default_factory=list)
    read: dict[str, tuple[int, str]] = field(default_factory=dict)
    highest: int = 0

    def open_links(self) -> list[Link]:
        """Its sockets that are open, or are about to be."""
        return [link for link in self.links.values() if link.closed == "open"]

    def is_cut_off_without_cause(self, link: Link) -> bool:
        """Whether the gateway says that an operator has disconnected a socket, and nobody has.

        It may say so of an older socket too, if the newer one has said goodbye.
        """
        return (
            link.closed_with == BY_OPERATOR
            and not any(
                other.begun < link.closed_at for other in self.links.values() if other.number > link.number
            )
            and not any(begun < link.closed_at and link.begun < ended for begun, ended in self.disconnected)
        )

    def is_swept_without_cause(self, at: float) -> bool:
        """Whether a connection was called lost while its socket was open, or soon after a gateway sent it away."""
        begun = [link for link in self.links.values() if link.begun < at]
        if not begun or begun[-1].greeted > at or begun[-1].deaf:
            return False
        link = begun[-1]
        sent_away = link.closed_with in _SENT_AWAY and link.closed_at > at - TIMEOUT
        return sent_away or link.closed_at > at + _LAG

    def registrations(self) -> list[Registration]:
        """All that are known for sure."""
        by_sockets = [
            Registration(link.begun, link.greeted, f"socket {link.number}")
            for link in self.links.values()
            if link.greeted < math.inf
        ]
        return by_sockets + self.by_commands


class Tail:
    """The lines of a file that another process writes, as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = 0

    def lines(self) -> Iterator[str]:
        """Give the whole lines that have come since the last time."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._place)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._place += len(line)
                yield line[:-1].decode()


def sent_in(tail: Tail) -> Iterator[Union[Sent, Tried]]:
    """What has come in the journal of a sender."""
    for line in tail.lines():
        noted = json.loads(line)
        if "tried" in noted:
            yield Tried(noted["tried"])
            continue
        yield Sent(noted["key"], noted["at"], noted["to"], noted.get("msg_id"), noted.get("broadcast_id"))


class Swept(NamedTuple):
    """A connection that a gateway has disconnected without closing a socket of it: none came back in time."""

    ws_id: str
    at: float


_EVENTS = "SELECT id, ts, ws_id, kind, detail FROM events WHERE id > ? ORDER BY id"
LOST = "heartbeat timeout"
"""The reason in the event of a connection that a gateway has called lost."""


class Events:
    """The table of events, read as it grows."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._place = 0

    def swept(self) -> Iterator[Swept]:
        """Give what was swept since the last time."""
        closed = ("", "")
        for place, at, ws_id, kind, detail in self._db.execute(_EVENTS, (self._place,)):
            self._place = place
            if kind == "closed":
                closed = ws_id, at
            elif kind == "disconnected" and detail == LOST and closed != (ws_id, at):
                yield Swept(ws_id, seconds(at))


COLUMNS = (
    "id, msg_id, recipient_id, broadcast_id, delivered, confirmed_at, rejected_at, reject_reason, refusals"
)
"""What is read of a message."""

_STATES = {
    (False, False): PENDING,
    (True, False): DELIVERED,
    (False, True): ASIDE,
    (True, True): BOTH,
}


class Watched:
    """The table of messages, read again and again.

    Attributes:
        rows: every message that was ever seen, as it was last seen.
        noticed: before what time a message was seen to be confirmed, by its seq.
        pending: how many are pending.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._read_nothing()

    def _read_nothing(self) -> None:
        self._settled_below = 0
        self.rows: dict[int, Row] = {}
        self.noticed: dict[int, float] = {}
        self._open: set[int] = set()

    @property
    def pending(self) -> int:
        return len(self._open)

    def look(self) -> tuple[list[Row], list[Row]]:
        """Read what may have changed. Return the rows that are settled now, and those that have gone unsettled."""
        settled: list[Row] = []
        there: set[int] = set()
        for row in self.all_above(self._settled_below):
            there.add(row.seq)
            known = self.rows.get(row.seq)
            if known is None or known.state == PENDING:
                self.rows[row.seq] = row
                if row.state == PENDING:
                    self._open.add(row.seq)
                else:
                    self._open.discard(row.seq)
                    settled.append(row)
        now = time.time()
        for row in settled:
            self.noticed[row.seq] = now
        gone = self._open - there
        self._open -= gone
        self._settled_below = min(self._open, default=max(self.rows, default=0) + 1) - 1
        return settled, [self.rows[seq] for seq in sorted(gone)]

    def all_above(self, seq: int) -> Iterator[Row]:
        """Read what the table has above a seq."""
        for row in self._found(seq):
            seq, msg_id, recipient, broadcast_id, delivered, confirmed_at, rejected_at, reason, refusals = row
            state = _STATES[bool(delivered), bool(rejected_at)]
            at = seconds(rejected_at or confirmed_at) if state != PENDING else 0.0
            yield Row(seq, msg_id, recipient, broadcast_id, state, at, reason, refusals)

    def _found(self, seq: int) -> Iterable[tuple[Any, ...]]:
        return self._db.execute(f"SELECT {COLUMNS} FROM messages WHERE id > ? ORDER BY id", (seq,))


def seconds(text: Optional[str]) -> float:
    """A time of the ledger, in seconds since 1970; 0 for NULL."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0
