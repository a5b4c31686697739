"""Care for the ledger: prune, export, import, backup, copy."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Literal

from ws_manager.errors import Conflict, InvalidInput
from ws_manager.models import ACTIVE, DISCONNECTED, seconds_before, utc_now
from ws_manager.remedies import EXPORT, IMPORT_INTO_NEW
from ws_manager.repository.findings import TABLES, RowRefused, TableColumns
from ws_manager.strict_json import NotJson, decode_json, is_json

if TYPE_CHECKING:
    from ws_manager.core.copying import Copied
    from ws_manager.repository.store import Store

_FORMAT = "ws-manager-export"
_MOST_GATHERED, _MOST_CHARACTERS = 1000, 1024 * 1024

Log = Literal["heartbeat_log", "receipts", "idempotency_keys", "asks"]
"""The tables that are trimmed often: a running gateway adds to them all the time."""


@dataclass(frozen=True)
class Pruned:
    """How many rows of each table were deleted, or would be; in the order in which they go."""

    receipts: int
    messages: int
    heartbeat_log: int
    events: int
    broadcasts: int
    webhook_events: int
    connections: int


class Maintenance:
    """Care for one ledger: `Ledger.maintenance`.

    Every method may raise `LedgerError` if the ledger cannot be used.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def prune(self, older_than: float, *, dry_run: bool = False, vacuum: bool = False) -> Pruned:
        """Delete finished rows that are older than this many seconds.

        That is: the journal of receipts, confirmed messages, the heartbeat log, events, broadcasts without messages,
        routed webhook events of more than 30 days, and disconnected connections without messages. What is pending,
        set aside or unrouted is never deleted, and no id is used again. It goes in small transactions, so that others
        can write in between.

        Args:
            older_than: seconds.
            dry_run: only count.
            vacuum: give the room back to the file system afterwards; needs as much free room as the ledger has,
                and nobody else can write meanwhile.

        Raises:
            LedgerError: the file cannot be written.
        """
        maintenance = self._store.maintenance
        cutoff = seconds_before(utc_now(), older_than)
        work = maintenance.count_over if dry_run else maintenance.delete_over
        # In this order: the journal names messages, and a connection goes only when its messages have gone.
        counts = {field.name: work(field.name, cutoff) for field in fields(Pruned)}
        if vacuum and not dry_run:
            maintenance.vacuum()
        return Pruned(**counts)

    def trim(self, log: Log, older_than: float) -> int:
        """Delete the oldest rows of a log, and return how many that were.

        It stops reading at the first row that stays, so it can be done often. A row that lies as far in
        the future was written before the clock was set back: it goes too, and does not keep those behind it.

        Args:
            log: its table.
            older_than: seconds.

        Raises:
            LedgerError: the file cannot be written.
        """
        now = utc_now()
        since, until = seconds_before(now, older_than), seconds_before(now, -older_than)
        return self._store.maintenance.trim(log, since, until)

    def export_lines(self) -> Generator[str, None, None]:
        """Give the whole ledger as lines of JSON, as it was at the first of them.

        The first line names the format; then comes a line for each row, then the highest ids that were given
        out, and at the end the number of lines, by which an import knows that it is whole. Tables that are not
        the ledger's are left out.

        Raises:
            LedgerError: the file cannot be read.
        """
        count = 0
        with self._store.snapshot():
            yield _line({"format": _FORMAT, "version": self._store.version, "exported_at": utc_now()})
            for table, row in self._store.maintenance.rows():
                count += 1
                yield _line({"table": table, "row": row})
        yield _line({"rows": count})

    def import_lines(self, lines: Iterable[str]) -> dict[str, int]:
        """Fill an empty ledger with the lines of an export, in one transaction: all rows or none.

        Nobody else can write into it until the last line has come. An export of an older schema is
        brought up to date: it has NULL where it has no column. Rows beyond the limits of `strict_json` come back
        unchanged; a message among them that is pending is set aside.

        Returns:
            The number of rows of each table.

        Raises:
            Conflict: the ledger is not empty.
            InvalidInput: a line is not one of an export, or the export is cut off.
        """
        maintenance = self._store.maintenance
        numbered = enumerate(lines, start=1)
        columns = maintenance.columns(_version(next(numbered, (1, ""))[1]))
        counts = dict.fromkeys(TABLES, 0)
        rows, whole, gathered = 0, False, _Gathered(self._store)
        with self._store.atomic():
            if not maintenance.is_empty():
                raise Conflict(f"{self._store.location} is not empty", remedy=IMPORT_INTO_NEW)
            for number, line in numbered:
                try:
                    if whole:
                        raise InvalidInput("it is after the end of the export")
                    entry = _decoded(line)
                    whole = "rows" in entry
                    if whole:
                        _check_end(entry, rows)
                    else:
                        table, row = _row_of(entry, columns)
                        gathered.add(number, table, row)
                        rows += 1
                        if table in counts:
                            counts[table] += 1
                except _BadLine:
                    raise
                except InvalidInput as error:
                    # Of two bad lines the first one is named.
                    gathered.write()
                    raise _BadLine(number, error.message) from None
            gathered.write()
            if not whole:
                raise InvalidInput(
                    "the export is cut off: its last line is missing",
                    hint="nothing was imported; export it again",
                )
            maintenance.complete_import(utc_now())
        return counts

    def backup(self, target: Path) -> None:
        """Copy the ledger as it is now to a new file, mode 0600, while others go on writing.

        Raises:
            InvalidInput: the target exists.
        """
        self._store.backup(target)

    def copy_to(
        self,
        target: Maintenance,
        *,
        seal: bool,
        progress: Callable[[str, int], None] = lambda _table, _rows: None,
    ) -> Copied:
        """Copy the whole ledger to another, of another engine too, while it is in use.

        It goes on where it was stopped, and a second call brings what has changed. Ids, times and counters are kept.
        Until the copy is finished, nothing else can be written to the target.

        Args:
            target: of an empty ledger, or of an unfinished copy of this one.
            seal: finish it: from now on nothing can be written to this ledger, by whoever has it open. Then what has
                changed since is copied, and both sides are compared.
            progress: called now and then with a table and the number of its rows that were read.

        Raises:
            InvalidInput: it is the same ledger.
            Conflict: the target is not empty, and no unfinished copy of this one; or another process copies into it.
            LedgerSealed: this ledger was moved elsewhere, or the target is a copy of another.
            WsManagerError: the two differ in the end. This ledger stays sealed, the copy unfinished.
        """
        from ws_manager.core.copying import Copier

        return Copier(self._store, target._store, progress).run(seal=seal)

    def unseal(self) -> bool:
        """Let a ledger that was moved be written to again. False if it was not sealed.

        Raises:
            LedgerSealed: it is an unfinished copy.
        """
        from ws_manager.core.copying import unseal

        return unseal(self._store)

    @property
    def makes_checkpoints(self) -> bool:
        """Whether there is work for `checkpoint`."""
        return self._store.makes_checkpoints

    def checkpoint(self) -> None:
        """Do the work that piles up behind commits. A long-lived process calls it now and then."""
        self._store.checkpoint()


class _BadLine(InvalidInput):
    """A line of an export cannot be imported."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line} cannot be imported: {why}", hint="nothing was imported")


class _Gathered:
    """Rows of an export that are written together: those of one table that follow each other."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._table = ""
        self._lines: list[int] = []
        self._rows: list[dict[str, Any]] = []
        self._characters = 0

    def add(self, line: int, table: str, row: dict[str, Any]) -> None:
        """Add the row of a line.

        Raises:
            _BadLine: as `write`.
        """
        if table != self._table or len(self._rows) >= _MOST_GATHERED or self._characters >= _MOST_CHARACTERS:
            self.write()
            self._table = table
        self._lines.append(line)
        self._rows.append(row)
        self._characters += sum(len(value) for value in row.values() if isinstance(value, str))

    def write(self) -> None:
        """Write what has gathered.

        Raises:
            _BadLine: the ledger cannot take the row of a line.
        """
        lines, rows, self._lines, self._rows, self._characters = self._lines, self._rows, [], [], 0
        if not rows:
            return
        try:
            self._store.maintenance.insert(self._table, rows)
        except RowRefused as error:
            raise _BadLine(lines[error.index], error.message) from None


def _version(line: str) -> int:
    """Return the schema of an export."""
    try:
        header = decode_json(line, "line")
    except InvalidInput:
        header = None
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise InvalidInput("line 1 is not the head of an export of ws-manager", remedy=EXPORT)
    version = header.get("version")
    if isinstance(version, bool) or not isinstance(version, int):
        raise InvalidInput(
            f"the export has schema {version}, which this ws-manager does not know", hint="upgrade ws-manager"
        )
    return version


def _check_end(entry: dict[str, Any], count: int) -> None:
    if entry["rows"] != count:
        raise InvalidInput(f"the export had {entry['rows']} rows, but {count} were read")


def _decoded(line: str) -> dict[str, Any]:
    try:
        entry = decode_json(line, "line")
    except NotJson:
        entry = None
    if not isinstance(entry, dict):
        raise InvalidInput("it is not a JSON object")
    return entry


def _row_of(entry: dict[str, Any], columns: dict[str, TableColumns]) -> tuple[str, dict[str, Any]]:
    table, row = entry.get("table"), entry.get("row")
    if not isinstance(table, str) or table not in columns:
        raise InvalidInput("it does not name a table of this version")
    if not isinstance(row, dict) or row.keys() != columns[table].present:
        raise InvalidInput(f"its columns are not those of {table}")
    row |= dict.fromkeys(columns[table].later)
    if table == "connections" and row["status"] not in (ACTIVE, DISCONNECTED):
        raise InvalidInput("its status is neither active nor disconnected")
    for name in ("metadata", "content"):
        if name in row:
            _check_json(name, row[name])
    return table, row


def _check_json(name: str, text: object) -> None:
    """Make sure that what is read back as JSON is JSON: one bad row would spoil every list."""
    if not isinstance(text, str):
        raise InvalidInput(f"its {name} is not text")
    # At any depth: content from before the limits must come back unchanged.
    if not is_json(text):
        raise InvalidInput(f"its {name} is not JSON")
    if name == "metadata" and not text.lstrip().startswith("{"):
        raise InvalidInput("its metadata is not a JSON object")


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
