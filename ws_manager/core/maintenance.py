"""Care for the ledger: prune, export, import."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ws_manager.errors import Conflict, InvalidInput, LedgerError
from ws_manager.models import seconds_before, utc_now
from ws_manager.repository.database import Database
from ws_manager.repository.maintenance import PRUNED, Maintenance
from ws_manager.repository.schema import VERSION

_FORMAT = "ws-manager-export"


@dataclass(frozen=True)
class Pruned:
    """How many rows of each table were deleted, or would be."""

    messages: int
    heartbeat_log: int
    events: int
    broadcasts: int
    connections: int


def prune(db: Database, older_than: float, *, dry_run: bool = False, vacuum: bool = False) -> Pruned:
    """Delete what is over and older than so many seconds.

    That is: confirmed messages, the heartbeat log, events, broadcasts without messages, and disconnected
    connections without messages. What is pending or set aside is never deleted, and no id is used again. It
    goes in small transactions, so that others can write in between.

    Args:
        db: the ledger.
        older_than: seconds.
        dry_run: only count. Connections whose last messages would go too are counted only once those are gone.
        vacuum: give the room back to the file system afterwards; needs as much free room as the ledger has.

    Raises:
        LedgerError: the file cannot be written.
    """
    maintenance = Maintenance(db)
    cutoff = seconds_before(utc_now(), older_than)
    counts = {}
    for table in PRUNED:
        counts[table] = (
            maintenance.count_over(table, cutoff) if dry_run else maintenance.delete_over(table, cutoff)
        )
    if vacuum and not dry_run:
        maintenance.vacuum()
    return Pruned(**counts)


def export_lines(db: Database) -> Iterator[str]:
    """Give the whole ledger as lines of JSON, as it was at the first of them.

    The first line names the format; then a line for each row, and at the end the highest ids that were given out.

    Raises:
        LedgerError: the file cannot be read.
    """
    maintenance = Maintenance(db)
    with maintenance.snapshot():
        yield _line({"format": _FORMAT, "version": VERSION, "exported_at": utc_now()})
        for table in maintenance.tables():
            for row in maintenance.rows(table):
                yield _line({"table": table, "row": row})
        for row in maintenance.rows("sqlite_sequence"):
            yield _line({"table": "sqlite_sequence", "row": row})


def import_lines(db: Database, lines: Iterable[str]) -> dict[str, int]:
    """Fill an empty ledger with the lines of an export, in one transaction: all rows or none.

    Returns:
        The number of rows of each table.

    Raises:
        Conflict: the ledger is not empty.
        InvalidInput: a line is not one of an export, or the export is cut off.
    """
    maintenance = Maintenance(db)
    counts: dict[str, int] = {}
    with db.transaction():
        if not maintenance.is_empty():
            raise Conflict(f"{db.path} is not empty", hint="import into a new file: --db new.db")
        tables = {name: maintenance.columns(name) for name in [*maintenance.tables(), "sqlite_sequence"]}
        numbered = enumerate(lines, start=1)
        _check_header(next(numbered, (1, ""))[1])
        for number, line in numbered:
            table, row = _row_of(line, number)
            if table not in tables or set(row) != set(tables[table]):
                raise InvalidInput(
                    f"line {number} is no row of this version's tables", hint="upgrade ws-manager"
                )
            try:
                maintenance.insert(table, tables[table], row)
            except LedgerError:
                raise
            except Exception as error:
                raise InvalidInput(f"line {number} cannot be imported: {error}") from None
            counts[table] = counts.get(table, 0) + 1
        if "sqlite_sequence" not in counts and counts:
            raise InvalidInput("the export is cut off: its last lines are missing")
    counts.pop("sqlite_sequence", None)
    return counts


def _check_header(line: str) -> None:
    try:
        header = json.loads(line)
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise InvalidInput("this is no export of ws-manager", hint="make one with: ws-manager export")
    if header.get("version") != VERSION:
        raise InvalidInput(
            f"the export has schema {header.get('version')}, this version {VERSION}",
            hint="import it with the version that wrote it, then open the file with this one",
        )


def _row_of(line: str, number: int) -> tuple[str, dict[str, Any]]:
    try:
        entry = json.loads(line)
        table, row = entry["table"], entry["row"]
    except (ValueError, KeyError, TypeError):
        raise InvalidInput(f"line {number} is not one of an export") from None
    if not isinstance(table, str) or not isinstance(row, dict):
        raise InvalidInput(f"line {number} is not one of an export")
    return table, row


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
