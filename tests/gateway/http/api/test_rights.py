"""What a token may do and see over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Optional
from urllib.parse import urlencode

import pytest

from tests.gateway.http.api.support import KEY, NOTHING, ask, token
from tests.support import RunningGateway, gateway
from ws_manager.gateway.http.api.routes import ROUTES
from ws_manager.gateway.http.api.schemas import Schema
from ws_manager.tokens import SCOPES, verify

SECRET = "the content that nobody may see"


def crowd(running: RunningGateway) -> dict[str, str]:
    """Two agents that have sent each other messages, and one that nobody else knows."""
    ledger = running.ledger
    for ws_id, agent in (("ws-own", "octavia"), ("ws-friend", "cipher"), ("ws-hidden", "aria")):
        ledger.connect(agent, ws_id, {"secret": agent})
    ids = {}
    for name, sender, recipient in (
        ("to own", "ws-friend", "ws-own"),
        ("from own", "ws-own", "ws-friend"),
        ("others", "ws-hidden", "ws-friend"),
        ("others' own", "ws-hidden", "ws-hidden"),
    ):
        sent = ledger.send(recipient, {"text": SECRET}, "data", sender)
        assert sent is not None
        ids[name] = sent.msg_id
    ids["own broadcast"] = ledger.broadcast(SECRET, sender_id="ws-own", agent="cipher").broadcast_id
    ids["hidden broadcast"] = ledger.broadcast(SECRET, sender_id="ws-hidden", agent="aria").broadcast_id
    return ids


def path_of(route_path: str) -> str:
    return (
        route_path.replace("{ws_id}", "ws-own")
        .replace("{msg_id}", "x")
        .replace("{broadcast_id}", "x")
        .replace("{id}", "ws-own")
        .replace("{agent}", "octavia")
        .replace("{jti}", "x")
    )


def example(schema: Schema) -> dict[str, object]:
    """A body with what a schema requires; of events, an operation requires some."""
    values: dict[str, object] = {"agent": "octavia", "to": "ws-own", "content": 1, "older_than": 86400}
    values |= {"hold": "x", "epoch": 1}
    events = {"event_ids": ["evt_1"]} if "event_ids" in schema["properties"] else {}
    return {**events, **{name: values[name] for name in schema["required"]}}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)
async def test_each_route_asks_for_its_scope(database: Path, route) -> None:
    async with gateway(database, key=KEY) as running:
        crowd(running)
        body: object = NOTHING if route.body is None else example(route.body)
        needed = {"agent": "nobody"} if route.operation == "delete_connections" else {}
        needed |= {parameter.name: "x" for parameter in route.parameters if parameter.required}
        path = f"{path_of(route.path)}?{urlencode(needed)}"
        anonymous = await ask(running, route.method, path, body, bearer="")
        assert (anonymous.status, anonymous.headers["WWW-Authenticate"]) == (401, "Bearer")
        others = [scope for scope in SCOPES if scope not in (route.scope, "admin")]
        refused = await ask(running, route.method, path, body, bearer=token(*others))
        assert (refused.status, refused.body["detail"]) == (403, f"the token has no scope {route.scope}")
        for scope in (route.scope, "admin"):
            allowed = await ask(running, route.method, path, body, bearer=token(scope))
            assert allowed.status in (200, 201, 202, 404, 409, 422), allowed


async def everything(running: RunningGateway, bearer: str, ids: dict[str, str]) -> list[str]:
    """The texts of all that can be read."""
    names = ["ws-own", "ws-friend", "ws-hidden", *ids.values()]
    paths = [
        *("/v1/connections?status=all", "/v1/messages", "/v1/broadcasts", "/v1/stats", "/v1/bars"),
        *("/v1/snapshot", "/v1/doctor", "/v1/stripe-events"),
        *(f"/v1/connections?after={name}" for name in names[:3]),
        *(f"/v1/connections/{name}" for name in names),
        *(f"/v1/messages/{name}" for name in names),
        *(f"/v1/messages?ws_id={name}" for name in names[:3]),
        *(f"/v1/messages?agent={name}" for name in ("octavia", "cipher", "aria")),
        *(f"/v1/messages?broadcast={name}" for name in names),
        *(f"/v1/broadcasts/{name}" for name in names),
        *(f"/v1/show/{name}" for name in names),
        *(f"/v1/show/{name[:6]}" for name in names),
    ]
    return [f"{path} {(await ask(running, 'GET', path, bearer=bearer)).text}" for path in paths]


async def test_reader_without_the_scope_content_never_sees_any(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        ids = crowd(running)
        seen = await everything(running, token("read"), ids)
        assert not [text for text in seen if SECRET in text]
        assert [text for text in await everything(running, token("read", "content"), ids) if SECRET in text]
        shown = await ask(running, "GET", f"/v1/messages/{ids['to own']}", bearer=token("read"))
        assert (shown.body["content"], shown.body["content_bytes"]) == (
            None,
            len(json.dumps({"text": SECRET}, separators=(",", ":"))),
        )
        # Nor can it be searched for.
        found = await ask(running, "GET", "/v1/messages?search=nobody", bearer=token("read"))
        assert found.status == 403


async def test_token_of_an_agent_reads_only_its_own(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        ids = crowd(running)
        own = token("read", "content", agent="octavia")
        seen = await everything(running, own, ids)
        assert not [
            text
            for text in seen
            if "ws-hidden" in text.split(" ", 1)[1] and "ws-hidden" not in text.split(" ", 1)[0]
        ]
        assert not [text for text in seen if "aria" in text.split(" ", 1)[1]]
        listed = await ask(running, "GET", "/v1/messages", bearer=own)
        assert {item["msg_id"] for item in listed.body["items"]} >= {ids["to own"], ids["from own"]}
        assert {item["msg_id"] for item in listed.body["items"]}.isdisjoint(
            {ids["others"], ids["others' own"]}
        )
        for path in (f"/v1/messages/{ids['others']}", "/v1/connections/ws-hidden", "/v1/show/ws-hidden"):
            refused = await ask(running, "GET", path, bearer=own)
            unknown = await ask(running, "GET", path[:-4] + "none", bearer=own)
            assert (
                (refused.status, refused.body["code"])
                == (unknown.status, unknown.body["code"])
                == (404, "not_found")
            )
        assert (await ask(running, "GET", f"/v1/broadcasts/{ids['own broadcast']}", bearer=own)).status == 200
        assert (
            await ask(running, "GET", f"/v1/broadcasts/{ids['hidden broadcast']}", bearer=own)
        ).status == 404
        assert (await ask(running, "GET", "/v1/stats", bearer=own)).status == 403


async def test_token_of_one_connection_reads_only_that_one(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        crowd(running)
        running.ledger.connect("octavia", "ws-sibling")
        one = token("read", agent="octavia", ws_id="ws-own")
        listed = await ask(running, "GET", "/v1/connections", bearer=one)
        assert [item["ws_id"] for item in listed.body["items"]] == ["ws-own"]
        assert (await ask(running, "GET", "/v1/connections/ws-sibling", bearer=one)).status == 404


async def test_token_of_an_agent_lists_the_broadcasts_that_it_has_sent(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        ids = crowd(running)
        running.ledger.connect("octavia", "ws-sibling")

        def broadcast(sender: str) -> str:
            return running.ledger.broadcast(1, sender_id=sender).broadcast_id

        siblings, own = broadcast("ws-sibling"), broadcast("ws-own")
        for _ in range(3):
            broadcast("ws-hidden")
        latest = broadcast("ws-own")

        async def listed(query: str, bearer: str) -> tuple[list[str], Optional[str]]:
            answer = await ask(running, "GET", f"/v1/broadcasts{query}", bearer=bearer)
            assert answer.status == 200, answer
            return [item["broadcast_id"] for item in answer.body["items"]], answer.body["next"]

        agents, connections = token("read", agent="octavia"), token("read", agent="octavia", ws_id="ws-own")
        assert await listed("", agents) == ([latest, own, siblings, ids["own broadcast"]], None)
        assert await listed("?limit=2", agents) == ([latest, own], own)
        assert await listed(f"?limit=2&after={own}", agents) == ([siblings, ids["own broadcast"]], None)
        assert await listed("", connections) == ([latest, own, ids["own broadcast"]], None)
        assert await listed("", token("read", ws_id="ws-own")) == ([latest, own, ids["own broadcast"]], None)
        assert await listed("", token("read", agent="cipher", ws_id="ws-own")) == ([], None)
        for after, bearer in ((ids["hidden broadcast"], agents), (siblings, connections), ("none", agents)):
            refused = await ask(running, "GET", f"/v1/broadcasts?after={after}", bearer=bearer)
            assert (refused.status, refused.body["detail"]) == (404, f"no broadcast {after}")


async def test_barred_agents_and_revoked_tokens_are_403(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        crowd(running)
        own, other = token("read", agent="octavia"), token("read", agent="cipher")
        running.ledger.bar("octavia")
        running.ledger.revoke(verify(KEY, other).key or "")
        for bearer, why in ((own, "the agent is barred"), (other, "the token was revoked")):
            refused = await ask(running, "GET", "/v1/connections", bearer=bearer)
            assert (refused.status, refused.body["detail"]) == (403, why)
        connect = token("connect")
        refused = await ask(running, "PUT", "/v1/connections/ws-x", {"agent": "octavia"}, bearer=connect)
        assert refused.status == 403


async def test_operators_of_one_agent_do_not_operate_the_whole_ledger(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        crowd(running)
        own = token("admin", agent="octavia")
        assert (await ask(running, "DELETE", "/v1/connections/ws-friend", bearer=own)).status == 404
        assert (await ask(running, "DELETE", "/v1/connections/ws-own", bearer=own)).status == 200
        for method, path, body in (
            ("POST", "/v1/prunes", {"older_than": 60}),
            ("PUT", "/v1/bars/cipher", NOTHING),
            ("POST", "/v1/retries", {}),
            ("GET", "/v1/stripe-events", NOTHING),
            ("POST", "/v1/stripe-replays", {"event_ids": ["evt_1"]}),
            ("DELETE", "/v1/connections?agent=cipher", NOTHING),
        ):
            assert (await ask(running, method, path, body, bearer=own)).status == 403


async def test_the_sender_of_a_message_learns_nothing_of_its_recipients_life(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        ids = crowd(running)
        own = token("read", agent="octavia")
        sent = running.ledger.send("ws-friend", "later", "data", "ws-own")
        assert sent is not None
        running.ledger.disconnect("ws-friend", "fired for theft")
        running.ledger.connect("cipher", "ws-friend")
        for path in (
            f"/v1/show/{sent.msg_id}",
            f"/v1/messages/{sent.msg_id}",
            f"/v1/show/{ids['from own']}",
            f"/v1/show/{ids['own broadcast']}",
            f"/v1/broadcasts/{ids['own broadcast']}",
        ):
            answer = await ask(running, "GET", path, bearer=own)
            assert answer.status == 200
            assert "agent=cipher" not in answer.text
            assert "theft" not in answer.text
        waiting = (await ask(running, "GET", f"/v1/show/{sent.msg_id}", bearer=own)).body
        assert (waiting["verdict"], [entry["what"] for entry in waiting["timeline"]]) == ("pending", ["sent"])
        assert "agent=cipher" in (await ask(running, "GET", f"/v1/show/{sent.msg_id}")).text
