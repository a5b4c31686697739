"""Conditions such as `metadata.region=us-west`: which connections a broadcast is for. No SQL comes near them."""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Optional

from ws_manager.errors import InvalidInput
from ws_manager.models import Connection

FIELDS = ("ws_id", "agent", "connected_at", "last_heartbeat", "message_count", "metadata")
"""What a condition may begin with; `metadata.` goes on with a path of keys, or of places in lists."""

_CONDITION = re.compile(r"\s*([A-Za-z_][\w.\-]*)\s*(!=|=|~|<|>)(.*)", re.DOTALL)
_MISSING = object()

Condition = Callable[[Connection], bool]


def parse_condition(text: str) -> Condition:
    """Turn one condition into a function of a connection.

    `=` and `!=` compare, `~` searches a regular expression, `<` and `>` compare numbers as numbers and
    everything else as text. A path that a connection does not have fulfils `!=` alone.

    Raises:
        InvalidInput: it is no condition, names no known field, or its regular expression is none.
    """
    parts = _CONDITION.fullmatch(text)
    if parts is None:
        raise InvalidInput(f"not a condition: {text!r}", hint="for example metadata.region=us-west")
    path, operator, value = parts[1].split("."), parts[2], parts[3].strip()
    if path[0] not in FIELDS or (len(path) > 1) != (path[0] == "metadata") or not all(path):
        raise InvalidInput(
            f"no such field: {parts[1]}", hint=f"one of {', '.join(FIELDS[:-1])}, metadata.<key>"
        )
    test = _test(operator, value)

    def holds(connection: Connection) -> bool:
        found = _find(getattr(connection, path[0]), path[1:])
        return operator == "!=" if found is _MISSING else test(found)

    return holds


def all_of(texts: list[str]) -> Condition:
    """Turn several conditions into one function: all of them have to hold.

    Raises:
        InvalidInput: one of them is none.
    """
    conditions = [parse_condition(text) for text in texts]
    return lambda connection: all(condition(connection) for condition in conditions)


def _find(value: Any, keys: list[str]) -> Any:  # noqa: ANN401 - any JSON value
    for key in keys:
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return _MISSING
    return value


def _test(operator: str, value: str) -> Callable[[Any], bool]:
    if operator == "=":
        return lambda found: _text(found) == value
    if operator == "!=":
        return lambda found: _text(found) != value
    if operator == "~":
        try:
            pattern = re.compile(value)
        except re.error as error:
            raise InvalidInput(f"not a regular expression: {value!r}: {error}") from None
        return lambda found: pattern.search(_text(found)) is not None
    number = _number(value)

    def compare(found: Any) -> bool:  # noqa: ANN401 - any JSON value
        if number is not None and isinstance(found, (int, float)) and not isinstance(found, bool):
            return bool(found < number if operator == "<" else found > number)
        text = _text(found)
        return text < value if operator == "<" else text > value

    return compare


def _number(text: str) -> Optional[float]:
    try:
        return float(text)
    except ValueError:
        return None


def _text(found: object) -> str:
    """Return a value as it is written in a condition: text bare, everything else as JSON."""
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, separators=(",", ":"))
