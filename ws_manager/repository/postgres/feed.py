"""What happened in a ledger, as one sequence: the `events` table and the journal of receipts.

A cursor is `ledger-event-receipt-seq`: which ledger it is of, the last event that was read, the last row of the
journal that was begun, and the last message that was read of that row, or 0 after all of them. A row is named by its
transaction and its id, `tx.id`, and rows are read in that order. Only those are read whose transaction has a lower
number than any that is still open: nothing can come before them any more, so a cursor is good for ever, and small.
The price is that a transaction that stays open holds up what is committed after it began.

`deleted` has, for each of the two tables, the last row that was deleted. With that a reader notices that something
behind its cursor is gone. The numbers of rows would not tell, because what was rolled back has used some up.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple, Optional

from ws_manager.repository.findings import FeedEntry
from ws_manager.repository.postgres.database import Database, Row

EVENTS, RECEIPTS = "events", "receipts"

# The highest numbers are bigint's: nothing that matches fails in a statement.
_CURSOR = re.compile(r"([0-9a-f]{8})-(\d{1,18})\.(\d{1,18})-(\d{1,18})\.(\d{1,18})-(\d{1,18})", re.ASCII)
_CONFIRMED = "confirmed"
_ROWS = 200

# An ORDER BY names the table too: `tx` alone would be the column of the result, which is text.
_BEHIND = "tx >= %(tx)s::text::xid8 AND (tx, id) > (%(tx)s::text::xid8, %(id)s) AND tx < %(end)s::text::xid8"


class _Place(NamedTuple):
    """A place in a table: behind the row that a transaction wrote with an id."""

    tx: int
    id: int


_START = _Place(0, 0)


class _Cursor(NamedTuple):
    """A cursor, without the ledger."""

    event: _Place
    receipt: _Place
    seq: int = 0


class _Confirmed(NamedTuple):
    """A message that a row of the journal names."""

    row: _Place
    at: str
    last: bool
    seq: int
    msg_id: str
    ws_id: str
    sender_id: Optional[str]
    broadcast_id: Optional[str]


class Feed:
    """Statements that read what happened, in order."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @cached_property
    def _ledger(self) -> str:
        """What tells this ledger from others: also from one that was restored, where transactions are others."""
        found = self._db.value(
            "SELECT concat_ws(':', (SELECT system_identifier FROM pg_control_system()), oid, 'events'::regclass::oid)"
            " FROM pg_database WHERE datname = current_database()"
        )
        return f"{zlib.crc32(str(found).encode()):08x}"

    def end(self) -> str:
        return self._text(_Cursor(self._end(EVENTS), self._end(RECEIPTS)))

    def since(self, at: str) -> str:
        return self._text(_Cursor(self._since(EVENTS, at), self._since(RECEIPTS, at)))

    def count_confirmed(self, cursor: str) -> int:
        # Up to `end`, so that who counts on from there counts nothing twice.
        found = self._db.value(
            f"SELECT sum(cardinality(seqs)) FROM receipts WHERE {_BEHIND}",
            self._behind(RECEIPTS, _parsed(cursor).receipt),
        )
        return int(found or 0)

    def is_cursor(self, text: str) -> bool:
        return _CURSOR.fullmatch(text) is not None

    def has_gap(self, cursor: str) -> bool:
        if not cursor.startswith(self._ledger):
            return True
        event, (tx, id_), seq = _parsed(cursor)
        # The rest of a row that was begun must still be there.
        receipt = _Place(tx, id_ - 1 if seq else id_)
        return any(
            not self._before_first(table) <= place <= self._end(table)
            for table, place in ((EVENTS, event), (RECEIPTS, receipt))
        )

    def after(self, cursor: str, limit: int) -> list[FeedEntry]:
        event, receipt, seq = _parsed(cursor)
        events = iter(
            self._db.rows(
                f"SELECT tx::text, id, ts, ws_id, msg_id, kind, detail FROM events WHERE {_BEHIND}"
                " ORDER BY events.tx, id LIMIT %(limit)s",
                {**self._behind(EVENTS, event), "limit": limit},
            )
        )
        found: list[FeedEntry] = []
        following = next(events, None)
        for message in self._confirmed(receipt, seq, limit):
            while following is not None and following[2] <= message.at and len(found) < limit:
                event = _Place(int(following[0]), following[1])
                found.append(self._of_event(following, _Cursor(event, receipt, seq)))
                following = next(events, None)
            if len(found) >= limit:
                return found
            receipt, seq = message.row, 0 if message.last else message.seq
            found.append(self._of_message(message, _Cursor(event, receipt, seq)))
        while following is not None and len(found) < limit:
            event = _Place(int(following[0]), following[1])
            found.append(self._of_event(following, _Cursor(event, receipt, seq)))
            following = next(events, None)
        return found

    def _of_event(self, row: Row, cursor: _Cursor) -> FeedEntry:
        _tx, _id, at, ws_id, msg_id, kind, detail = row
        return FeedEntry(self._text(cursor), kind, at, ws_id, msg_id, detail)

    def _of_message(self, found: _Confirmed, cursor: _Cursor) -> FeedEntry:
        return FeedEntry(
            self._text(cursor),
            _CONFIRMED,
            found.at,
            found.ws_id,
            found.msg_id,
            None,
            found.seq,
            found.sender_id,
            found.broadcast_id,
        )

    def _confirmed(self, receipt: _Place, seq: int, limit: int) -> Iterator[_Confirmed]:
        """Give the messages that rows of the journal name: what is left of the first row, then the rows behind it."""
        left = limit
        if seq:
            for found in self._of_rows("tx = %(tx)s::text::xid8 AND id = %(id)s", receipt, seq, left):
                left -= 1
                yield found
        while left > 0:
            # As many rows as name enough messages. They may all be gone: so it goes on behind these rows.
            rows = self._db.rows(
                "SELECT tx::text, id FROM (SELECT tx, id, sum(cardinality(seqs)) OVER (ORDER BY tx, id)"
                f" - cardinality(seqs) AS before FROM (SELECT tx, id, seqs FROM receipts WHERE {_BEHIND}"
                f" ORDER BY tx, id LIMIT {_ROWS}) AS next) AS counted WHERE before < %(left)s"
                " ORDER BY counted.tx, id",
                {**self._behind(RECEIPTS, receipt), "left": left},
            )
            if not rows:
                return
            until = _Place(int(rows[-1][0]), rows[-1][1])
            which = f"{_BEHIND} AND (tx, id) <= ({until.tx}::text::xid8, {until.id})"
            for found in self._of_rows(which, receipt, 0, left):
                left -= 1
                yield found
            receipt = until

    def _of_rows(self, which: str, place: _Place, seq: int, limit: int) -> Iterator[_Confirmed]:
        """Give the messages that some rows of the journal name, above a `seq`."""
        rows = self._db.rows(
            "SELECT entry.tx::text, entry.id, entry.ts, m.id = entry.last, m.id, m.msg_id, m.recipient_id,"
            " m.sender_id, m.broadcast_id"
            " FROM (SELECT tx, id, ts, seqs, (SELECT max(seq) FROM unnest(seqs) AS seq) AS last"
            f" FROM receipts WHERE {which}) AS entry"
            " CROSS JOIN LATERAL (SELECT DISTINCT seq FROM unnest(entry.seqs) AS seq WHERE seq > %(seq)s) AS named"
            " JOIN messages AS m ON m.id = named.seq"
            " ORDER BY entry.tx, entry.id, m.id LIMIT %(limit)s",
            {**self._behind(RECEIPTS, place), "seq": seq, "limit": limit},
        )
        for tx, id_, *values in rows:
            yield _Confirmed(_Place(int(tx), id_), *values)

    def _behind(self, table: str, place: _Place) -> dict[str, object]:
        """Return the parameters of `_BEHIND`."""
        return {"tx": str(place.tx), "id": place.id, "end": str(self._end(table).tx)}

    def _end(self, table: str) -> _Place:
        """Return the place behind everything that nothing can come before any more.

        It is not behind the last row's transaction: a server that crashes gives numbers again that have written
        nothing.
        """
        row = self._db.row(
            "SELECT pg_snapshot_xmin(pg_current_snapshot())::text,"
            f" (SELECT tx::text FROM {table} ORDER BY {table}.tx DESC LIMIT 1),"
            " (SELECT tx::text FROM deleted WHERE name = %s)",
            (table,),
        )
        assert row is not None
        return _Place(min(int(row[0]), max(int(row[1] or 0), int(row[2] or 0)) + 1), 0)

    def _since(self, table: str, at: str) -> _Place:
        row = self._db.row(
            f"SELECT tx::text, id FROM {table} WHERE ts >= %s ORDER BY {table}.tx, id LIMIT 1", (at,)
        )
        end = self._end(table)
        return end if row is None else min(end, _Place(int(row[0]), max(row[1] - 1, 0)))

    def _before_first(self, table: str) -> _Place:
        """Return the last place before the first row that is still there, behind which nothing was deleted."""
        deleted = self._db.row("SELECT tx::text, id FROM deleted WHERE name = %s", (table,))
        if deleted is None:
            return _START
        # Rows are deleted by their times, not quite in this order: what is gone between others is not noticed.
        first = self._since(table, "")
        return min(first, _Place(int(deleted[0]), deleted[1]))

    def _text(self, cursor: _Cursor) -> str:
        (event_tx, event), (receipt_tx, receipt), seq = cursor
        return f"{self._ledger}-{event_tx}.{event}-{receipt_tx}.{receipt}-{seq}"


def _parsed(cursor: str) -> _Cursor:
    parts = _CURSOR.fullmatch(cursor)
    assert parts is not None
    event_tx, event, receipt_tx, receipt, seq = map(int, parts.groups()[1:])
    return _Cursor(_Place(event_tx, event), _Place(receipt_tx, receipt), seq)
