"""JSON as the ledger accepts it: RFC 8259, with limits that every reader can hold. The text of numbers is kept.

A text is checked, and then passed on as the same text (`Json`): `1.10` or `77950e8` is never printed again from a
parsed value. The limits are fixed, and far below those of interpreters, which differ by version: what one side
accepts, every other side can read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from ws_manager.errors import InvalidInput

MAX_DEPTH = 100
"""Levels of nesting: a scalar has 0, `[]` has 1. The envelope around a message's content does not count."""

MAX_DIGITS = 1000
"""Digits of one number."""

BEYOND_LIMITS = "beyond the limits"
"""Why a stored message that exceeds the limits is set aside."""

_SHOWN = 40
# Patterns are compiled when they are first needed: a one-shot command needs few of them.
# A whole number of fewer digits is below the largest double, 1.8e308.
_LONG_NUMBER = "[0-9]{309}"
_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"?'
# A string without its end reaches to the end of the text: looking for it again and again would take quadratic time.
_BRACKETS = rf"(?s){_STRING}|[\[\]{{}}]"
_SPACES = rf"(?s){_STRING}|[ \t\n\r]+"
_NUMBERS = rf"(?s){_STRING}|-?[0-9][-+.0-9eE]*"
_LARGE_NUMBER = "[0-9.][eE][+]?[0-9]|[0-9]{309}"
_OBJECT = r"[ \t\n\r]*\{"
# A member's key, and its value where that is neither a list nor an object.
_MEMBER = (
    r'(?s)[ \t\n\r,]*("[^"\\]*(?:\\.[^"\\]*)*")[ \t\n\r]*:[ \t\n\r]*'
    r'(?:("[^"\\]*(?:\\.[^"\\]*)*"|[^\]\[{}", \t\n\r]+)|(?=[\[{]))'
)
_LIST = r"[ \t\n\r]*\["
_ELEMENT = r"""(?s)[ \t\n\r,]*(?:("[^"\\]*(?:\\.[^"\\]*)*"|[^\]\[{}", \t\n\r]+)|(?=[\[{]))"""
_LEXEME = (
    r"[ \t\n\r]*(?:"
    r'(?P<string>"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*")'
    r"|(?P<scalar>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)"
    r"|(?P<mark>[\[\]{},:])"
    r")[ \t\n\r]*"
)


class NotJson(InvalidInput):
    """The text is not JSON at all, as opposed to JSON that is not accepted."""


class Json(str):
    """Checked JSON text. It is stored and nested unchanged: printing a parsed value would change its numbers."""

    __slots__ = ()


def decode_json(text: str, what: str, *, envelope: int = 0, duplicates: bool = False) -> Any:  # noqa: ANN401 - any JSON value
    """Check JSON text and return its value. A number may be rounded in it.

    Args:
        text: of any length; bound it before.
        what: what the text is, for the error: "the message …".
        envelope: levels that may stand around the content.
        duplicates: accept a key twice; the last one counts. For reading only, never for input.

    Raises:
        NotJson: it is not JSON.
        InvalidInput: it nests deeper than 100 levels, has a number of more than 1,000 digits or one that no double
            can hold, has NaN or an infinity, or has a key twice in one object.
    """
    if nests_deeper(text, MAX_DEPTH + envelope):
        raise _too_deep(what)
    # Calling Python for each whole number costs more than one search for a long one.
    integers = len(text) > _SHORT and re.search(_LONG_NUMBER, text) is not None
    try:
        return _decoder(duplicates, integers).decode(text)
    except _Refused as error:
        raise InvalidInput(f"the {what} {error}", hint=error.hint) from None
    except json.JSONDecodeError as error:
        raise NotJson(f"the {what} is not JSON: {error}", hint="check the quotes of the shell") from None


def checked(text: str, what: str) -> Json:
    """Check JSON text and return it compact: without white space between its tokens, non-ASCII not escaped.

    Args and errors are those of `decode_json`; besides:

    Raises:
        InvalidInput: a text in it has half of a surrogate pair, which UTF-8 cannot hold.
    """
    decode_json(text, what)
    return compact(text, what)


def checked_object(text: str, what: str) -> Json:
    """Check the JSON text of an object and return it compact. Errors are those of `checked`.

    Raises:
        InvalidInput: it is JSON, and not an object.
    """
    if not isinstance(decode_json(text, what), dict):
        raise InvalidInput(f"{what} must be a JSON object", hint='for example {"region":"us-west"}')
    return compact(text, what)


def encode(value: object, what: str) -> Json:
    """Turn a Python value into compact JSON text. `Json` stays as it is; any other `str` becomes a JSON string.

    Objects with `to_dict()` (such as Stripe's) are accepted at any depth.

    Raises:
        InvalidInput: it has no JSON form (NaN, an infinity, an unknown type), or `checked` would refuse that form.
    """
    if isinstance(value, Json):
        return value
    try:
        text = _ENCODER.encode(value)
    except RecursionError:
        raise _too_deep(what) from None
    except (TypeError, ValueError) as error:
        # Python from 3.11 on does not print a number of over 4,300 digits.
        if "digits" in str(error):
            raise _refused(what, _too_many_digits()) from None
        raise InvalidInput(f"the {what} is not JSON: {error}", hint="send JSON values only") from None
    _check_unicode(text, what)
    if nests_deeper(text):
        raise _too_deep(what)
    if len(text) > _SHORT and re.search(_LONG_NUMBER, text):
        for number in _numbers(text):
            try:
                _checked_number(number)
            except _Refused as error:
                raise _refused(what, error) from None
    return Json(text)


def compact(text: str, what: str) -> Json:
    """Remove white space between the tokens of checked JSON text, and escapes from its strings.

    Raises:
        InvalidInput: a text in it has half of a surrogate pair.
    """
    if " " in text or "\\" in text or "\n" in text or "\t" in text or "\r" in text:
        text = re.sub(_SPACES, _compact_token, text)
    if not text.isascii():
        _check_unicode(text, what)
    return Json(text)


def written(value: object) -> str:
    """Return a value that is ours, not a user's, as JSON text. `Json` in it stays as it is."""
    if isinstance(value, Json):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(name)}:{written(each)}" for name, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def members(text: str) -> dict[str, str]:
    """Split the JSON text of an object into its keys and the texts of their values, however deep those nest.

    A text that is not an object has no members. Values are not checked: give each to `decode_json` or `checked`.

    Raises:
        InvalidInput: a key is there twice.
    """
    found: dict[str, str] = {}
    for name, value in member_pairs(text):
        if name in found:
            raise _refused("object", _twice(name))
        found[name] = value
    return found


def member_pairs(text: str) -> Iterator[tuple[str, str]]:
    """Give keys and the texts of their values, as `members` does; a key that is there twice is given twice."""
    begin = re.match(_OBJECT, text)
    at = begin.end() if begin else len(text)
    pattern = re.compile(_MEMBER)
    while True:
        member = pattern.match(text, at)
        if member is None:
            return
        key, value, at = member[1], member[2], member.end()
        if value is None:
            end = _end_of_container(text, at)
            value, at = text[at:end], end
        try:
            name = json.loads(key) if "\\" in key else key[1:-1]
        except ValueError:
            return
        yield name, value


def elements(text: str) -> Iterator[str]:
    """Give the texts of the elements of a JSON list, however deep those nest. Other JSON has none.

    They are not checked: give each to `decode_json` or `checked`.
    """
    begin = re.match(_LIST, text)
    at = begin.end() if begin else len(text)
    pattern = re.compile(_ELEMENT)
    while True:
        element = pattern.match(text, at)
        if element is None:
            return
        value, at = element[1], element.end()
        if value is None:
            end = _end_of_container(text, at)
            value, at = text[at:end], end
        yield value


def nests_deeper(text: str, levels: int = MAX_DEPTH) -> bool:
    """Return whether a JSON text nests deeper than `levels`. It stops reading as soon as that is clear."""
    # Counting all brackets is cheap, and is enough for most texts.
    if text.count("[") + text.count("{") <= levels:
        return False
    level = 0
    for found in re.finditer(_BRACKETS, text):
        mark = found.group()
        if mark in "[{":
            level += 1
            if level > levels:
                return True
        elif mark in "]}":
            level -= 1
    return False


def is_beyond_limits(text: str) -> bool:
    """Return whether stored JSON text nests too deeply, or has a number that is too long or exceeds a double."""
    if nests_deeper(text):
        return True
    if not re.search(_LARGE_NUMBER, text):
        return False
    try:
        for number in _numbers(text):
            _checked_number(number)
    except _Refused:
        return True
    except ValueError:
        # Another program has written something that is not JSON. That is handled elsewhere.
        return False
    return False


def is_json(text: str) -> bool:
    """Return whether a text is JSON (RFC 8259), however deep it nests."""
    stack: list[str] = []
    expected, at = "value", 0
    pattern = re.compile(_LEXEME)
    while at < len(text):
        token = pattern.match(text, at)
        if token is None:
            return False
        at = token.end()
        kind, mark = token.lastgroup, token["mark"]
        if kind == "mark" and mark in "]}":
            if not stack or stack.pop() != mark or expected not in ("after", f"first {mark}"):
                return False
            expected = "after"
        elif expected == "after":
            if not stack or mark != ",":
                return False
            expected = "value" if stack[-1] == "]" else "key"
        elif expected in ("key", "first }"):
            if kind != "string":
                return False
            expected = "colon"
        elif expected == "colon":
            if mark != ":":
                return False
            expected = "value"
        elif kind != "mark":
            expected = "after"
        elif mark in "[{":
            stack.append("]" if mark == "[" else "}")
            expected = f"first {stack[-1]}"
        else:
            return False
    return expected == "after" and not stack


class _Refused(ValueError):
    """JSON that is not accepted. Its text continues "the message"; only the hint quotes from the input."""

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.hint = hint


def _refused(what: str, error: _Refused) -> InvalidInput:
    return InvalidInput(f"the {what} {error}", hint=error.hint)


def _too_deep(what: str) -> InvalidInput:
    return InvalidInput(
        f"the {what} nests deeper than {MAX_DEPTH} levels",
        hint="flatten it, or send it as text: quoted, as one JSON string",
    )


def _too_many_digits() -> _Refused:
    return _Refused(f"has a number of more than {MAX_DIGITS} digits", "send it as text: in quotes")


def _twice(key: str) -> _Refused:
    shown = json.dumps(key[:_SHOWN], ensure_ascii=False)
    return _Refused("has a key twice in one object", f"keep one of the members named {shown}")


def _checked_number(text: str) -> float:
    """Return the double of a number's text.

    Raises:
        _Refused: it has over 1,000 digits, or no finite double.
    """
    if len(text) > MAX_DIGITS and sum(map(str.isdigit, text)) > MAX_DIGITS:
        raise _too_many_digits()
    value = float(text)
    if math.isinf(value):
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        raise _Refused(
            "has a number that is too large for a double (IEEE 754)",
            f'quote it, to send it as text: "{shown}"',
        )
    return value


def _checked_integer(text: str) -> int:
    _checked_number(text)
    return int(text)


def _refuse_constant(name: str) -> None:
    raise _Refused(f"is not JSON: {name} is not a JSON value", "to send it as text, quote it")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _twice(key)
            seen.add(key)
    return value


def _plain(value: object) -> object:
    """Let `json` encode objects with `to_dict()`, such as Stripe's."""
    to_dict = getattr(value, "to_dict", None)
    if callable(to_dict):
        return to_dict()
    raise TypeError(f"a value of type {type(value).__name__} has no JSON form")


_SHORT = 308
"""Characters of a text that cannot hold a whole number beyond the doubles."""

# Made once: in a batch, making one for each line costs as much as the line itself.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)


@cache
def _decoder(duplicates: bool, integers: bool) -> json.JSONDecoder:
    """Make a decoder, once: making one for each line of a batch costs as much as the line itself."""
    return json.JSONDecoder(
        object_pairs_hook=None if duplicates else _without_duplicates,
        parse_float=_checked_number,
        parse_int=_checked_integer if integers else None,
        parse_constant=_refuse_constant,
    )


def _compact_token(token: re.Match[str]) -> str:
    text = token.group()
    if text[0] != '"':
        return ""
    return json.dumps(json.loads(text), ensure_ascii=False) if "\\" in text else text


def _check_unicode(text: str, what: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInput(
            f"the {what} has half of a surrogate pair", hint="send valid Unicode text"
        ) from None


def _numbers(text: str) -> Iterator[str]:
    """Give the numbers of a JSON text."""
    return (found.group() for found in re.finditer(_NUMBERS, text) if found.group()[0] != '"')


def _end_of_container(text: str, start: int) -> int:
    """Return where a list or an object that begins at a place ends, whatever is in it."""
    level = 0
    for token in re.compile(_BRACKETS).finditer(text, start):
        mark = token.group()
        level += 1 if mark in "[{" else -1 if mark in "]}" else 0
        if level == 0:
            return token.end()
    return len(text)
