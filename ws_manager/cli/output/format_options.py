"""The options of commands that list rows: fields, headers, and the style of times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import typer

from ws_manager.cli.options import GlobalOptions
from ws_manager.cli.output.text import Row
from ws_manager.cli.output.times import STYLES, TIME_FIELDS, format_time, now
from ws_manager.errors import InvalidInput

FIELDS = typer.Option(
    None,
    "--fields",
    metavar="NAMES",
    help="Only these fields, in this order, separated by commas. Not with -o id.",
)
NO_HEADERS = typer.Option(False, "--no-headers", help="Leave out the header of csv and of tables.")
EXCEL = typer.Option(
    False,
    "--excel",
    help="With -o csv: put ' before a cell that Excel would take for a formula (= + - @).",
)
TIME = typer.Option(
    None,
    "--time",
    metavar="STYLE",
    help="Style of times: relative, iso (RFC 3339) or unix (seconds). "
    "[default: relative in a terminal's table, else iso]",
)


@dataclass(frozen=True)
class FormatOptions:
    """How rows are written.

    Attributes:
        fields: the names of the chosen fields, in order; None for the default ones.
        headers: whether csv and tables have a header.
        time: one of `STYLES`; None for the default.
        excel: whether csv cells that look like formulas are quoted.
    """

    fields: Optional[tuple[str, ...]] = None
    headers: bool = True
    time: Optional[str] = None
    excel: bool = False

    def shown(self, row: Row, style: str) -> Row:
        """Return a row's chosen fields, with its times in a style."""
        chosen = row if self.fields is None else {name: row[name] for name in self.fields}
        if style == "iso":
            return chosen
        present = now()
        return {
            name: format_time(value, style, present) if value and name in TIME_FIELDS else value
            for name, value in chosen.items()
        }


def parse_format_options(
    options: GlobalOptions,
    known: Sequence[str],
    fields: Optional[str],
    no_headers: bool,
    time: Optional[str],
    excel: bool,
) -> FormatOptions:
    """Return the format options of a command line.

    Args:
        options: the global options.
        known: the names of all fields of the command's rows.
        fields: the value of `--fields`.
        no_headers: whether `--no-headers` was given.
        time: the value of `--time`.
        excel: whether `--excel` was given.

    Raises:
        InvalidInput: a field or a style is unknown, or the format does not have the option.
    """
    if excel and options.output != "csv":
        raise InvalidInput("--excel is for csv alone", hint="add -o csv")
    if fields is not None and options.output == "id":
        raise InvalidInput("-o id and --fields exclude each other", hint="use -o tsv with --fields")
    if time is not None and time not in STYLES:
        raise InvalidInput(f"not a style of time: {time!r}", hint=f"one of {', '.join(STYLES)}")
    names = None if fields is None else tuple(name.strip() for name in fields.split(","))
    for name in names or ():
        if name not in known:
            raise InvalidInput(f"no such field: {name!r}", hint=f"one of {', '.join(known)}")
    return FormatOptions(names, not no_headers, time, excel)
