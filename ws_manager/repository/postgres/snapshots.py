"""What was committed since somebody last looked, whatever order it was committed in.

The order of ids is not the order of commits: a reader that goes on behind the highest id that it has seen misses what
was given a lower id and is committed later. So a position is a snapshot of PostgreSQL (`pg_snapshot`, section 9.28.9
of its manual): the transactions that had ended when it was taken. What is new is what a later snapshot sees and this
one does not; each row has its transaction in `tx`. A transaction that stays open for long holds nobody up.

A snapshot is cut behind the last transaction that had written a row of the table then. A server that crashes forgets
the numbers of transactions that it had not yet flushed, such as those of NOTIFY, and gives them again: without the
cut, the rows that are then written under them would count as seen. It also lets a position stay the same as long as
only other tables are written, or only rows of other gateways.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Optional

from ws_manager.repository.postgres.database import Database

MESSAGES, EVENTS = "messages", "events"

_FIRST = 3
"""The first transaction of a cluster."""


class Seen(NamedTuple):
    """How far a table was read.

    Attributes:
        past: the snapshot up to which everything was read.
        now: the snapshot that is being read; None if none is.
        last: the id up to which that was read.
        gateway: whose messages are read; None for all rows.
    """

    past: str
    now: Optional[str] = None
    last: int = 0
    gateway: Optional[str] = None

    def reached(self) -> Seen:
        """Return the place behind the snapshot that is being read."""
        assert self.now is not None
        return Seen(self.now, gateway=self.gateway)


NEW = (
    "(tx >= pg_snapshot_xmax(%(past)s::pg_snapshot)"
    " OR tx = ANY(ARRAY(SELECT pg_snapshot_xip(%(past)s::pg_snapshot))))"
    " AND pg_visible_in_snapshot(tx, %(now)s::pg_snapshot)"
)
"""The condition for what was committed between two snapshots. The index on `tx` leads to it, and to nothing else."""

BETWEEN = f"{NEW} AND id > %(last)s"
"""The condition for what is left to read of that. Its parameters are `Seen._asdict()`."""


def current(db: Database, table: str = MESSAGES, gateway: Optional[str] = None) -> str:
    """Return the present snapshot, as far as it matters for a table, or for a gateway's messages."""
    where = "" if gateway is None else "WHERE gateway = %(gateway)s "
    # Not by `tx` alone: that would be the column of the result, a text.
    row = db.row(
        "SELECT pg_current_snapshot()::text,"
        f" (SELECT {table}.tx::text FROM {table} {where}ORDER BY {table}.tx DESC LIMIT 1)",
        {"gateway": gateway},
    )
    assert row is not None
    end = _FIRST if row[1] is None else int(row[1]) + 1
    xmin, xmax, under_way = row[0].split(":")
    left = [number for number in under_way.split(",") if number and int(number) < end]
    return f"{min(int(xmin), end)}:{min(int(xmax), end)}:{','.join(left)}"


def reading(db: Database, seen: Seen, table: str = MESSAGES) -> Seen:
    """Return where to read on: with a present snapshot if none is being read."""
    return seen if seen.now is not None else Seen(seen.past, current(db, table))


def is_snapshot(text: str) -> bool:
    """Return whether a text from outside is a snapshot of PostgreSQL, which would fail on another one."""
    parts = re.fullmatch(r"(\d{1,18}):(\d{1,18}):((?:\d{1,18},)*\d{1,18})?", text, re.ASCII)
    if parts is None:
        return False
    xmin, xmax = int(parts[1]), int(parts[2])
    under_way = [int(number) for number in (parts[3] or "").split(",") if number]
    return (
        0 < xmin <= xmax and under_way == sorted(under_way) and all(xmin <= each < xmax for each in under_way)
    )
