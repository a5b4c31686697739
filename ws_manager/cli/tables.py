"""Tables on a terminal. This is the only module that imports Rich, and it is imported on a terminal alone."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Callable

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ws_manager.cli.output import Row, json_text, visible

_GAP = 2
_LEAST_OF_A_SHORTENED_COLUMN = 24
_LEAST_OF_A_FOLDED_COLUMN = 9


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its header.
        cell: makes a cell from a row.
        style: makes the style of a cell from a row; "" for none.
        right: whether it is aligned to the right.
        goes: 0 for a column that always stays; in a narrow terminal the highest number goes first.
        shortened: whether a cell may be cut where the line ends.
    """

    title: str
    cell: Callable[[Row], str]
    style: Callable[[Row], str] = lambda _row: ""
    right: bool = False
    goes: int = 0
    shortened: bool = False


def show_connections(found: Sequence[Row], timeout: float) -> None:
    """Draw the active connections.

    Args:
        found: rows of `list`.
        timeout: seconds after which a heartbeat is marked as old.
    """
    now = datetime.now(timezone.utc)

    def age(row: Row) -> str:
        return "yellow" if _seconds(row["last_heartbeat"], now) > timeout else ""

    def backlog(row: Row) -> str:
        return "yellow" if row["pending"] else ""

    _show(
        found,
        [
            Column("ws_id", lambda row: str(row["ws_id"])),
            Column("agent", lambda row: str(row["agent"])),
            Column("connected", lambda row: ago(row["connected_at"], now), right=True),
            Column("heartbeat", lambda row: ago(row["last_heartbeat"], now), age, right=True),
            Column("pending", lambda row: str(row["pending"]), backlog, right=True),
            Column("sent", lambda row: str(row["message_count"]), right=True, goes=1),
            Column(
                "metadata",
                lambda row: json_text(row["metadata"]) if row["metadata"] else "",
                goes=2,
                shortened=True,
            ),
        ],
    )


def show_history(found: Sequence[Row]) -> None:
    """Draw messages.

    Args:
        found: rows of `history`.
    """
    now = datetime.now(timezone.utc)
    _show(
        found,
        [
            Column("sent", lambda row: ago(row["sent_at"], now), right=True),
            Column("to", lambda row: str(row["recipient_id"])),
            Column("state", _state, _state_style),
            Column("type", lambda row: str(row["msg_type"]), goes=1),
            Column("from", lambda row: str(row["sender_id"] or ""), goes=2),
            Column("msg_id", lambda row: str(row["msg_id"]), goes=3),
            Column("content", lambda row: json_text(row["content"]), shortened=True),
        ],
    )


def ago(moment: object, now: datetime) -> str:
    """Say how long ago a timestamp of the ledger was, in one unit; the timestamp itself if it is unreadable."""
    seconds = _seconds(moment, now)
    if seconds == float("inf"):
        return str(moment)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit} ago"
    return f"{max(0, int(seconds))}s ago"


def _seconds(moment: object, now: datetime) -> float:
    try:
        return (now - datetime.fromisoformat(str(moment))).total_seconds()
    except (ValueError, TypeError):
        # A file of the earlier implementation may hold anything; it counts as long ago.
        return float("inf")


def _state(row: Row) -> str:
    return "delivered" if row["delivered"] else "set aside" if row["rejected_at"] else "pending"


def _state_style(row: Row) -> str:
    return "green" if row["delivered"] else "red" if row["rejected_at"] else "yellow"


def _show(found: Sequence[Row], columns: list[Column]) -> None:
    if not found:
        return
    console = console_of(*shutil.get_terminal_size())
    console.print(table_of(found, columns, console.width))


def console_of(width: int, height: int) -> Console:
    """Return a console on stdout that takes data as data."""
    # Rich reads NO_COLOR and TERM itself. Text, never str, is what keeps data from being read as markup.
    # The size is given because it takes every dumb terminal for one of 80 columns.
    return Console(file=sys.stdout, markup=False, highlight=False, emoji=False, width=width, height=height)


def table_of(found: Sequence[Row], columns: list[Column], width: int) -> Table:
    """Return a table that fits into so many columns of a terminal; what could steer one is escaped."""
    cells = {column.title: [visible(column.cell(row)) for row in found] for column in columns}
    widths = {title: max(cell_len(text) for text in [title, *texts]) for title, texts in cells.items()}
    told = [column for column in columns if not column.goes or any(cells[column.title])]
    kept = _fitting(told, widths, width)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for column in kept:
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            overflow="ellipsis" if column.shortened else "fold",
            no_wrap=column.shortened,
            # Left to itself, Rich takes the room from the columns that may wrap, down to a letter each.
            width=widths[column.title],
        )
    for number, row in enumerate(found):
        table.add_row(*(Text(cells[column.title][number], column.style(row)) for column in kept))
    return table


def _fitting(columns: list[Column], widths: dict[str, int], available: int) -> list[Column]:
    """Leave out columns, then narrow `widths`, until the rest fits into the terminal."""

    def excess(kept: list[Column], shortened_to: int) -> int:
        return (
            sum(min(widths[c.title], shortened_to) if c.shortened else widths[c.title] for c in kept)
            + _GAP * (len(kept) - 1)
            - available
        )

    kept = list(columns)
    while excess(kept, _LEAST_OF_A_SHORTENED_COLUMN) > 0 and any(column.goes for column in kept):
        kept.remove(max(kept, key=lambda column: column.goes))
    # What is cut comes first, then names are folded, the last of them first: an id should stay in one piece.
    narrowed = [c for c in kept if c.shortened] + [
        c for c in reversed(kept) if not c.shortened and not c.right
    ]
    for column in narrowed:
        least = min(
            widths[column.title],
            _LEAST_OF_A_SHORTENED_COLUMN if column.shortened else _LEAST_OF_A_FOLDED_COLUMN,
        )
        too_much = excess(kept, 10**6)
        widths[column.title] = max(least, widths[column.title] - max(0, too_much))
    return kept
