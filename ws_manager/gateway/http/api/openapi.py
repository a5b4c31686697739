"""`/v1/openapi.json`: the OpenAPI 3.1 document of the route table."""

from __future__ import annotations

from typing import Any

from ws_manager.gateway.http.api.batch_sender import LINE
from ws_manager.gateway.http.api.downloads import BACKUP, EXPORT
from ws_manager.gateway.http.api.events import PARAMETERS
from ws_manager.gateway.http.api.route import Parameter, Route
from ws_manager.gateway.http.api.routes import ROUTES
from ws_manager.gateway.http.api.schemas import COMPONENTS, KEY, PROBLEM, Schema
from ws_manager.tokens import SCOPES
from ws_manager.version import __version__

STATUSES = {
    200: "done",
    201: "made",
    202: "made; the wait ended before everything was confirmed",
    400: "a parameter or the body cannot be accepted",
    401: "no token, or one that is not valid",
    403: "the token does not allow it, or the agent is barred",
    404: "there is no such thing",
    408: "the request did not come in time",
    409: "a conflict with what there is",
    413: "the body is too large",
    422: "a value is of the right form, and cannot be used",
    429: "too many requests; Retry-After says when to come back",
    503: "the gateway cannot do it now; Retry-After says when to come back",
}
"""What each status means."""

ALWAYS = (400, 401, 403, 429, 503)
"""The problems that every route has."""


_TRACEPARENT = {
    "name": "traceparent",
    "in": "header",
    "description": "the W3C trace context of what is sent, where the body gives none; an invalid one is ignored",
    "schema": {"type": "string"},
}


def document(url: str) -> dict[str, Any]:
    """Return the document. `url` is the gateway's base address."""
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    paths["/v1/events"] = {"get": _events()}
    paths["/v1/batches"] = {"post": _batches()}
    paths[EXPORT] = {
        "get": _download("export", "Get the whole ledger as lines of JSON.", "application/x-ndjson")
    }
    paths[BACKUP] = {
        "get": _download("backup", "Get a copy of the ledger's file.", "application/octet-stream")
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ws-manager",
            "version": __version__,
            "description": "Who is connected, what was sent to whom, and whether it arrived.",
        },
        "servers": [{"url": url}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {**COMPONENTS, "Line": LINE},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": f"a token of `ws-manager token`, with a scope of {', '.join(SCOPES)}",
                }
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    parameters = [_parameter(each, "path") for each in route.path_parameters]
    parameters += [_parameter(each, "query") for each in route.parameters]
    if route.keyed:
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "the same key for the same request does it once, for a day",
                "schema": KEY,
            }
        )
    if route.body is not None and "traceparent" in route.body["properties"]:
        parameters.append(_TRACEPARENT)
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "description": f"Needs the scope `{route.scope}`.",
        "parameters": parameters,
        "responses": {
            **{str(status): _answer(status, route.reply) for status in route.status},
            **{str(status): _answer(status, schema) for status, schema in route.other.items()},
            **{str(status): _problem(status) for status in sorted({*ALWAYS, *_errors(route)})},
        },
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": route.body}},
        }
    return operation


def _events() -> dict[str, Any]:
    """Return the operation of the streams."""
    last = {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "the id of the last event that was received: the stream goes on behind it",
        "schema": {"type": "string"},
    }
    stream = {
        "description": "server-sent events: `id` is a cursor, `event` the kind, `data` JSON; "
        "the event `gap` says that others are missing",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
    return {
        "operationId": "get_events",
        "summary": "Hear what happens: connections, and confirmations of messages.",
        "description": "Needs the scope `read`.",
        "parameters": [*(_parameter(each, "query") for each in PARAMETERS), last],
        "responses": {"200": stream, **{str(status): _problem(status) for status in ALWAYS}},
    }


def _batches() -> dict[str, Any]:
    """Return the operation of batches."""
    lines = {"schema": {"type": "string", "minLength": 1}}
    return {
        "operationId": "post_batches",
        "summary": "Send many messages: one JSON object a line, each answered by one line after its commit.",
        "description": "Needs the scope `send` for lines with `to`, which are messages, and `broadcast` for others. "
        "A line is `Line` in the schemas; its `key` is its idempotency key. An answer is "
        '`{"line":N,"ok":true,"msg_id":…}`, `{"line":N,"ok":true,"broadcast_id":…,"recipients":N}` or '
        '`{"line":N,"ok":false,"error":{"code","message","hint"}}`.',
        "parameters": [_TRACEPARENT],
        "requestBody": {"required": True, "content": {"application/x-ndjson": lines, "text/plain": lines}},
        "responses": {
            "200": {"description": "the answers", "content": {"application/x-ndjson": lines}},
            **{str(status): _problem(status) for status in ALWAYS},
        },
    }


def _download(name: str, summary: str, kind: str) -> dict[str, Any]:
    """Return the operation of a download. It comes in pieces; if it breaks off, it has no end."""
    content = {kind: {"schema": {"type": "string"}}}
    return {
        "operationId": f"get_{name}",
        "summary": summary,
        "description": "Needs the scope `admin`.",
        "responses": {
            "200": {"description": STATUSES[200], "content": content},
            **{str(status): _problem(status) for status in sorted({*ALWAYS, 409})},
        },
    }


def _errors(route: Route) -> tuple[int, ...]:
    takes = (422,) if route.parameters or route.path_parameters or route.body else ()
    return (*route.errors, *takes, *((408, 413) if route.body is not None else ()))


def _parameter(parameter: Parameter, where: str) -> dict[str, Any]:
    schema = {"type": "array", "items": parameter.schema} if parameter.repeated else parameter.schema
    return {
        "name": parameter.name,
        "in": where,
        "required": where == "path" or parameter.required,
        "description": parameter.text,
        "schema": schema,
    }


def _answer(status: int, schema: Schema) -> dict[str, Any]:
    return {"description": STATUSES[status], "content": {"application/json": {"schema": schema}}}


def _problem(status: int) -> dict[str, Any]:
    return {"description": STATUSES[status], "content": {"application/problem+json": {"schema": PROBLEM}}}
