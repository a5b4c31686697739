"""Copying a whole ledger to another place, of another engine too, while it is in use; and the seal that ends its use.

A pass goes through each table of both sides in the order of keys, and writes to the target what is missing or
different there, and deletes what the source no longer has: so a copy can be stopped and gone on with at any moment,
and a second pass writes only what has changed. Until it is finished the target takes nothing else. The last pass
comes behind the seal of the source, and is checked: each table must have the same digest on both sides.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Optional

from ws_manager.errors import Conflict, InvalidInput, WsManagerError
from ws_manager.remedies import CHECK_COPY, COPY_TO_EMPTY
from ws_manager.repository.copied import COPIED, MOVED, UNFINISHED, CopiedTable, Seal, Values

if TYPE_CHECKING:
    from ws_manager.repository.store import Store

ROWS = 2000
"""Rows of a page, and of a transaction on the target."""

CHARACTERS = 4 * 1024 * 1024
"""Characters of contents, from which on a page or a transaction has fewer rows."""

_CHECKPOINT_WRITES = 100

Progress = Callable[[str, int], None]
"""Called with a table's name and the number of its rows that were read."""


@dataclass(frozen=True)
class Copied:
    """What a copy has done.

    Attributes:
        rows: of each table of the target.
        written: how many rows were written to the target.
        deleted: how many rows of the target the source no longer had.
        sealed: whether the source is sealed and the target complete.
        seconds: how long it took.
        sealed_seconds: how long of that the source was sealed.
    """

    rows: dict[str, int]
    written: int
    deleted: int
    sealed: bool
    seconds: float
    sealed_seconds: float


class _Digest:
    """The digest of a table: SHA-256 over its rows in the order of keys, each an array of JSON and a comma."""

    _encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

    def __init__(self, *, hashed: bool = True) -> None:
        self.rows = 0
        self._hashed = hashed
        self._hash = hashlib.sha256()

    def add(self, page: list[Values]) -> None:
        # Many rows at once, for each call costs much; where a page ends leaves no trace.
        self.rows += len(page)
        if not self._hashed:
            return
        self._hash.update(self._encode(page)[1:-1].encode())
        self._hash.update(b",")

    def same_as(self, other: _Digest) -> bool:
        return (self.rows, self._hash.digest()) == (other.rows, other._hash.digest())


class Copier:
    """One copy of a ledger.

    Args:
        source: what is copied; it may be in use.
        target: an empty ledger, or an unfinished copy of the source.
        progress: called after each page.
        rows, characters: the size of a page and of a transaction.
    """

    def __init__(
        self,
        source: Store,
        target: Store,
        progress: Progress = lambda _table, _rows: None,
        *,
        rows: int = ROWS,
        characters: int = CHARACTERS,
    ) -> None:
        self._source, self._target = source, target
        self._progress = progress
        self._limit, self._characters = rows, characters
        self._written = self._deleted = self._writes = 0

    def run(self, *, seal: bool) -> Copied:
        """Copy what the target lacks. A source that is sealed already is copied to the end.

        Args:
            seal: seal the source, and finish the copy.

        Raises:
            InvalidInput: both are the same ledger.
            Conflict: the target is neither empty nor an unfinished copy of this source, or another process copies
                into it; or the source was moved elsewhere.
            WsManagerError: a table is not the same on both sides. The source stays sealed, the copy unfinished.
        """
        began = time.monotonic()
        if self._source.is_same(self._target):
            raise InvalidInput("a ledger cannot be copied to itself", hint="give another place")
        hold = self._target.hold_copying()
        if hold is None:
            raise Conflict(
                f"another process copies to {self._target.location}", hint="wait until it has ended"
            )
        try:
            sealed = self._check_source()
            self._begin(moved=sealed)
            counts = self._pass(checked=False)
            sealed_at = time.monotonic()
            if seal or sealed:
                if not sealed:
                    self._source.copying.put_seal(Seal(MOVED, self._target.location))
                counts = self._finish()
        finally:
            hold.release()
        ended = time.monotonic()
        done = seal or sealed
        rows = {table: digest.rows for table, digest in counts.items()}
        return Copied(
            rows, self._written, self._deleted, done, ended - began, ended - sealed_at if done else 0.0
        )

    def _check_source(self) -> bool:
        """Return whether the source is sealed already, for this target."""
        seal = self._source.copying.seal()
        if seal is None:
            return False
        if seal != Seal(MOVED, self._target.location):
            raise seal.error(self._source.location)
        return True

    def _begin(self, *, moved: bool) -> None:
        """Make the target an unfinished copy of the source, unless it is one."""
        ours = Seal(UNFINISHED, self._source.location)
        with self._target.atomic():
            seal = self._target.copying.seal()
            if seal == ours:
                return
            if seal is not None:
                raise seal.error(self._target.location)
            if not self._target.maintenance.is_empty():
                if moved:
                    raise Conflict(
                        f"{self._source.location} was moved to {self._target.location} already",
                        hint="there is nothing left to copy",
                    )
                raise Conflict(f"{self._target.location} is not empty", remedy=COPY_TO_EMPTY)
            self._target.copying.put_seal(ours)

    def _pass(self, *, checked: bool) -> dict[str, _Digest]:
        """Make the target what the source is, and return the digest of each table of the source.

        Args:
            checked: False if only the numbers of rows are wanted.
        """
        return {table.name: self._bring_up_to_date(table, _Digest(hashed=checked)) for table in COPIED}

    def _finish(self) -> dict[str, _Digest]:
        """Copy what has changed up to the seal, check the target, and let it go on."""
        counts = self._pass(checked=True)
        differing = [table.name for table in COPIED if not counts[table.name].same_as(self._digest(table))]
        if differing:
            raise WsManagerError(
                f"{self._target.location} differs from {self._source.location} in {', '.join(differing)}",
                remedy=CHECK_COPY,
                about=self._source.location,
            )
        self._target.copying.finish(self._source.copying.counters())
        return counts

    def _digest(self, table: CopiedTable) -> _Digest:
        """Return the digest of a table of the target."""
        digest = _Digest()
        for page in self._pages(self._target, table, None):
            digest.add(page)
        return digest

    def _pages(self, store: Store, table: CopiedTable, after: Optional[Values]) -> Iterator[list[Values]]:
        """Give the rows of a table behind a key, in pieces that fit into memory."""
        while page := store.copying.page(table, after, self._limit, self._characters):
            yield page
            after = table.key_of(page[-1])

    def _bring_up_to_date(self, table: CopiedTable, digest: _Digest) -> _Digest:
        """Make a table of the target what it is in the source, and return the digest of what was read there."""
        work = _Batch(table, self._limit, self._characters)
        last: Optional[Values] = None
        for page in self._pages(self._source, table, None):
            digest.add(page)
            self._compare(work, page, last)
            last = table.key_of(page[-1])
            self._progress(table.name, digest.rows)
        for present in self._pages(self._target, table, last):
            for row in present:
                work.delete(table.key_of(row))
            self._write_if_full(work)
        self._write(work)
        return digest

    def _compare(self, work: _Batch, page: list[Values], after: Optional[Values]) -> None:
        """Write what differs between a page of the source and the rows that the target has in its place."""
        table = work.table
        pages = self._pages(self._target, table, after)
        found = next(pages, [])
        if found == page:
            return
        present = iter(found)
        row: Optional[Values] = next(present, None)

        def following() -> Optional[Values]:
            nonlocal present
            if (row := next(present, None)) is None:
                present = iter(next(pages, []))
                row = next(present, None)
            return row

        for wanted in page:
            key = table.key_of(wanted)
            # What lies before it in the target has gone from the source.
            while row is not None and table.key_of(row) < key:
                work.delete(table.key_of(row))
                self._write_if_full(work)
                row = following()
            if row is None or table.key_of(row) > key:
                work.insert(wanted)
            else:
                if row != wanted:
                    work.replace(key, wanted)
                row = following()
            self._write_if_full(work)

    def _write_if_full(self, work: _Batch) -> None:
        if work.is_full:
            self._write(work)

    def _write(self, work: _Batch) -> None:
        if work.gone or work.rows:
            self._target.copying.write(work.table, work.gone, work.rows)
            self._written += len(work.rows)
            self._deleted += work.deleted
            self._writes += 1
            if self._writes % _CHECKPOINT_WRITES == 0:
                self._target.checkpoint()
        work.clear()


class _Batch:
    """What is written to one table of the target in one transaction."""

    def __init__(self, table: CopiedTable, limit: int, characters: int) -> None:
        self.table = table
        self._limit, self._characters = limit, characters
        self._place = None if table.large is None else table.columns.index(table.large)
        self.clear()

    def clear(self) -> None:
        self.gone: list[Values] = []
        self.rows: list[Values] = []
        self.deleted = self._size = 0

    def delete(self, key: Values) -> None:
        self.gone.append(key)
        self.deleted += 1

    def insert(self, row: Values) -> None:
        self.rows.append(row)
        if self._place is not None:
            self._size += len(row[self._place] or "")

    def replace(self, key: Values, row: Values) -> None:
        self.gone.append(key)
        self.insert(row)

    @property
    def is_full(self) -> bool:
        return max(len(self.gone), len(self.rows)) >= self._limit or self._size >= self._characters


def unseal(source: Store) -> bool:
    """Take the seal off a ledger that was moved, so that it can be written to again. False if it has none.

    Raises:
        LedgerSealed: it is an unfinished copy.
    """
    seal = source.copying.seal()
    if seal is None:
        return False
    if seal.kind != MOVED:
        raise seal.error(source.location)
    source.copying.take_seal()
    return True
