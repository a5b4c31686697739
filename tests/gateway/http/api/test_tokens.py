"""`POST /v1/tokens`: who may make which token."""

from __future__ import annotations

import logging
import time
from datetime import datetime
from pathlib import Path
from typing import Optional

import pytest

from tests.gateway.http.api.support import KEY, ask
from tests.support import Clock, Refused, gateway
from ws_manager.tokens import DEFAULT_TTL, SCOPES, mint, verify


def lasting(seconds: float, *, agent: str = "*", ws_id: Optional[str] = None) -> str:
    """An operator's token that ends after some seconds from now."""
    return mint(KEY, agent, ws_id=ws_id, scopes=("admin",), ttl=seconds)


def seconds_of(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


async def test_what_is_made_opens_a_socket_and_nothing_else(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        body = {"agent": "octavia", "ws_id": "ws-001", "ttl": 60}
        made = await ask(running, "POST", "/v1/tokens", body)
        assert (made.status, made.headers["Cache-Control"]) == (201, "no-store")
        assert made.body.keys() == {"token", "jti", "agent", "ws_id", "scopes", "expires_at"}
        assert (made.body["agent"], made.body["ws_id"], made.body["scopes"]) == (
            "octavia",
            "ws-001",
            ["connect"],
        )
        claims = verify(KEY, made.body["token"])
        assert (claims.jti, claims.expires_at) == (made.body["jti"], seconds_of(made.body["expires_at"]))
        assert claims.expires_at - claims.issued_at == 60
        agent = await running.agent(access_token=made.body["token"])
        assert agent.greeting["ws_id"] == "ws-001"
        refused = await ask(running, "GET", "/v1/connections", bearer=made.body["token"])
        assert refused.status == 403


async def test_operator_makes_tokens_of_every_scope(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        body = {"agent": "*", "scopes": [*reversed(SCOPES)], "ttl": 60}
        made = await ask(running, "POST", "/v1/tokens", body)
        assert (made.status, made.body["agent"], made.body["scopes"]) == (201, "*", list(SCOPES))
        assert verify(KEY, made.body["token"]).scopes == frozenset(SCOPES)


async def test_none_outlasts_the_token_that_made_it(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        hour = lasting(3600)
        end = verify(KEY, hour).expires_at
        assert (
            await ask(running, "POST", "/v1/tokens", {"agent": "a", "ttl": 3500}, bearer=hour)
        ).status == 201
        refused = await ask(running, "POST", "/v1/tokens", {"agent": "a", "ttl": 3700}, bearer=hour)
        assert (refused.status, refused.body["code"]) == (403, "not_authorised")
        assert "outlast" in refused.body["detail"]
        # Without a ttl it lasts as long as it can.
        made = await ask(running, "POST", "/v1/tokens", {"agent": "a"}, bearer=hour)
        assert end - 2 <= seconds_of(made.body["expires_at"]) <= end
        made = await ask(running, "POST", "/v1/tokens", {"agent": "a"}, bearer=lasting(10 * DEFAULT_TTL))
        claims = verify(KEY, made.body["token"])
        assert claims.expires_at - claims.issued_at == DEFAULT_TTL


@pytest.mark.parametrize(
    ("agent", "ws_id", "body", "status"),
    [
        ("octavia", None, {"agent": "octavia"}, 201),
        ("octavia", None, {"agent": "octavia", "ws_id": "ws-2", "scopes": ["admin"]}, 201),
        ("octavia", None, {"agent": "cipher"}, 403),
        ("octavia", None, {"agent": "*"}, 403),
        ("octavia", "ws-1", {"agent": "octavia", "ws_id": "ws-1"}, 201),
        ("octavia", "ws-1", {"agent": "octavia", "ws_id": "ws-2"}, 403),
        ("octavia", "ws-1", {"agent": "octavia"}, 403),
        ("*", "ws-1", {"agent": "cipher", "ws_id": "ws-1"}, 201),
        ("*", "ws-1", {"agent": "cipher"}, 403),
    ],
)
async def test_operator_of_one_agent_or_connection_makes_only_its_own(
    database: Path, agent: str, ws_id: Optional[str], body: dict[str, object], status: int
) -> None:
    async with gateway(database, key=KEY) as running:
        caller = lasting(3600, agent=agent, ws_id=ws_id)
        answer = await ask(running, "POST", "/v1/tokens", {**body, "ttl": 60}, bearer=caller)
        assert answer.status == status, answer


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "agent"),
        ({"agent": "a", "scopes": ["fly"]}, 400, "scopes"),
        ({"agent": "a", "ttl": 0}, 400, "ttl"),
        ({"agent": "a", "ttl": 1.5}, 400, "ttl"),
        ({"agent": "a", "scopes": []}, 400, "scopes"),
        ({"agent": " "}, 422, None),
        ({"agent": "a", "ws_id": "a\nb"}, 422, None),
    ],
)
async def test_what_no_token_can_have_is_refused(
    database: Path, body: dict[str, object], status: int, param: Optional[str]
) -> None:
    async with gateway(database, key=KEY) as running:
        refused = await ask(running, "POST", "/v1/tokens", body)
        assert (refused.status, refused.body.get("param")) == (status, param), refused


async def test_gateway_without_tokens_makes_none(database: Path) -> None:
    async with gateway(database) as running:
        refused = await ask(running, "POST", "/v1/tokens", {"agent": "a"}, bearer="", key="k")
        assert (refused.status, refused.body["code"]) == (409, "conflict")
        assert "requires no tokens" in refused.body["detail"]
        assert running.db.value("SELECT count(*) FROM idempotency_keys") == 0


async def test_same_key_makes_the_same_token_and_the_ledger_does_not_keep_it(database: Path) -> None:
    clock = Clock()
    clock.seconds = time.time()
    async with gateway(database, key=KEY, clock=clock) as running:
        operator, body = lasting(7200), {"agent": "octavia", "scopes": ["connect", "send"], "ttl": 60}
        first = await ask(running, "POST", "/v1/tokens", body, bearer=operator, key="k")
        clock.forward(30)
        body["scopes"] = ["send", "connect"]
        again = await ask(running, "POST", "/v1/tokens", body, bearer=operator, key="k")
        assert (again.status, again.body) == (first.status, first.body)
        assert "Idempotency-Replayed" not in first.headers
        assert again.headers["Idempotency-Replayed"] == "true"
        other = await ask(running, "POST", "/v1/tokens", {**body, "ttl": 61}, bearer=operator, key="k")
        assert (other.status, other.body["code"]) == (422, "key_reused")
        kept = str(running.db.rows("SELECT * FROM idempotency_keys"))
        assert first.body["jti"] in kept
        assert not [part for part in first.body["token"].split(".") if part in kept]


async def test_same_key_does_not_give_a_shorter_token_what_a_longer_one_made(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        body = {"agent": "octavia"}
        made = await ask(running, "POST", "/v1/tokens", body, bearer=lasting(7200), key="k")
        assert made.status == 201
        refused = await ask(running, "POST", "/v1/tokens", body, bearer=lasting(3600), key="k")
        assert (refused.status, "token" in refused.body) == (403, False)


async def test_no_token_is_logged(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with gateway(database, key=KEY) as running:
        operator, body = lasting(3600), {"agent": "octavia", "ws_id": "ws-001", "ttl": 60}
        made = await ask(running, "POST", "/v1/tokens", body, bearer=operator, key="k")
        outlasting = await ask(running, "POST", "/v1/tokens", {**body, "ttl": 7200}, bearer=operator)
        assert (made.status, outlasting.status) == (201, 403)
        await running.agent(access_token=made.body["token"])
        with pytest.raises(Refused):
            await running.agent("cipher", access_token=made.body["token"])
    logged = [str(vars(record)) for record in caplog.records]
    assert [text for text in logged if "ws-001" in text]
    assert [text for text in logged if "cipher" in text]
    assert not [text for text in logged if made.body["token"] in text or operator in text]
