"""Turns the text of a query and of a body into values, as their schemas say. What a value may be, `core` decides."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from aiohttp import web

from ws_manager.core.moments import parse_moment
from ws_manager.core.traceparent import valid_traceparent
from ws_manager.errors import InvalidInput
from ws_manager.gateway.http.api.route import Parameter
from ws_manager.gateway.http.api.schemas import NAME, Schema
from ws_manager.strict_json import Json, NotJson, compact, decode_json, members

_DATE_TIME = r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)"

_KINDS: dict[str, Any] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "object": dict,
    "array": list,
}


class BadParameter(InvalidInput):
    """A parameter, or a member of the body, cannot be accepted.

    Attributes:
        param: its name.
    """

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


def query_of(request: web.Request) -> list[tuple[str, str]]:
    """Return a request's query, without a token in it, which `Access` has read."""
    return [(name, value) for name, value in request.query.items() if name != "access_token"]


def traceparent_of(request: web.Request) -> Optional[str]:
    """Return a request's header `traceparent`; None if it is missing or invalid, or there are two."""
    given = request.headers.getall("traceparent", [])
    return valid_traceparent(given[0]) if len(given) == 1 else None


def parse_query(query: Iterable[tuple[str, str]], parameters: Iterable[Parameter]) -> dict[str, Any]:
    """Return the parameters of a query.

    Raises:
        BadParameter: one is unknown, missing, given twice, or has a value that it cannot have.
    """
    known = {parameter.name: parameter for parameter in parameters}
    found: dict[str, Any] = {}
    for name, text in query:
        parameter = known.get(name)
        if parameter is None:
            raise BadParameter("there is no such parameter", name[:100])
        value = _from_text(text, parameter)
        if parameter.repeated:
            found.setdefault(name, []).append(value)
        elif name in found:
            raise BadParameter(f"{name} is given twice", name)
        else:
            found[name] = value
    for parameter in known.values():
        if parameter.name not in found:
            if parameter.required:
                raise BadParameter(f"{parameter.name} is missing", parameter.name)
            if "default" in parameter.schema:
                found[parameter.name] = parameter.schema["default"]
    return found


def parse_body(data: bytes, schema: Schema) -> dict[str, Any]:
    """Return the members of a body. A member that may be any JSON value is `Json`: its text.

    Raises:
        BadParameter: a member is unknown, missing, or of another type.
        InvalidInput: it is not a JSON object in UTF-8, or exceeds the limits of `strict_json`.
    """
    try:
        text = data.decode("utf-8")
        body = decode_json(text, "the body", envelope=1)
    except (UnicodeDecodeError, NotJson):
        raise InvalidInput("the body is not JSON in UTF-8") from None
    if not isinstance(body, dict):
        raise InvalidInput("the body is not a JSON object")
    _check_members(body, schema)
    texts = members(text)
    properties = schema["properties"]
    return {
        name: _json_of(texts[name], name) if _is_open(properties[name]) else value
        for name, value in body.items()
        if value is not None or _is_open(properties[name])
    }


def _json_of(text: str, name: str) -> Json:
    return compact(text, name)


def _is_open(schema: Schema) -> bool:
    """Return whether a member is kept as text: any value, or any object."""
    return ("type" not in schema and "enum" not in schema) or schema.get("type") == "object"


def _check_members(body: Mapping[str, Any], schema: Schema) -> None:
    properties = schema["properties"]
    for name, value in body.items():
        if name not in properties:
            raise BadParameter("there is no such member", name[:100])
        check_value(value, properties[name], name)
    for name in schema["required"]:
        if name not in body:
            raise BadParameter(f"{name} is missing", name)


def check_value(value: Any, schema: Schema, name: str) -> None:  # noqa: ANN401 - a JSON value
    """Check a value's type, its bounds and its choices.

    Raises:
        BadParameter: it does not have them.
    """
    kinds = schema.get("type")
    if kinds is not None:
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not any(_is(value, kind) for kind in kinds):
            raise BadParameter(f"{name} is not {' or '.join(_article(kind) for kind in kinds)}", name)
    if value is None:
        return
    if "enum" in schema and value not in schema["enum"]:
        raise BadParameter(f"{name} is not one of {', '.join(map(str, schema['enum']))}", name)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        least, most = schema.get("minimum"), schema.get("maximum")
        if (least is not None and value < least) or (most is not None and value > most):
            raise BadParameter(f"{name} is not between {least} and {most}", name)
    if isinstance(value, list) and "items" in schema:
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            raise BadParameter(f"{name} has {len(value)} items: see /v1/openapi.json", name)
        for each in value:
            check_value(each, schema["items"], name)
    if isinstance(value, str) and not _fits(value, schema):
        raise BadParameter(f"{name} does not have the form that /v1/openapi.json gives", name)


def _fits(text: str, schema: Schema) -> bool:
    """Return whether a text has the form that a schema asks for."""
    if "anyOf" in schema:
        return any(_fits(text, each) for each in schema["anyOf"])
    if schema.get("format") == "date-time" and not _is_date_time(text):
        return False
    if not schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", len(text)):
        return False
    # Of names, `core` decides: in some scripts they need characters that the pattern leaves out.
    pattern = None if schema.get("pattern") == NAME["pattern"] else schema.get("pattern")
    return pattern is None or re.search(pattern, text) is not None


def _is_date_time(text: str) -> bool:
    """Return whether a text is a time of RFC 3339 section 5.6."""
    if re.fullmatch(_DATE_TIME, text, re.ASCII) is None:
        return False
    try:
        parse_moment(text)
    except InvalidInput:
        return False
    return True


def _is(value: Any, kind: str) -> bool:  # noqa: ANN401 - a JSON value
    if kind == "null":
        return value is None
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer":
        # JSON Schema: 1.0 is an integer.
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, _KINDS[kind])


def _article(kind: str) -> str:
    return {"null": "null", "integer": "an integer", "object": "an object", "array": "a list"}.get(
        kind, f"a {kind}"
    )


def _from_text(text: str, parameter: Parameter) -> Any:  # noqa: ANN401 - as the schema says
    schema, name = parameter.schema, parameter.name
    kind, value = schema.get("type"), text
    if kind == "boolean":
        if text not in ("true", "false"):
            raise BadParameter(f"{name} is neither true nor false", name)
        return text == "true"
    if kind in ("integer", "number"):
        try:
            number = float(text) if kind == "number" else _integer(text)
        except ValueError:
            raise BadParameter(f"{name} is not {_article(str(kind))}", name) from None
        if number != number:
            raise BadParameter(f"{name} is not a number", name)
        check_value(number, schema, name)
        return number
    check_value(value, schema, name)
    return value


def _integer(text: str) -> int:
    if not text.isascii() or not text.lstrip("-").isdigit() or len(text) > 20:
        raise ValueError(text)
    return int(text)
