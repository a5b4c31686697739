"""Text for stdout and stderr: JSON, escaping, lines. stdout is for data; notes go to stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import TextIO

from ws_manager.strict_json import Json
from ws_manager.text import unseen

Row = Mapping[str, object]
"""Values by their names, in the order in which they are written."""


# Not compiled here, because a one-shot `send` needs none of them.
_BREAKS = "[\t\n\r]"


def visible(text: str, *, is_json: bool = False) -> str:
    r"""Escape, as `\uXXXX`, characters that are invisible, control a terminal or change the writing direction.

    Args:
        text: the text.
        is_json: True for JSON text: its line breaks stay, and it stays JSON.
    """
    if text.isascii() and text.isprintable():
        return text

    def escaped(found: re.Match[str]) -> str:
        return "\n" if is_json and found.group() == "\n" else _escaped(found, is_json=is_json)

    return unseen().sub(escaped, text)


def whole_line(text: str) -> str:
    """Escape the characters that some readers take for the end of a line. In JSON they occur only in strings."""
    return text if text.isascii() else re.sub("[\x85\u2028\u2029]", _escaped, text)


def json_for(stream: TextIO, text: str) -> str:
    """Return JSON text escaped for a stream: it controls no terminal, and no reader breaks its lines."""
    return visible(text, is_json=True) if stream.isatty() else whole_line(text)


def _escaped(found: re.Match[str], *, is_json: bool = False) -> str:
    number = ord(found.group())
    if number < 0x10000:
        return f"\\u{number:04x}"
    # JSON writes such a character as a pair of surrogates (RFC 8259 section 7).
    high, low = divmod(number - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}" if is_json else f"\\U{number:08x}"


def json_text(value: object, *, compact: bool = True) -> str:
    """Return a value as JSON on one line, non-ASCII kept."""
    if isinstance(value, Json):
        # In JSON text, line breaks and tabs occur only between tokens.
        return re.sub(_BREAKS, " ", value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":") if compact else (", ", ": "))


def json_object(row: Row, *, indent: bool = False) -> str:
    """Return a row as a JSON object: with `indent` one member per line, otherwise compact on one line."""
    if not row:
        return "{}"
    if indent:
        members = [f"  {json_text(key)}: {json_text(value, compact=False)}" for key, value in row.items()]
        return "{\n" + ",\n".join(members) + "\n}"
    return "{" + ",".join(f"{json_text(key)}:{json_text(value)}" for key, value in row.items()) + "}"


def write(text: str, *, is_json: bool = False) -> None:
    """Write one line to stdout; for a terminal it is escaped."""
    if is_json:
        text = json_for(sys.stdout, text)
    elif sys.stdout.isatty():
        text = visible(text)
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Write a line that is not data to stderr, escaped."""
    sys.stderr.write(visible(text) + "\n")
    sys.stderr.flush()


def note_to_terminal(text: str) -> None:
    """Write a note if stderr is a terminal. A script has the exit code and the data."""
    if sys.stderr.isatty():
        note(text)
