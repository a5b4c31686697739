"""Conditions such as `metadata.region=us-west`: which connections a broadcast is for. They never become SQL."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional, Union

from ws_manager.core.moments import parse_moment
from ws_manager.errors import InvalidInput
from ws_manager.models import Connection

FIELDS = ("ws_id", "agent", "connected_at", "last_heartbeat", "message_count", "metadata")
"""What a condition may begin with; `metadata.` goes on with a path of keys, or of places in lists."""

_TIMES = ("connected_at", "last_heartbeat")
# A key of a path as in TOML: bare, in double quotes with JSON's escapes, or in single quotes without any.
_KEY = r"""(?:[\w\-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_BARE = re.compile(r"[\w\-]+")
_KEYS = re.compile(_KEY)
_CONDITION = re.compile(rf"\s*([A-Za-z_]\w*)((?:\.{_KEY})*)\s*(!=|=|~|<|>)(.*)", re.DOTALL)
_MISSING = object()
_PLACE_DIGITS = 9


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
        """Return whether it holds for a connection."""
        return self.holds(connection)


def parse_condition(text: str) -> Condition:
    """Read one condition.

    `=` and `!=` compare, `~` searches a regular expression, `<` and `>` compare numbers as numbers, times as
    times (given like `5m`, that long ago, or as RFC 3339) and everything else as text. A path that a
    connection does not have fulfils `!=` alone.

    Raises:
        InvalidInput: it is not a condition, names an unknown field, or its value does not fit the operator.
    """
    parts = _CONDITION.fullmatch(text)
    if parts is None:
        raise InvalidInput(
            f"not a condition: {text!r}",
            hint="for example metadata.region=us-west, or with other characters in a key: "
            'metadata."app.kubernetes.io/name"=web',
        )
    field, keys, operator, value = parts[1], _keys(parts[2]), parts[3], parts[4].strip()
    if field not in FIELDS or bool(keys) != (field == "metadata"):
        raise InvalidInput(
            f"no such field: {field}{parts[2]}", hint=f"one of {', '.join(FIELDS[:-1])}, metadata.<key>"
        )
    if value.startswith("=") and operator != "~":
        raise InvalidInput(
            f"no such operator: {operator}=", hint="= != ~ < >; a value that begins with = is found by ~^="
        )
    test = _test(field, operator, value)

    def holds(connection: Connection) -> bool:
        subject = getattr(connection, field)
        if field == "metadata" and operator == "~" and connection.metadata_json is not None:
            # A regular expression is for the text of a number, such as 1.10. Of whole numbers only -0 would lose it.
            subject = json.loads(connection.metadata_json, parse_float=str, parse_int=_whole)
        found = _find(subject, keys)
        return operator == "!=" if found is _MISSING else test(found)

    return Condition(text, holds)


@dataclass(frozen=True)
class Conditions:
    """Several conditions. Called with a connection, it returns whether all of them hold."""

    each: tuple[Condition, ...]

    def __call__(self, connection: Connection) -> bool:
        """Return whether all of them hold for a connection."""
        return all(condition(connection) for condition in self.each)

    def failed(self, connection: Connection) -> list[str]:
        """Return those, as they were written, that do not hold for a connection."""
        return [condition.text for condition in self.each if not condition(connection)]


def all_of(texts: Sequence[str]) -> Conditions:
    """Read several conditions.

    Raises:
        InvalidInput: one of them is not a condition; see `parse_condition`.
    """
    return Conditions(tuple(parse_condition(text) for text in texts))


def equalities(metadata: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    """Give a condition for each text, number, true, false and null in metadata: what it is equal to."""
    waiting: list[tuple[str, Any]] = [("metadata", metadata)]
    while waiting:
        path, value = waiting.pop(0)
        if isinstance(value, dict):
            waiting += [(f"{path}.{_quoted(key)}", member) for key, member in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{path}.{place}", member) for place, member in enumerate(value)]
        # What the condition would not find again is left out.
        elif (text := _text(value)) == text.strip() and not text.startswith("="):
            yield f"{path}={text}"


def _quoted(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def _keys(path: str) -> list[str]:
    """Return the keys of a path that begins with a dot, without their quotes."""
    keys = []
    for key in _KEYS.findall(path):
        try:
            keys.append(json.loads(key) if key[0] == '"' else key[1:-1] if key[0] == "'" else key)
        except ValueError:
            raise InvalidInput(
                f"not a key: {key}", hint="between double quotes JSON's escapes hold; single quotes have none"
            ) from None
    return keys


def _find(value: Any, keys: list[str]) -> Any:  # noqa: ANN401 - any JSON value
    for key in keys:
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and _is_place(key) and int(key) < len(value):
            value = value[int(key)]
        else:
            return _MISSING
    return value


def _is_place(key: str) -> bool:
    # Python does not read a number of over 4,300 digits, and no list is that long.
    return len(key) <= _PLACE_DIGITS and key.isdecimal()


def _whole(text: str) -> Union[int, str]:
    return text if text == "-0" else int(text)


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
