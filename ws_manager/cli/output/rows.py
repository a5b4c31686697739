"""What goes to stdout and to stderr. stdout is data; notes and errors go to stderr.

Without `-o`, a terminal gets the documented line or a table, and a pipe or a file gets the documented line
or tab-separated values. Rich is used on a terminal alone, through `ws_manager.cli.output.tables`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Callable, Optional, TextIO

from ws_manager.cli.options import GlobalOptions
from ws_manager.errors import InvalidInput, WsManagerError
from ws_manager.strict_json import Json
from ws_manager.text import unseen

if TYPE_CHECKING:
    from ws_manager.cli.output.format_options import View

Row = Mapping[str, object]
"""Names and values in the order in which they are written."""

MESSAGE_FIELDS = ("seq", "id", "msg_type", "sender", "sent_at", "content")
"""A received message, under the names that it has on the wire."""

# Not compiled here: a one-shot `send` needs none of them.
_BREAKS = "[\t\n\r]"
_BREAK_NAMES = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
# What many readers take for the end of a line beside a line feed: Python's splitlines, JavaScript before ES2019.
_OTHER_BREAKS = "\x0b\x0c\x1c-\x1e\x85\u2028\u2029"
# With these a cell is a formula; the wide ones are those of East Asian keyboards.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def visible(text: str, *, is_json: bool = False) -> str:
    r"""Escape, as `\uXXXX`, what nobody can see, and what steers a terminal or the order of characters.

    Args:
        text: what is to be written.
        is_json: True for JSON text: its line breaks stay, and it stays JSON.
    """
    if text.isascii() and text.isprintable():
        return text

    def escaped(found: re.Match[str]) -> str:
        return "\n" if is_json and found.group() == "\n" else _escaped(found, is_json=is_json)

    return unseen().sub(escaped, text)


def whole_line(text: str) -> str:
    """Escape what some readers take for the end of a line. JSON text stays what it is: it stands within strings."""
    return text if text.isascii() else re.sub("[\x85\u2028\u2029]", _escaped, text)


def json_for(stream: TextIO, text: str) -> str:
    """Return JSON text as a stream gets it: a line stays one, and nothing in it steers a terminal."""
    return visible(text, is_json=True) if stream.isatty() else whole_line(text)


def _escaped(found: re.Match[str], *, is_json: bool = False) -> str:
    number = ord(found.group())
    if number < 0x10000:
        return f"\\u{number:04x}"
    # JSON knows such a character as a pair of surrogates (RFC 8259 section 7).
    high, low = divmod(number - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}" if is_json else f"\\U{number:08x}"


def json_text(value: object, *, compact: bool = True) -> str:
    """Return a value as JSON on one line, non-ASCII kept."""
    if isinstance(value, Json):
        # In JSON text a line break or a tab can only stand between two tokens.
        return re.sub(_BREAKS, " ", value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":") if compact else (", ", ": "))


def json_object(row: Row, *, indent: bool = False) -> str:
    """Return a row as a JSON object: with `indent` a member a line, otherwise compact on one line."""
    if not row:
        return "{}"
    if indent:
        members = [f"  {json_text(key)}: {json_text(value, compact=False)}" for key, value in row.items()]
        return "{\n" + ",\n".join(members) + "\n}"
    return "{" + ",".join(f"{json_text(key)}:{json_text(value)}" for key, value in row.items()) + "}"


def write(text: str, *, is_json: bool = False) -> None:
    """Write one line to stdout; what a terminal must not get is escaped there."""
    if is_json:
        text = json_for(sys.stdout, text)
    elif sys.stdout.isatty():
        text = visible(text)
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Tell whoever runs the command something that is not data."""
    sys.stderr.write(visible(text) + "\n")
    sys.stderr.flush()


def note_to_terminal(text: str) -> None:
    """Tell it only where a person reads it: a script has the exit code and the data."""
    if sys.stderr.isatty():
        note(text)


def result(options: GlobalOptions, line: str, row: Row, identifier: str) -> None:
    """Write the outcome of a command that does one thing, and flush it.

    Args:
        options: decide the format.
        line: the documented line.
        row: the same facts.
        identifier: the one fact that `-o id` wants.
    """
    if options.json:
        write(json_object(row, indent=options.output == "json"), is_json=True)
    elif options.output == "id":
        write(identifier)
    elif options.output in ("csv", "tsv"):
        _separated(options.output, tuple(row), [row])
    else:
        write(line)
    sys.stdout.flush()


def rows(
    options: GlobalOptions,
    found: Sequence[Row],
    columns: Sequence[str],
    identifier: str,
    show_table: Callable[[Sequence[Row]], None],
    view: Optional[View] = None,
) -> None:
    """Write any number of rows, and flush them.

    Args:
        options: decide the format; without one it is a table on a terminal and tsv elsewhere.
        found: the rows.
        columns: which of their values csv, tsv and a plain table have, in this order. A wide table has the
            others too, before the last of these.
        identifier: the one that `-o id` wants.
        show_table: draws them on a terminal, where no fields were chosen.
        view: which fields, headers and times the caller chose, if it could.
    """
    from ws_manager.cli.output.format_options import View

    view = view or View()
    form = options.output or ("table" if sys.stdout.isatty() else "tsv")
    drawn = form in ("table", "wide") and sys.stdout.isatty()
    if drawn and form == "table" and view.fields is None:
        show_table(found)
        sys.stdout.flush()
        return
    if form != "id":
        style = view.time or ("relative" if drawn else "iso")
        found = [view.told(row, style) for row in found]
    if form == "wide" and found:
        columns = [*columns[:-1], *(name for name in found[0] if name not in columns), columns[-1]]
    columns = view.fields or columns
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
        _separated(form, columns, found, headers=view.headers, excel=view.excel)
    elif found:
        _aligned(columns, found, headers=view.headers)
    sys.stdout.flush()


def row_line(
    row: Row,
    form: str,
    columns: Sequence[str],
    identifier: str,
    readable: Callable[[Row], str],
    view: View,
) -> str:
    """Return one row of a stream as a line without its end, ready for stdout.

    Args:
        row: names and values.
        form: one of the formats; of the tables, a readable line; JSON is an object a line.
        columns: which of the values csv and tsv have.
        identifier: the one that `-o id` wants.
        readable: makes the readable line.
        view: which fields and times the caller chose.
    """
    if form == "id":
        return _cells([row[identifier]], "tsv")[0]
    told = view.told(row, view.time or "iso")
    if form in ("json", "ndjson"):
        return json_for(sys.stdout, json_object(told))
    if form in ("csv", "tsv"):
        return _joined(form, _cells((told[name] for name in view.fields or columns), form, excel=view.excel))
    if view.fields:
        return "  ".join(_cells((told[name] for name in view.fields), form))
    return visible(readable(told))


def stream_format(options: GlobalOptions) -> str:
    """Return the format of a stream of messages: readable lines on a terminal, NDJSON elsewhere.

    Raises:
        InvalidInput: for `id`, because a message that is confirmed must have been written whole.
    """
    if sys.__stdout__ is None:
        raise WsManagerError("stdout is closed: messages would be confirmed that nobody gets")
    if options.output == "id":
        raise InvalidInput(
            "ids alone would confirm messages that nobody has read",
            hint="ws-manager history -o id lists them",
        )
    return options.output or ("table" if sys.stdout.isatty() else "ndjson")


def message_line(message: Row, form: str) -> str:
    """Return one received message as a line without its end, ready for stdout.

    Args:
        message: `MESSAGE_FIELDS`, `content` decoded or as `Json`; other members are left out.
        form: what `stream_format` returned. JSON is an object a line.
    """
    fields = {name: message[name] for name in MESSAGE_FIELDS}
    if form in ("json", "ndjson"):
        return json_for(sys.stdout, json_object(fields))
    if form in ("csv", "tsv"):
        return _joined(form, _cells(fields.values(), form))
    sender = fields["sender"]
    origin = "" if sender is None else f" from {sender}"
    at = str(fields["sent_at"])
    text = f"{at[:10]} {at[11:19]}Z #{fields['seq']} {fields['msg_type']}{origin}  {json_text(fields['content'])}"
    return visible(text)


def report(error: BaseException, output: Optional[str], *, debug: bool) -> None:
    """Say on stderr what went wrong and what to do next.

    Args:
        error: what ended the command.
        output: the format that was asked for; JSON gives a JSON error.
        debug: show the traceback first.
    """
    if debug:
        import traceback

        told = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        sys.stderr.write("\n".join(map(visible, told.split("\n"))))
    code, message, hint = _explained(error)
    if output in ("json", "ndjson"):
        explained = {"error": {"code": code, "message": message, "hint": hint}}
        sys.stderr.write(visible(json_text(explained), is_json=True) + "\n")
    else:
        note(f"error: {message}")
        if hint:
            note(f"hint: {hint}")
    sys.stderr.flush()


def _explained(error: BaseException) -> tuple[str, str, Optional[str]]:
    """Return code, message and hint."""
    if isinstance(error, WsManagerError):
        return error.code, error.message, error.hint
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return "error", f"{error.strerror or error}{where}", None
    # Not its text: it could hold what was in a message.
    return "internal", f"unexpected {type(error).__name__}", "run it again with --debug for the traceback"


def _separated(
    form: str, columns: Sequence[str], found: Iterable[Row], *, headers: bool = True, excel: bool = False
) -> None:
    """Write csv with a header, or tsv without one."""
    if form == "csv" and headers:
        sys.stdout.write(",".join(columns) + "\n")
    for row in found:
        sys.stdout.write(_joined(form, _cells((row[name] for name in columns), form, excel=excel)) + "\n")


def _joined(form: str, cells: list[str]) -> str:
    if form == "tsv":
        return "\t".join(cells)
    import csv
    import io

    line = io.StringIO()
    # Before Python 3.13 only the characters of the line's end make a cell quoted, and both must.
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue()[: -len("\r\n")]


def _cells(values: Iterable[object], form: str, *, excel: bool = False) -> list[str]:
    cells = [_quoted_for_excel(value) if excel else _cell(value) for value in values]
    if sys.stdout.isatty():
        return [visible(cell) for cell in cells]
    # A row stays a row. Backslashes stay single, so that names can be given back to a command. In csv, quotes hold
    # line feeds, as RFC 4180 has it.
    if form != "csv":
        cells = [re.sub(_BREAKS, lambda found: _BREAK_NAMES[found.group()], cell) for cell in cells]
    return [re.sub(f"[{_OTHER_BREAKS}]", _escaped, cell) for cell in cells]


def _quoted_for_excel(value: object) -> str:
    """Return a cell that a spreadsheet takes for text: one that begins as a formula does gets a quote before it."""
    cell = _cell(value)
    # JSON text begins with none of these but the sign of a number.
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
    """Write a table without Rich: nothing truncated."""
    table = [_cells((row[name] for name in columns), "table") for row in found]
    if headers:
        table.insert(0, list(columns))
    widths = [max(_width(line[number]) for line in table) for number in range(len(columns))]
    for line in table:
        padded = (cell + " " * (width - _width(cell)) for cell, width in zip(line, widths))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def _width(text: str) -> int:
    """Return how many columns a text takes, near enough for a table."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
