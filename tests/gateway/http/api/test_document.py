"""`/v1/openapi.json`: the document, and the routes that it describes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from aiohttp import web

from tests.gateway.http.api.support import KEY, ask
from tests.support import gateway
from ws_manager.core.once import LONGEST_KEY
from ws_manager.core.validation import check_name
from ws_manager.errors import InvalidInput
from ws_manager.forms import ASK_FIELDS, BROADCAST_FIELDS, CONNECTION_FIELDS, MESSAGE_FIELDS, WIRE_FIELDS
from ws_manager.gateway.http.api.openapi import document
from ws_manager.gateway.http.api.routes import ROUTES
from ws_manager.gateway.http.api.schemas import COMPONENTS, NAME
from ws_manager.gateway.http.api.schemas import KEY as KEY_SCHEMA


async def test_it_needs_no_token_and_names_the_gateway(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        answer = await ask(running, "GET", "/v1/openapi.json", bearer="")
        assert (answer.status, answer.body["openapi"]) == (200, "3.1.0")
        assert answer.body["servers"] == [{"url": running.url}]


async def test_every_route_is_in_the_document_and_none_else(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        application: web.Application = running.server._listener._runner.app
        served = {
            (route.method, route.resource.canonical)
            for route in application.router.routes()
            if route.resource is not None
            and route.resource.canonical.startswith("/v1/")
            and route.method != "HEAD"
        }
    described = {
        (method.upper(), path)
        for path, methods in document("").get("paths", {}).items()
        for method in methods
    }
    streams = {("GET", f"/v1/{name}") for name in ("events", "export", "backup")} | {("POST", "/v1/batches")}
    assert described == {(route.method, route.path) for route in ROUTES} | streams
    assert served - described == {("GET", "/v1/openapi.json"), ("GET", "/v1/asyncapi.json")}


def test_operations_have_names_of_their_own() -> None:
    names = [route.operation for route in ROUTES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("component", "fields"),
    [
        ("Connection", CONNECTION_FIELDS),
        ("Message", MESSAGE_FIELDS),
        ("WireMessage", WIRE_FIELDS),
        ("Ask", ASK_FIELDS),
        ("Broadcast", BROADCAST_FIELDS),
    ],
)
def test_forms_are_described_as_they_are(component: str, fields: tuple[str, ...]) -> None:
    assert tuple(COMPONENTS[component]["required"]) == fields


@pytest.mark.parametrize(
    "name", ["a", "ws-001", "ü", "a b", "日本", "🙂", "x" * 128, " a ", "a/b", '"', "\\"]
)
def test_names_that_are_described_are_accepted(name: str) -> None:
    assert re.search(NAME["pattern"], name)
    assert check_name(name, "agent") == name


@pytest.mark.parametrize("name", ["", " ", "\u3000", "a\nb", "\x7f", "a\u200bb", "\ufeff", "\u2028"])
def test_names_that_are_not_described_are_refused(name: str) -> None:
    assert not re.search(NAME["pattern"], name)
    with pytest.raises(InvalidInput):
        check_name(name, "agent")


def test_the_key_is_as_long_as_one_may_be() -> None:
    assert KEY_SCHEMA["maxLength"] == LONGEST_KEY
