"""The `receipts` table, one row per commit that settles receipts, and the marking of what they confirm."""

from __future__ import annotations

from collections.abc import Sequence

from ws_manager.models import Receipt, Registration
from ws_manager.repository.postgres.database import Database
from ws_manager.repository.postgres.messages import PENDING


class Receipts:
    """Statements that settle receipts."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def settle(self, receipts: Sequence[Receipt], at: str) -> set[Registration]:
        with self._db.transaction():
            present = self._locked({receipt.ws_id for receipt in receipts})
            valid = [receipt for receipt in receipts if present.get(receipt.ws_id) == receipt.epoch]
            self._raise_confirmed(valid)
            self._mark(valid, at)
        registrations = {(receipt.ws_id, receipt.epoch) for receipt in receipts}
        return {(ws_id, epoch) for ws_id, epoch in registrations if present.get(ws_id) != epoch}

    def settle_one(self, ws_id: str, seq: int, at: str) -> None:
        with self._db.transaction():
            present = self._locked({ws_id})
            self._mark([Receipt(ws_id, present.get(ws_id, 0), [seq])], at)
            self._db.execute(
                "UPDATE connections SET confirmed_seq = %(seq)s WHERE ws_id = %(ws_id)s AND confirmed_seq < %(seq)s"
                " AND NOT EXISTS (SELECT 1 FROM messages WHERE recipient_id = %(ws_id)s AND id > confirmed_seq"
                f" AND id < %(seq)s AND {PENDING})",
                {"ws_id": ws_id, "seq": seq},
            )

    def _locked(self, ws_ids: set[str]) -> dict[str, int]:
        """Lock connections in the order of their ids, and return their epochs."""
        rows = self._db.rows(
            "SELECT ws_id, epoch FROM connections WHERE ws_id = ANY(%s) ORDER BY id FOR NO KEY UPDATE",
            (list(ws_ids),),
        )
        return {row[0]: row[1] for row in rows}

    def _raise_confirmed(self, receipts: Sequence[Receipt]) -> None:
        highest: dict[str, int] = {}
        for receipt in receipts:
            highest[receipt.ws_id] = max(highest.get(receipt.ws_id, 0), receipt.seqs[-1])
        if highest:
            self._db.execute(
                "UPDATE connections SET confirmed_seq = greatest(confirmed_seq, raised.seq)"
                " FROM unnest(%s::text[], %s::bigint[]) AS raised (ws_id, seq)"
                " WHERE connections.ws_id = raised.ws_id",
                (list(highest), list(highest.values())),
            )

    def _mark(self, receipts: Sequence[Receipt], at: str) -> None:
        """Mark what is pending of what receipts name, each for its own connection, and journal that."""
        named = [(seq, receipt.ws_id, receipt.written_at) for receipt in receipts for seq in receipt.seqs]
        if not named:
            return
        seqs, ws_ids, written = map(list, zip(*named))
        self._db.execute(
            "WITH marked AS (UPDATE messages SET delivered = 1, confirmed_at = %(at)s,"
            " written_at = coalesce(named.written_at, messages.written_at)"
            " FROM unnest(%(seqs)s::bigint[], %(ws_ids)s::text[], %(written)s::text[])"
            " AS named (seq, ws_id, written_at)"
            f" WHERE id = named.seq AND recipient_id = named.ws_id AND {PENDING} RETURNING id)"
            " INSERT INTO receipts (ts, seqs) SELECT %(at)s, array_agg(id ORDER BY id) FROM marked"
            " HAVING count(*) > 0",
            {"at": at, "seqs": seqs, "ws_ids": ws_ids, "written": written},
        )
