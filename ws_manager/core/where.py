"""Conditions such as `metadata.region=us-west`: which connections a broadcast is for. No SQL comes near them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from ws_manager.core.moments import parse_moment
from ws_manager.errors import InvalidInput
from ws_manager.models import Connection

FIELDS = ("ws_id", "agent", "connected_at", "last_heartbeat", "message_count", "metadata")
"""What a condition may begin with; `metadata.` goes on with a path of keys, or of places in lists."""

_TIMES = ("connected_at", "last_heartbeat")
_CONDITION = re.compile(r"\s*([A-Za-z_][\w.\-]*)\s*(!=|=|~|<|>)(.*)", re.DOTALL)
_MISSING = object()


@dataclass(frozen=True)
class Condition:
    """One condition; call it with a connection.

    Attributes:
        text: as it was written.
        holds: says of a connection whether it does.
    """

    text: str
    holds: Callable[[Connection], bool]

    def __call__(self, connection: Connection) -> bool:
        """Say whether it holds for a connection."""
        return self.holds(connection)


def parse_condition(text: str) -> Condition:
    """Read one condition.

    `=` and `!=` compare, `~` searches a regular expression, `<` and `>` compare numbers as numbers, times as
    times (given like `5m`, that long ago, or as RFC 3339) and everything else as text. A path that a
    connection does not have fulfils `!=` alone.

    Raises:
        InvalidInput: it is no condition, names no known field, or its value does not suit the operator.
    """
    parts = _CONDITION.fullmatch(text)
    if parts is None:
        raise InvalidInput(f"not a condition: {text!r}", hint="for example metadata.region=us-west")
    path, operator, value = parts[1].split("."), parts[2], parts[3].strip()
    if path[0] not in FIELDS or (len(path) > 1) != (path[0] == "metadata") or not all(path):
        raise InvalidInput(
            f"no such field: {parts[1]}", hint=f"one of {', '.join(FIELDS[:-1])}, metadata.<key>"
        )
    if value.startswith("=") and operator != "~":
        raise InvalidInput(
            f"no such operator: {operator}=", hint="= != ~ < >; a value that begins with = is found by ~^="
        )
    test = _test(path[0], operator, value)

    def holds(connection: Connection) -> bool:
        found = _find(getattr(connection, path[0]), path[1:])
        return operator == "!=" if found is _MISSING else test(found)

    return Condition(text, holds)


@dataclass(frozen=True)
class Conditions:
    """Several conditions; call it with a connection, and it says whether all of them hold."""

    each: tuple[Condition, ...]

    def __call__(self, connection: Connection) -> bool:
        """Say whether all of them hold for a connection."""
        return all(condition(connection) for condition in self.each)

    def failed(self, connection: Connection) -> list[str]:
        """Return those, as they were written, that do not hold for a connection."""
        return [condition.text for condition in self.each if not condition(connection)]


def all_of(texts: Sequence[str]) -> Conditions:
    """Read several conditions.

    Raises:
        InvalidInput: one of them is none; see `parse_condition`.
    """
    return Conditions(tuple(parse_condition(text) for text in texts))


def _find(value: Any, keys: list[str]) -> Any:  # noqa: ANN401 - any JSON value
    for key in keys:
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return _MISSING
    return value


def _test(field: str, operator: str, value: str) -> Callable[[Any], bool]:
    if operator == "~":
        try:
            pattern = re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:
            raise InvalidInput(f"not a regular expression: {value!r}: {error}") from None
        return lambda found: pattern.search(_text(found)) is not None
    if field in _TIMES and operator in "<>":
        moment = parse_moment(value)
        return lambda found: found < moment if operator == "<" else found > moment
    number = _number(value)
    if field == "message_count" and number is None:
        raise InvalidInput(f"not a number: {value!r}", hint="for example message_count>100")

    def compare(found: Any) -> bool:  # noqa: ANN401 - any JSON value
        if number is not None and isinstance(found, (int, float)) and not isinstance(found, bool):
            return _compare(operator, found, number)
        return _compare(operator, _text(found), value)

    return compare


def _compare(operator: str, found: Any, value: Any) -> bool:  # noqa: ANN401 - two texts or two numbers
    if operator in ("=", "!="):
        return bool(found == value) == (operator == "=")
    return bool(found < value if operator == "<" else found > value)


def _number(text: str) -> Optional[float]:
    try:
        number = int(text) if text.lstrip("+-").isdecimal() else float(text)
    except ValueError:
        return None
    # NaN is neither less nor more than anything: it is a text here.
    return number if number == number else None


def _text(found: object) -> str:
    """Return a value as it is written in a condition: text bare, everything else as JSON."""
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, separators=(",", ":"))
