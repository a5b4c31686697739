"""What a command that lists rows lets its caller choose: fields, headers, and how times look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import typer

from ws_manager.cli.options import GlobalOptions
from ws_manager.cli.output.text import Row
from ws_manager.cli.output.times import STYLES, TIME_FIELDS, in_style, now
from ws_manager.errors import InvalidInput

FIELDS = typer.Option(
    None,
    "--fields",
    metavar="NAMES",
    help="Only these fields, in this order, with commas between. Not for -o id.",
)
NO_HEADERS = typer.Option(False, "--no-headers", help="Leave out the header of csv and of tables.")
EXCEL = typer.Option(
    False,
    "--excel",
    help="For -o csv: put ' before a cell that begins with = + - @, which Excel would take for a formula.",
)
TIME = typer.Option(
    None,
    "--time",
    metavar="STYLE",
    help="Times: relative, iso (RFC 3339) or unix (seconds). [default: relative in a terminal's table, else iso]",
)


@dataclass(frozen=True)
class FormatOptions:
    """How rows are to be shown.

    Attributes:
        fields: the names chosen, in order; None for the usual ones.
        headers: whether csv and tables begin with one.
        time: one of `STYLES`; None for the usual one.
        excel: whether csv is made safe for spreadsheets.
    """

    fields: Optional[tuple[str, ...]] = None
    headers: bool = True
    time: Optional[str] = None
    excel: bool = False

    def shown(self, row: Row, style: str) -> Row:
        """Return a row with the fields that were chosen, and its times written in a style."""
        chosen = row if self.fields is None else {name: row[name] for name in self.fields}
        if style == "iso":
            return chosen
        present = now()
        return {
            name: in_style(value, style, present) if value and name in TIME_FIELDS else value
            for name, value in chosen.items()
        }


def choose(
    options: GlobalOptions,
    known: Sequence[str],
    fields: Optional[str],
    no_headers: bool,
    time: Optional[str],
    excel: bool,
) -> FormatOptions:
    """Turn what was given on the command line into format options.

    Args:
        options: the global options.
        known: the names of all fields.
        fields: the value of `--fields`.
        no_headers: whether `--no-headers` was given.
        time: the value of `--time`.
        excel: whether `--excel` was given.

    Raises:
        InvalidInput: a field or a style is not known, or the format has no fields or no formulas.
    """
    if excel and options.output != "csv":
        raise InvalidInput("--excel is for csv alone", hint="give -o csv with it")
    if fields is not None and options.output == "id":
        raise InvalidInput("-o id and --fields exclude each other", hint="use -o tsv with --fields")
    if time is not None and time not in STYLES:
        raise InvalidInput(f"not a style of time: {time!r}", hint=f"one of {', '.join(STYLES)}")
    names = None if fields is None else tuple(name.strip() for name in fields.split(","))
    for name in names or ():
        if name not in known:
            raise InvalidInput(f"no such field: {name!r}", hint=f"one of {', '.join(known)}")
    return FormatOptions(names, not no_headers, time, excel)
