"""What was committed since somebody last looked, whatever order it was committed in.

The order of ids is not the order of commits: a reader that goes on behind the highest id that it has seen misses what
was given a lower id and is committed later. So a position is a snapshot of PostgreSQL (`pg_snapshot`, section 9.28.9
of its manual): the transactions that had ended when it was taken. What is new is what a later snapshot sees and this
one does not; each row has its transaction in `tx`. A transaction that stays open for long holds nobody up: it only
makes readers look again at what came since it began.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

from ws_manager.repository.postgres.database import Database


class Seen(NamedTuple):
    """How far a table was read.

    Attributes:
        past: the snapshot up to which everything was read.
        now: the snapshot that is being read; None if none is.
        last: the id up to which that was read.
    """

    past: str
    now: Optional[str] = None
    last: int = 0


BETWEEN = (
    "tx >= pg_snapshot_xmin(%(past)s::pg_snapshot) AND NOT pg_visible_in_snapshot(tx, %(past)s::pg_snapshot)"
    " AND pg_visible_in_snapshot(tx, %(now)s::pg_snapshot) AND id > %(last)s"
)
"""The condition for what was committed between two snapshots. Its parameters are `Seen._asdict()`."""


def current(db: Database) -> str:
    """Return the present snapshot."""
    return str(db.value("SELECT pg_current_snapshot()::text"))


def reading(db: Database, seen: Seen) -> Seen:
    """Return where to read on: with a present snapshot if none is being read."""
    return seen if seen.now is not None else Seen(seen.past, current(db))
