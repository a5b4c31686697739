"""Rows in every format: tables, JSON, csv, tsv. Rich draws tables on a terminal, in `tables`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Callable, Optional

from ws_manager.cli.options import GlobalOptions
from ws_manager.cli.output.format_options import FormatOptions
from ws_manager.cli.output.text import (
    _BREAKS,
    Row,
    _escaped,
    json_for,
    json_object,
    json_text,
    visible,
    write,
)
from ws_manager.strict_json import Json

_BREAK_NAMES = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


# Other ends of a line for some readers, such as Python's splitlines and JavaScript before ES2019.
_OTHER_BREAKS = "\x0b\x0c\x1c-\x1e\x85\u2028\u2029"


# Excel takes a cell that begins with one of these for a formula. The wide ones are typed on East Asian keyboards.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def write_rows(
    options: GlobalOptions,
    found: Sequence[Row],
    columns: Sequence[str],
    identifier: str,
    show_table: Callable[[Sequence[Row]], None],
    formatting: Optional[FormatOptions] = None,
) -> None:
    """Write rows, and flush stdout.

    Args:
        options: the global options. Without `-o`, the format is a table on a terminal and tsv elsewhere.
        found: the rows.
        columns: the fields in csv, tsv and a plain table, in order. A wide table has the other fields too,
            before the last of these.
        identifier: the field that `-o id` writes.
        show_table: draws the rows on a terminal if no fields were chosen.
        formatting: the fields, headers and style of times that the caller chose; None for all fields.
    """
    formatting = formatting or FormatOptions()
    form = options.output or ("table" if sys.stdout.isatty() else "tsv")
    drawn = form in ("table", "wide") and sys.stdout.isatty()
    if drawn and form == "table" and formatting.fields is None:
        show_table(found)
        sys.stdout.flush()
        return
    if form != "id":
        style = formatting.time or ("relative" if drawn else "iso")
        found = [formatting.shown(row, style) for row in found]
    if form == "wide" and found:
        columns = [*columns[:-1], *(name for name in found[0] if name not in columns), columns[-1]]
    columns = formatting.fields or columns
    if form == "json":
        objects = [json_object(row, indent=True).replace("\n", "\n  ") for row in found]
        write("[\n  " + ",\n  ".join(objects) + "\n]" if objects else "[]", is_json=True)
    elif form == "ndjson":
        for row in found:
            write(json_object(row), is_json=True)
    elif form == "id":
        for row in found:
            write(str(row[identifier]))
    elif form in ("csv", "tsv"):
        write_separated(form, columns, found, headers=formatting.headers, excel=formatting.excel)
    elif found:
        _aligned(columns, found, headers=formatting.headers)
    sys.stdout.flush()


def row_line(
    row: Row,
    form: str,
    columns: Sequence[str],
    identifier: str,
    readable: Callable[[Row], str],
    formatting: FormatOptions,
) -> str:
    """Return one row of a stream as a line without its end, ready for stdout.

    Args:
        row: the values by their names.
        form: one of `FORMATS`. A table is a readable line; JSON is one object per line.
        columns: the fields in csv and tsv.
        identifier: the field that `-o id` writes.
        readable: returns the readable line.
        formatting: the fields and the style of times that the caller chose.
    """
    if form == "id":
        return cells([row[identifier]], "tsv")[0]
    values = formatting.shown(row, formatting.time or "iso")
    if form in ("json", "ndjson"):
        return json_for(sys.stdout, json_object(values))
    if form in ("csv", "tsv"):
        return joined(
            form, cells((values[name] for name in formatting.fields or columns), form, excel=formatting.excel)
        )
    if formatting.fields:
        return "  ".join(cells((values[name] for name in formatting.fields), form))
    return visible(readable(values))


def write_separated(
    form: str, columns: Sequence[str], found: Iterable[Row], *, headers: bool = True, excel: bool = False
) -> None:
    """Write csv with a header, or tsv without one."""
    if form == "csv" and headers:
        sys.stdout.write(",".join(columns) + "\n")
    for row in found:
        sys.stdout.write(joined(form, cells((row[name] for name in columns), form, excel=excel)) + "\n")


def joined(form: str, cells: list[str]) -> str:
    """Return cells as a line of csv or tsv, without its end."""
    if form == "tsv":
        return "\t".join(cells)
    import csv
    import io

    line = io.StringIO()
    # Before Python 3.13 only the characters of the line's end make a cell quoted, and both must.
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue()[: -len("\r\n")]


def cells(values: Iterable[object], form: str, *, excel: bool = False) -> list[str]:
    """Return values as cells, escaped so that they neither break a line nor control a terminal."""
    cells = [_quoted_for_excel(value) if excel else _cell(value) for value in values]
    if sys.stdout.isatty():
        return [visible(cell) for cell in cells]
    # A row stays a row. Backslashes stay single, so that names can be given back to a command. In csv, quotes hold
    # line feeds, as RFC 4180 has it.
    if form != "csv":
        cells = [re.sub(_BREAKS, lambda found: _BREAK_NAMES[found.group()], cell) for cell in cells]
    return [re.sub(f"[{_OTHER_BREAKS}]", _escaped, cell) for cell in cells]


def _quoted_for_excel(value: object) -> str:
    """Return a cell, with an apostrophe before it if a spreadsheet would take it for a formula."""
    cell = _cell(value)
    # JSON text begins with one of these only if it is a negative number.
    return (
        f"'{cell}"
        if isinstance(value, str) and not isinstance(value, Json) and cell.startswith(_FORMULAS)
        else cell
    )


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, str) and not isinstance(value, Json):
        return value
    return json_text(value)


def _aligned(columns: Sequence[str], found: Sequence[Row], *, headers: bool) -> None:
    """Write a table in plain text, with nothing truncated."""
    table = [cells((row[name] for name in columns), "table") for row in found]
    if headers:
        table.insert(0, list(columns))
    widths = [max(_width(line[number]) for line in table) for number in range(len(columns))]
    for line in table:
        padded = (cell + " " * (width - _width(cell)) for cell, width in zip(line, widths))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def _width(text: str) -> int:
    """Return the width of a text in columns of a terminal, approximately."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
