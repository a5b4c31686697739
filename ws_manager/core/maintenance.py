"""Care for the ledger: prune, export, import."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ws_manager.errors import Conflict, InvalidInput
from ws_manager.models import ACTIVE, DISCONNECTED, seconds_before, utc_now
from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.sqlite.maintenance import PRUNED, SEQUENCES, Maintenance
from ws_manager.repository.sqlite.messages import set_aside_beyond_limits
from ws_manager.repository.sqlite.schema import TABLES, VERSION, columns_since
from ws_manager.strict_json import NotJson, decode_json, is_json

_FORMAT = "ws-manager-export"


@dataclass(frozen=True)
class Pruned:
    """How many rows of each table were deleted, or would be."""

    messages: int
    heartbeat_log: int
    events: int
    broadcasts: int
    webhook_events: int
    connections: int


def prune(db: Database, older_than: float, *, dry_run: bool = False, vacuum: bool = False) -> Pruned:
    """Delete what is over and older than so many seconds.

    That is: confirmed messages, the heartbeat log, events, broadcasts without messages, routed webhook events of
    more than 30 days, and disconnected connections without messages. What is pending, set aside or unrouted is
    never deleted, and no id is used again. It goes in small transactions, so that others can write in between.

    Args:
        db: the ledger.
        older_than: seconds.
        dry_run: only count.
        vacuum: give the room back to the file system afterwards; needs as much free room as the ledger has,
            and nobody else can write meanwhile.

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


def trim_heartbeat_log(db: Database, older_than: float) -> int:
    """Delete the oldest rows of the heartbeat log, and return how many that were.

    It stops reading at the first row that stays, so it can be done often. A row that lies as far in
    the future was written before the clock was set back: it goes too, and does not keep those behind it.

    Args:
        db: the ledger.
        older_than: seconds.

    Raises:
        LedgerError: the file cannot be written.
    """
    now = utc_now()
    since, until = seconds_before(now, older_than), seconds_before(now, -older_than)
    return Maintenance(db).trim_heartbeat_log(since, until)


def export_lines(db: Database) -> Iterator[str]:
    """Give the whole ledger as lines of JSON, as it was at the first of them.

    The first line names the format; then comes a line for each row, then the highest ids that were given
    out, and at the end the number of lines, by which an import knows that it is whole. Tables that are not
    the ledger's are left out.

    Raises:
        LedgerError: the file cannot be read.
    """
    maintenance = Maintenance(db)
    count = 0
    with maintenance.snapshot():
        yield _line({"format": _FORMAT, "version": VERSION, "exported_at": utc_now()})
        for table in (*TABLES, SEQUENCES):
            for row in maintenance.rows(table):
                count += 1
                yield _line({"table": table, "row": row})
    yield _line({"rows": count})


def import_lines(db: Database, lines: Iterable[str]) -> dict[str, int]:
    """Fill an empty ledger with the lines of an export, in one transaction: all rows or none.

    Nobody else can write into it until the last line has come. An export of an older schema is brought up to date: it
    has NULL where it has no column. Rows beyond the limits of `strict_json` come back
    unchanged; a message among them that is pending is set aside.

    Returns:
        The number of rows of each table.

    Raises:
        Conflict: the ledger is not empty.
        InvalidInput: a line is not one of an export, or the export is cut off.
    """
    maintenance = Maintenance(db)
    counts = dict.fromkeys((*TABLES, SEQUENCES), 0)
    columns = {name: maintenance.columns(name) for name in counts}
    numbered = enumerate(lines, start=1)
    version = _version(next(numbered, (1, ""))[1])
    lacking = {name: columns_since(version, name) for name in counts}
    whole = False
    with db.transaction():
        if not maintenance.is_empty():
            raise Conflict(f"{db.path} is not empty", hint="import into a new file: --db new.db")
        for number, line in numbered:
            try:
                if whole:
                    raise InvalidInput("it stands behind the end of the export")
                entry = _decoded(line)
                whole = "rows" in entry
                if whole:
                    _check_end(entry, sum(counts.values()))
                else:
                    table, row = _row_of(entry, columns, lacking)
                    maintenance.insert(table, columns[table], row)
                    counts[table] += 1
            except InvalidInput as error:
                raise InvalidInput(
                    f"line {number} cannot be imported: {error.message}", hint="nothing was imported"
                ) from None
        if not whole:
            raise InvalidInput(
                "the export is cut off: its last line is missing",
                hint="nothing was imported; export it again",
            )
        set_aside_beyond_limits(db, utc_now())
    del counts[SEQUENCES]
    return counts


def _version(line: str) -> int:
    """Return the schema of an export."""
    try:
        header = decode_json(line, "line")
    except InvalidInput:
        header = None
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise InvalidInput(
            "line 1 is not the head of an export of ws-manager", hint="make one with: ws-manager export"
        )
    version = header.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= VERSION:
        raise InvalidInput(
            f"the export has schema {version}, and this ws-manager knows {VERSION}", hint="upgrade ws-manager"
        )
    return version


def _check_end(entry: dict[str, Any], count: int) -> None:
    if entry["rows"] != count:
        raise InvalidInput(f"the export had {entry['rows']} rows, and {count} have come")


def _decoded(line: str) -> dict[str, Any]:
    try:
        entry = decode_json(line, "line")
    except NotJson:
        entry = None
    if not isinstance(entry, dict):
        raise InvalidInput("it is no JSON object")
    return entry


def _row_of(
    entry: dict[str, Any], columns: dict[str, list[str]], lacking: dict[str, set[str]]
) -> tuple[str, dict[str, Any]]:
    table, row = entry.get("table"), entry.get("row")
    if not isinstance(table, str) or table not in columns:
        raise InvalidInput("it names no table of this version")
    if not isinstance(row, dict) or set(row) != set(columns[table]) - lacking[table]:
        raise InvalidInput(f"it has not the columns of {table}")
    row |= dict.fromkeys(lacking[table])
    if table == SEQUENCES and (row["name"] not in TABLES or not isinstance(row["seq"], int)):
        raise InvalidInput("it is no highest id of a table of this version")
    if table == "connections" and row["status"] not in (ACTIVE, DISCONNECTED):
        raise InvalidInput("its status is neither active nor disconnected")
    for name in ("metadata", "content"):
        if name in row:
            _check_json(name, row[name])
    return table, row


def _check_json(name: str, text: object) -> None:
    """Make sure that what is read back as JSON is JSON: one bad row would spoil every list."""
    if not isinstance(text, str):
        raise InvalidInput(f"its {name} is no text")
    # However deep it nests: what was stored before there were limits comes back unchanged.
    if not is_json(text):
        raise InvalidInput(f"its {name} is not JSON")
    if name == "metadata" and not text.lstrip().startswith("{"):
        raise InvalidInput("its metadata is not a JSON object")


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
