"""Tables on a terminal, drawn with Rich.

Rich is slow to import: this module and the screen of `top` are the only ones that do, and they are imported only
on a terminal.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Optional

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ws_manager.cli.output.text import Row, json_text, visible
from ws_manager.cli.output.times import TIME_FIELDS, age, ago, format_time, now
from ws_manager.models import ACTIVE, AHEAD_SECONDS, ROUTED
from ws_manager.strict_json import Json

if TYPE_CHECKING:
    from ws_manager.cli.output.format_options import FormatOptions
    from ws_manager.core.read.explain import Explanation

_GAP = 2
_MOST_OF_A_FACT = 400
_LEAST_OF_A_TIMELINE = 10
_AROUND_A_TIMELINE = 6
_STANDING = {"good": "green", "waiting": "yellow", "bad": "red"}
# Facts that the table leaves out; JSON has them.
_FOR_PROGRAMS = frozenset({"db_id", "epoch", "confirmed_seq", "unconfirmed"})
# Facts that are shown only if they are not 0.
_RARE = frozenset({"refusals", "pruned", "set_aside", "wants_reply"})
# So narrow that a UUID beside it fits into 80 columns.
_LEAST_OF_A_SHORTENED_COLUMN = 22
_LEAST_OF_A_FOLDED_COLUMN = 9


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: the header; where `--fields` can choose, the name that it takes.
        cell: returns the text of a row's cell.
        style: returns the Rich style of a row's cell; "" for none.
        right: whether it is aligned to the right.
        drop_order: a narrow terminal drops the column with the highest number first, and never one with 0.
        shortened: whether its cells may be cut off.
        wraps: whether a shortened cell continues on the next line instead.
    """

    title: str
    cell: Callable[[Row], str]
    style: Callable[[Row], str] = lambda _row: ""
    right: bool = False
    drop_order: int = 0
    shortened: bool = False
    wraps: bool = False


def show_connections(found: Sequence[Row], timeout: float, formatting: FormatOptions) -> None:
    """Draw connections.

    Args:
        found: rows of `list`.
        timeout: a heartbeat that is older is highlighted, in seconds.
        formatting: the style of times, and whether there is a header.
    """
    present = now()

    def old(row: Row) -> str:
        idle = age(row["last_heartbeat"], present)
        return "yellow" if row["status"] == ACTIVE and not -AHEAD_SECONDS <= idle <= timeout else ""

    # The state of a connection that is not well is never dropped.
    state = Column("close_reason", _how_it_stands, lambda _row: "red", shortened=True, wraps=True)
    has_state = any(_how_it_stands(row) for row in found)
    columns = [
        Column("ws_id", lambda row: str(row["ws_id"])),
        Column("agent", lambda row: str(row["agent"])),
        Column("connected_at", _time("connected_at", formatting), right=True, drop_order=2),
        Column(
            "last_heartbeat",
            _time("last_heartbeat", formatting),
            old,
            right=True,
            drop_order=1 if has_state else 0,
        ),
        Column("pending", lambda row: str(row["pending"]), _yellow("pending"), right=True),
        Column("message_count", lambda row: str(row["message_count"]), right=True, drop_order=3),
        Column("disconnected_at", _time("disconnected_at", formatting), right=True, drop_order=4),
        *([state] if has_state else []),
        Column(
            "metadata",
            lambda row: "" if row["metadata"] == "{}" else json_text(row["metadata"]),
            drop_order=5,
            shortened=True,
        ),
    ]
    _show(found, columns, headers=formatting.headers)


def show_history(found: Sequence[Row], formatting: FormatOptions) -> None:
    """Draw messages.

    Args:
        found: rows of `history`.
        formatting: the style of times, and whether there is a header.
    """
    columns = [
        Column("sent_at", _time("sent_at", formatting), right=True),
        Column("recipient_id", lambda row: str(row["recipient_id"])),
        Column("delivered", _delivered, message_style),
        Column("msg_type", lambda row: str(row["msg_type"]), drop_order=1),
        Column("sender_id", lambda row: str(row["sender_id"] or ""), drop_order=2),
        Column("msg_id", lambda row: str(row["msg_id"]), drop_order=3),
        Column("content", lambda row: json_text(row["content"]), shortened=True),
    ]
    _show(found, columns, headers=formatting.headers)


def show_broadcasts(found: Sequence[Row], formatting: FormatOptions) -> None:
    """Draw broadcasts.

    Args:
        found: rows of `broadcasts`.
        formatting: the style of times, and whether there is a header.
    """
    columns = [
        Column("broadcast_id", lambda row: str(row["broadcast_id"])),
        Column("sent_at", _time("sent_at", formatting), right=True),
        Column("recipients", lambda row: str(row["recipients"]), right=True),
        Column("confirmed", lambda row: str(row["confirmed"]), right=True, drop_order=1),
        Column("pending", lambda row: str(row["pending"]), _yellow("pending"), right=True),
        Column("set_aside", lambda row: str(row["set_aside"]), _yellow("set_aside"), right=True),
        Column("msg_type", lambda row: str(row["msg_type"]), drop_order=2),
        Column("sender_id", lambda row: str(row["sender_id"] or ""), drop_order=3),
    ]
    _show(found, columns, headers=formatting.headers)


def show_barred(found: Sequence[Row]) -> None:
    """Draw the barred agents: rows of `bar`."""
    present = now()
    columns = [
        Column("agent", lambda row: str(row["agent"])),
        Column("at", lambda row: ago(row["at"], present), right=True),
    ]
    _show(found, columns, headers=True)


def show_webhook_events(found: Sequence[Row], formatting: FormatOptions) -> None:
    """Draw events of webhooks.

    Args:
        found: rows of `stripe events`.
        formatting: the style of times, and whether there is a header.
    """
    columns = [
        Column("received_at", _time("received_at", formatting), right=True),
        Column("event_id", lambda row: str(row["event_id"])),
        Column("event_type", lambda row: str(row["event_type"])),
        Column(
            "status",
            lambda row: str(row["status"]),
            lambda row: "green" if row["status"] == ROUTED else "yellow",
        ),
        Column("agent", lambda row: str(row["agent"] or "everyone")),
        Column("recipients", lambda row: str(row["recipients"]), right=True, drop_order=1),
        Column("msg_type", lambda row: str(row["msg_type"]), drop_order=2),
    ]
    _show(found, columns, headers=formatting.headers)


def show_recipients(found: Sequence[Row]) -> None:
    """Draw the recipients of a broadcast.

    Args:
        found: rows of `broadcast --dry-run`.
    """
    columns = [
        Column("ws_id", lambda row: str(row["ws_id"])),
        Column("agent", lambda row: str(row["agent"])),
        Column(
            "gets_it",
            lambda row: "yes" if row["gets_it"] else "no",
            lambda row: "green" if row["gets_it"] else "yellow",
        ),
        Column("why_not", lambda row: str(row["why_not"] or ""), shortened=True, wraps=True),
    ]
    _show(found, columns, headers=True)


def show_explanation(title: str, explanation: Explanation, style: Optional[str]) -> None:
    """Draw the output of `show`: the verdict, the facts and the timeline, oldest first.

    Args:
        title: the thing's identifier.
        explanation: the explanation.
        style: one of `times.STYLES`; None for relative and absolute times.
    """
    console = console_of(*shutil.get_terminal_size())
    console.print(Text(visible(title), "bold"))
    console.print(Text(visible(explanation.verdict), _STANDING[explanation.standing]))
    console.print()
    facts = Table.grid(padding=(0, _GAP, 0, 0))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in explanation.facts.items():
        if name not in _FOR_PROGRAMS and value not in (None, "", [], "{}") and (value or name not in _RARE):
            facts.add_row(Text(name, "dim"), Text(_fact(name, value, style)))
    console.print(facts)
    missing = explanation.facts.get("unconfirmed", [])
    if missing:
        total = explanation.facts["pending"] + explanation.facts["set_aside"]
        some = f", {len(missing)} of {total}" if total > len(missing) else ""
        console.print()
        console.print(Text(f"not confirmed{some}", "dim"))
    for one in missing:
        console.print(Text(visible(f"{one['ws_id']}  {one['msg_id']}")))
        console.print(Padding(Text(visible(one["why"]), "yellow"), (0, 0, 0, _GAP)))
    console.print()
    _show_timeline(console, explanation, style)


def _show_timeline(console: Console, explanation: Explanation, style: Optional[str]) -> None:
    # The oldest entries are left out if not all fit.
    room = max(_LEAST_OF_A_TIMELINE, console.height - len(explanation.facts) - _AROUND_A_TIMELINE)
    left_out = max(0, len(explanation.timeline) - room)
    earlier = f"; {left_out} earlier, which -o json has" if left_out else ""
    console.print(Text(f"what happened (times are UTC{earlier})", "dim"))
    timeline = Table.grid(padding=(0, _GAP, 0, 0))
    timeline.add_column(no_wrap=True, justify="right")
    timeline.add_column(no_wrap=True)
    timeline.add_column(overflow="fold")
    for entry in explanation.timeline[left_out:]:
        what, detail = visible(entry.what), visible(entry.detail)
        timeline.add_row(Text(_moment(entry.at, style)), Text(what, "bold"), Text(detail))
    console.print(timeline)


def _fact(name: str, value: object, style: Optional[str]) -> str:
    if name in TIME_FIELDS:
        return _moment(value, style)
    text = visible(value if isinstance(value, str) and not isinstance(value, Json) else json_text(value))
    if len(text) <= _MOST_OF_A_FACT:
        return text
    return f"{text[:_MOST_OF_A_FACT]}… ({len(text)} characters; -o json has them all)"


def _moment(value: object, style: Optional[str]) -> str:
    """Return a time in a style; by default relative, followed by the time to the second."""
    present = now()
    if style in ("iso", "unix"):
        return visible(str(format_time(value, style, present)))
    if age(value, present) == float("inf"):
        return visible(str(value))
    text = str(value)
    return visible(f"{ago(text, present):>8} {text[:10]} {text[11:19]}")


def _yellow(name: str) -> Callable[[Row], str]:
    """Return the style of a number that should be 0."""
    return lambda row: "yellow" if row[name] else ""


def _time(name: str, formatting: FormatOptions) -> Callable[[Row], str]:
    present = now()
    return lambda row: (
        str(format_time(row[name], formatting.time or "relative", present)) if row[name] else ""
    )


def _how_it_stands(row: Row) -> str:
    """Return the state of a connection and its reason; nothing if it is active and well."""
    reason = str(row["close_reason"] or "no reason given")
    code = "" if row["close_code"] is None else f" ({row['close_code']})"
    if row["status"] != ACTIVE:
        state = reason if reason.startswith(str(row["status"])) else f"{row['status']}: {reason}"
        return state + code
    return f"lost: {reason}{code}" if code else ""


def message_state(row: Row) -> str:
    """Return the state of a message: `delivered`, `set aside` or `pending`."""
    return "delivered" if row["delivered"] else "set aside" if row["rejected_at"] else "pending"


def _delivered(row: Row) -> str:
    return "yes" if row["delivered"] else message_state(row)


def message_style(row: Row) -> str:
    """Return the Rich style of a message's state."""
    return {"delivered": "green", "set aside": "red", "pending": "yellow"}[message_state(row)]


def _show(found: Sequence[Row], columns: list[Column], *, headers: bool) -> None:
    if not found:
        return
    console = console_of(*shutil.get_terminal_size())
    console.print(table_of(found, columns, console.width, headers=headers))


def console_of(width: int, height: int) -> Console:
    """Return a console on stdout that never parses data as markup.

    Args:
        width: columns of the terminal.
        height: lines of the terminal.
    """
    # Rich reads NO_COLOR and TERM itself. It would assume 80 columns for every dumb terminal.
    return Console(file=sys.stdout, markup=False, highlight=False, emoji=False, width=width, height=height)


def table_of(found: Sequence[Row], columns: list[Column], width: int, *, headers: bool = True) -> Table:
    """Return a table of at most `width` columns of a terminal, its cells escaped."""
    cells = {column.title: [visible(column.cell(row)) for row in found] for column in columns}
    widths = {title: max(cell_len(text) for text in [title, *texts]) for title, texts in cells.items()}
    filled = [column for column in columns if not column.drop_order or any(cells[column.title])]
    kept = _fitting(filled, widths, width)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold", show_header=headers)
    for column in kept:
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            overflow="ellipsis" if column.shortened and not column.wraps else "fold",
            no_wrap=column.shortened and not column.wraps,
            # Otherwise Rich would narrow the columns that may wrap, down to one letter.
            width=widths[column.title],
        )
    for number, row in enumerate(found):
        table.add_row(*(Text(cells[column.title][number], column.style(row)) for column in kept))
    return table


def _fitting(columns: list[Column], widths: dict[str, int], available: int) -> list[Column]:
    """Drop columns, then narrow `widths`, until the table fits into the available columns."""

    def excess(kept: list[Column], shortened_to: int) -> int:
        return (
            sum(min(widths[c.title], shortened_to) if c.shortened else widths[c.title] for c in kept)
            + _GAP * (len(kept) - 1)
            - available
        )

    kept = list(columns)
    while excess(kept, _LEAST_OF_A_SHORTENED_COLUMN) > 0 and any(column.drop_order for column in kept):
        kept.remove(max(kept, key=lambda column: column.drop_order))
    # Shortened columns are narrowed first, then names, the last first: an id should stay on one line.
    narrowed = [c for c in reversed(kept) if c.shortened] + [
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
