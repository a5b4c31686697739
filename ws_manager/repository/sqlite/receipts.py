"""The `receipts` table, one row per commit that settles receipts, and the marking of what they confirm.

`ranges` names the messages by their ids, as `ws_manager.repository.ranges` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Optional

from ws_manager.models import Receipt, Registration
from ws_manager.repository.ranges import ranges_of, runs_of
from ws_manager.repository.sqlite.database import Database, from_json
from ws_manager.repository.sqlite.messages import PENDING

_LEAST_RUN = 8
"""Neighbouring messages from this number on are marked as a range. A broadcast that everybody confirms is one."""

_RAISED = from_json("ws_id", "epoch", "seq")


class Receipts:
    """Statements that settle receipts."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def settle(self, receipts: Sequence[Receipt], at: str) -> set[Registration]:
        void = self._raise_confirmed(receipts)
        by_writing: dict[Optional[str], list[int]] = {}
        for receipt in receipts:
            if not void or (receipt.ws_id, receipt.epoch) not in void:
                by_writing.setdefault(receipt.written_at, []).extend(receipt.seqs)
        marked: list[int] = []
        for written_at, seqs in by_writing.items():
            marked += self._mark(sorted(set(seqs)), at, written_at)
        self._journal(marked, at)
        return void

    def settle_one(self, ws_id: str, seq: int, at: str) -> None:
        self._journal(self._mark([seq], at, None), at)
        self._db.execute(
            "UPDATE connections SET confirmed_seq = ? WHERE ws_id = ? AND confirmed_seq < ? AND NOT EXISTS"
            f" (SELECT 1 FROM messages WHERE recipient_id = ? AND id > confirmed_seq AND id < ? AND {PENDING})",
            (seq, ws_id, seq, ws_id, seq),
        )

    def _raise_confirmed(self, receipts: Iterable[Receipt]) -> set[Registration]:
        """Raise `confirmed_seq` of many connections in one statement, and return the registrations that are void."""
        highest: dict[Registration, int] = {}
        for receipt in receipts:
            registration = (receipt.ws_id, receipt.epoch)
            highest[registration] = max(highest.get(registration, 0), receipt.seqs[-1])
        raised = json.dumps([[*registration, seq] for registration, seq in highest.items()])
        count = self._db.execute(
            "UPDATE connections SET confirmed_seq = max(confirmed_seq, raised.seq)"
            f" FROM {_RAISED} AS raised"
            " WHERE connections.ws_id = raised.ws_id AND connections.epoch = raised.epoch",
            (raised,),
        ).rowcount
        if count == len(highest):
            return set()
        rows = self._db.rows(
            f"SELECT ws_id, epoch FROM {_RAISED} AS raised WHERE NOT EXISTS (SELECT 1 FROM connections"
            " WHERE connections.ws_id = raised.ws_id AND connections.epoch = raised.epoch)",
            (raised,),
        )
        return {(row[0], row[1]) for row in rows}

    def _mark(self, seqs: Sequence[int], at: str, written_at: Optional[str]) -> Sequence[int]:
        """Mark what is pending of some messages, by their ascending numbers, and return which that were."""
        update = (
            "UPDATE messages SET delivered = 1, confirmed_at = ?, written_at = coalesce(?, written_at)"
            f" WHERE {PENDING} AND "
        )
        runs, others = _runs(seqs)
        count = 0
        for first, last in runs:
            count += self._db.execute(f"{update} id BETWEEN ? AND ?", (at, written_at, first, last)).rowcount
        if others:
            named = "id IN (SELECT value FROM json_each(?))"
            count += self._db.execute(update + named, (at, written_at, json.dumps(others))).rowcount
        if count == len(seqs):
            return seqs
        # An answer has confirmed one before, say. RETURNING would cost every receipt, and is newer than 3.34.
        rows = self._db.rows(
            "SELECT id FROM messages WHERE id IN (SELECT value FROM json_each(?)) AND confirmed_at = ? ORDER BY id",
            (json.dumps(list(seqs)), at),
        )
        return [row[0] for row in rows]

    def _journal(self, seqs: Iterable[int], at: str) -> None:
        """Write which messages were marked."""
        ranges = ranges_of(seqs)
        if ranges:
            self._db.execute("INSERT INTO receipts (ts, ranges) VALUES (?, ?)", (at, ranges))


def _runs(seqs: Sequence[int]) -> tuple[list[tuple[int, int]], list[int]]:
    """Split ascending numbers into long runs of neighbours, each as its first and last number, and the others."""
    runs: list[tuple[int, int]] = []
    others: list[int] = []
    for first, last in runs_of(seqs):
        if last - first + 1 >= _LEAST_RUN:
            runs.append((first, last))
        else:
            others += range(first, last + 1)
    return runs, others
