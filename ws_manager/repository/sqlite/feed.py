"""What happened in a ledger, as one sequence: the `events` table and the journal of receipts.

A cursor is `event-receipt-seq`: the last event that was read, the last row of the journal that was begun, and the
last message that was read of that row, or 0 after all of them. Ids have no gaps, so one that is missing was deleted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Optional

from ws_manager.repository.findings import FeedEntry
from ws_manager.repository.ranges import spans_of
from ws_manager.repository.sqlite.database import Database

_CURSOR = re.compile(r"(\d{1,18})-(\d{1,18})-(\d{1,18})")
_CONFIRMED = "confirmed"
_MESSAGES = 500


class Feed:
    """Statements that read what happened, in order."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def end(self) -> str:
        return _text(self._db.highest_id("events"), self._db.highest_id("receipts"), 0)

    def since(self, at: str) -> str:
        event, receipt = (
            int(
                self._db.value(f"SELECT max(id) FROM {table} WHERE ts < ?", (at,))
                or self._before_first(table)
            )
            for table in ("events", "receipts")
        )
        return _text(event, receipt, 0)

    def count_confirmed(self, cursor: str) -> int:
        rows = self._db.rows("SELECT ranges FROM receipts WHERE id > ?", (_numbers(cursor)[1],))
        return sum(last - first + 1 for (ranges,) in rows for first, last in spans_of(ranges))

    def is_cursor(self, text: str) -> bool:
        return _CURSOR.fullmatch(text) is not None

    def has_gap(self, cursor: str) -> bool:
        event, receipt, seq = _numbers(cursor)
        # The rest of a row that was begun must still be there.
        return any(
            not self._before_first(table) <= last <= self._db.highest_id(table)
            for table, last in (("events", event), ("receipts", receipt - 1 if seq else receipt))
        )

    def after(self, cursor: str, limit: int) -> list[FeedEntry]:
        event, receipt, seq = _numbers(cursor)
        events = self._db.rows(
            "SELECT id, ts, ws_id, msg_id, kind, detail FROM events WHERE id > ? ORDER BY id LIMIT ?",
            (event, limit),
        )
        found: list[FeedEntry] = []
        happened = iter(events)
        following = next(happened, None)
        for row, at, message, whole in self._confirmed(receipt, seq, limit):
            while following is not None and following[1] <= at and len(found) < limit:
                event = following[0]
                found.append(self._of_event(following, _text(event, receipt, seq)))
                following = next(happened, None)
            if len(found) >= limit:
                return found
            receipt, seq = row, 0 if whole else message[0]
            found.append(
                FeedEntry(
                    _text(event, receipt, seq),
                    _CONFIRMED,
                    at,
                    message[2],
                    message[1],
                    None,
                    message[0],
                    message[3],
                    message[4],
                )
            )
        while following is not None and len(found) < limit:
            event = following[0]
            found.append(self._of_event(following, _text(event, receipt, seq)))
            following = next(happened, None)
        return found

    def _of_event(self, row: tuple[int, str, str, str, str, str], cursor: str) -> FeedEntry:
        _id, at, ws_id, msg_id, kind, detail = row
        return FeedEntry(cursor, kind, at, ws_id, msg_id, detail)

    def _confirmed(
        self, receipt: int, seq: int, limit: int
    ) -> Iterator[tuple[int, str, tuple[int, str, str, Optional[str], Optional[str]], bool]]:
        """Give the messages that rows of the journal name; the first row's from a `seq` on.

        Each comes with its row, the row's time, and whether it is the last of the row.
        """
        rows = self._db.rows(
            "SELECT id, ts, ranges FROM receipts WHERE id >= ? ORDER BY id LIMIT ?", (receipt, limit)
        )
        left = limit
        for row, at, ranges in rows:
            last = seq if row == receipt else 0
            if row == receipt and not seq:
                # The cursor is behind all of its messages.
                continue
            spans = spans_of(ranges)
            for first, final in spans:
                start = max(first, last + 1)
                while start <= final and left > 0:
                    messages = self._db.rows(
                        "SELECT id, msg_id, recipient_id, sender_id, broadcast_id FROM messages"
                        " WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
                        (start, final, min(left, _MESSAGES)),
                    )
                    for message in messages:
                        left -= 1
                        yield row, at, message, message[0] == spans[-1][1]
                    if len(messages) < _MESSAGES:
                        break
                    start = messages[-1][0] + 1
            if left <= 0:
                return

    def _before_first(self, table: str) -> int:
        """Return the id before the first that is still there."""
        first = self._db.value(f"SELECT min(id) FROM {table}")
        return self._db.highest_id(table) if first is None else int(first) - 1


def _text(event: int, receipt: int, seq: int) -> str:
    return f"{event}-{receipt}-{seq}"


def _numbers(cursor: str) -> tuple[int, int, int]:
    parts = _CURSOR.fullmatch(cursor)
    assert parts is not None
    return int(parts[1]), int(parts[2]), int(parts[3])
