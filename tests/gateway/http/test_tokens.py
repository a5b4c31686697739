"""A gateway that asks for tokens: who gets in, who does not, and how far a token reaches."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Callable, Optional
from urllib.parse import urlencode, urlsplit

import aiohttp
import jwt
import pytest

from tests.support import Clock, Refused, RunningGateway, gateway, handshake, refusal, run, within
from tests.test_tokens import unsigned
from ws_manager.errors import InvalidInput
from ws_manager.gateway.delivery import hub
from ws_manager.gateway.http.access import check_address
from ws_manager.gateway.http.names import Names
from ws_manager.gateway.options import GatewayOptions
from ws_manager.tokens import AUDIENCE, SCOPES, mint

KEY = b"the key of this test, not a secret"
EVERY_ORIGIN = ("https://app.example.com",)


def token(agent: str = "octavia", *scopes: str, **how: Any) -> str:
    return mint(KEY, agent, scopes=scopes or ("connect",), **how)


def bearer(text: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {text}")]


def undisturbed(database: Path, attempt: Callable[[RunningGateway], Coroutine[Any, Any, int]]) -> int:
    """Let somebody try while an agent is connected, and return the status; the agent must not notice."""

    async def scenario() -> int:
        async with gateway(database, key=KEY, origins=EVERY_ORIGIN) as running:
            other = await running.agent("cipher", "ws-009", access_token=token("cipher"))
            status = await attempt(running)
            assert running.ledger.find("ws-001") is None or status == 101
            seq = running.send(ws_id="ws-009")
            assert (await other.message())["seq"] == seq
            return status

    return run(scenario())


def status_of(database: Path, *headers: tuple[str, str], query: str = "agent=octavia&ws_id=ws-001") -> int:
    return undisturbed(database, lambda running: refusal(running.url, query, list(headers)))


class TestWays:
    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
    def test_header(self, database: Path, scheme: str) -> None:
        assert status_of(database, ("Authorization", f"{scheme} {token()}")) == 101

    def test_parameter(self, database: Path) -> None:
        query = urlencode({"agent": "octavia", "ws_id": "ws-001", "access_token": token()})
        assert status_of(database, query=query) == 101

    def test_subprotocol(self, database: Path) -> None:
        protocols = ("Sec-WebSocket-Protocol", f"ws-manager.v1, bearer.{token()}")
        assert status_of(database, protocols) == 101

    @pytest.mark.parametrize("order", [0, 1])
    async def test_subprotocol_is_answered_without_the_token(self, database: Path, order: int) -> None:
        protocols = ["ws-manager.v1", f"bearer.{token()}"]
        if order:
            protocols.reverse()
        async with gateway(database, key=KEY) as running, aiohttp.ClientSession() as session:
            address = f"{running.url}/ws?agent=octavia"
            async with session.ws_connect(address, protocols=protocols) as websocket:
                assert websocket.protocol == "ws-manager.v1"

    @pytest.mark.parametrize("protocols", ["bearer.{}", "chat, bearer.{}", "Bearer.{}, ws-manager.v2"])
    def test_token_without_our_subprotocol_is_400(
        self, database: Path, protocols: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        given = token()
        assert status_of(database, ("Sec-WebSocket-Protocol", protocols.format(given))) == 400
        assert given not in caplog.text

    def test_two_tokens_are_400(self, database: Path) -> None:
        query = urlencode({"agent": "octavia", "ws_id": "ws-001", "access_token": token()})
        assert status_of(database, *bearer(token()), query=query) == 400


class TestUnauthorised:
    @pytest.mark.parametrize(
        "headers",
        [
            [],
            [("Authorization", "Basic b2N0YXZpYTpvY3RhdmlhMTIz")],
            [("Authorization", "Bearer")],
            [("Sec-WebSocket-Protocol", "ws-manager.v1")],
            [("Cookie", f"access_token={token()}")],
        ],
    )
    def test_no_token(self, database: Path, headers: list[tuple[str, str]]) -> None:
        assert status_of(database, *headers) == 401

    def test_expired(self, database: Path) -> None:
        assert status_of(database, *bearer(token(now=1_000_000))) == 401

    def test_not_a_token(self, database: Path) -> None:
        assert status_of(database, *bearer("open.sesame.please")) == 401

    def test_wrong_audience(self, database: Path) -> None:
        claims = {"sub": "octavia", "aud": "another", "iat": 0, "exp": 10**10, "scope": "connect"}
        assert status_of(database, *bearer(jwt.encode(claims, KEY, algorithm="HS256"))) == 401

    def test_no_algorithm(self, database: Path) -> None:
        assert status_of(database, *bearer(unsigned(alg="none"))) == 401

    def test_another_key(self, database: Path) -> None:
        assert status_of(database, *bearer(mint(b"x" * 32, "octavia"))) == 401

    @pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
    def test_another_algorithm_with_the_right_key(self, database: Path, algorithm: str) -> None:
        claims = {"sub": "octavia", "aud": AUDIENCE, "iat": 0, "exp": 10**10, "scope": "connect"}
        key = KEY * 2

        async def scenario() -> int:
            async with gateway(database, key=key) as running:
                forged = jwt.encode(claims, key, algorithm=algorithm)
                return await refusal(running.url, "agent=octavia", bearer(forged))

        assert run(scenario()) == 401

    @pytest.mark.parametrize(
        ("given", "challenge"), [(None, "Bearer"), ("nonsense", 'Bearer error="invalid_token"')]
    )
    async def test_is_challenged(self, database: Path, given: Optional[str], challenge: str) -> None:
        async with gateway(database, key=KEY) as running, aiohttp.ClientSession() as session:
            headers = dict(bearer(given)) if given else {}
            response = await session.get(f"{running.url}/ws?agent=octavia", headers=headers)
            assert (response.status, response.headers["WWW-Authenticate"]) == (401, challenge)
            assert (await response.json())["code"] == "not_authorised"


class TestForbidden:
    def test_another_agents_name(self, database: Path) -> None:
        assert status_of(database, *bearer(token("cipher"))) == 403

    @pytest.mark.parametrize("name", ["Octavia", "octavia ", "octavi", "*"])
    def test_a_similar_name(self, database: Path, name: str) -> None:
        query = urlencode({"agent": name, "ws_id": "ws-001"})
        assert status_of(database, *bearer(token()), query=query) == 403

    def test_another_ws_id(self, database: Path) -> None:
        assert status_of(database, *bearer(token(ws_id="ws-002"))) == 403

    @pytest.mark.parametrize("scope", [scope for scope in SCOPES if scope not in ("connect", "admin")])
    def test_scope_too_small(self, database: Path, scope: str) -> None:
        assert status_of(database, *bearer(token("octavia", scope))) == 403

    @pytest.mark.parametrize(
        "origin",
        [
            "null",
            "https://example.com",
            "https://evil-app.example.com",
            "https://app.example.com.evil.org",
            "https://sub.app.example.com",
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com@evil.org",
            "https://evil.org/https://app.example.com",
        ],
    )
    def test_origin_of_a_foreign_page_with_a_good_token(self, database: Path, origin: str) -> None:
        assert status_of(database, ("Origin", origin), *bearer(token())) == 403

    def test_foreign_host_with_a_good_token(self, database: Path) -> None:
        assert status_of(database, ("Host", "example.com"), *bearer(token())) == 403

    def test_another_agents_ws_id_is_a_conflict_still(self, database: Path) -> None:
        assert status_of(database, *bearer(token()), query="agent=octavia&ws_id=ws-009") == 409


class TestAllowed:
    @pytest.mark.parametrize("origin", ["https://app.example.com", "https://APP.example.com:443"])
    def test_origin(self, database: Path, origin: str) -> None:
        assert status_of(database, ("Origin", origin), *bearer(token())) == 101

    def test_any_agent(self, database: Path) -> None:
        assert status_of(database, *bearer(token("*"))) == 101

    def test_through_a_proxy(self, database: Path) -> None:
        assert status_of(database, ("X-Forwarded-For", "192.0.2.1"), *bearer(token())) == 101

    async def test_public_host(self, database: Path) -> None:
        async with gateway(database, key=KEY, public_hosts=("gateway.example.com",)) as running:
            for name in ("Host", "Origin"):
                value = "gateway.example.com" if name == "Host" else "https://gateway.example.com"
                headers = [(name, value), *bearer(token())]
                assert await refusal(running.url, "agent=octavia", headers) == 101

    @pytest.mark.skipif(
        tuple(map(int, aiohttp.__version__.split(".")[:3])) < (3, 14, 3),
        reason="with this aiohttp only loopback addresses are served",
    )
    async def test_every_address_serves_the_one_that_was_asked(self, database: Path) -> None:
        async with gateway(database, key=KEY, host="0.0.0.0") as running:
            assert running.url.startswith("http://127.0.0.1:")
            assert await refusal(running.url, "agent=octavia", bearer(token())) == 101
            headers = [("Host", "example.com"), *bearer(token())]
            assert await refusal(running.url, "agent=octavia", headers) == 403

    async def test_token_of_one_connection_names_it(self, database: Path) -> None:
        async with gateway(database, key=KEY) as running:
            agent = await running.agent(ws_id=None, access_token=token(ws_id="ws-007"))
            assert agent.greeting["ws_id"] == "ws-007"


class TestScopes:
    @pytest.mark.parametrize(
        ("scopes", "kind", "code"),
        [
            (("connect",), "send", "not_authorised"),
            (("connect", "broadcast"), "send", "not_authorised"),
            (("admin",), "send", None),
            (("connect", "send"), "broadcast", "not_authorised"),
            (("connect", "send"), "send", None),
            (("connect", "broadcast"), "broadcast", None),
        ],
    )
    async def test_of_what_an_agent_asks(
        self, database: Path, scopes: tuple[str, ...], kind: str, code: Optional[str]
    ) -> None:
        async with gateway(database, key=KEY) as running:
            running.offline("cipher", "ws-002")
            agent = await running.agent(access_token=token("octavia", *scopes))
            to = {"to": "ws-002"} if kind == "send" else {"agent": "cipher"}
            await agent.say(type=kind, ref=1, content="hello", **to)
            result = await agent.json()
            assert result.get("error", {}).get("code") == code
            assert running.db.value("SELECT count(*) FROM messages") == (0 if code else 1)


class TestExpiry:
    @pytest.fixture(autouse=True)
    def _short_ticks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hub, "_TICK_SECONDS", 0.005)

    async def test_in_mid_session_closes_with_4001(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, key=KEY, clock=clock) as running:
            agent = await running.agent(access_token=token(ttl=60, now=clock()))
            other = await running.agent("cipher", "ws-002", access_token=token("cipher", now=clock()))
            clock.forward(60)
            assert await agent.closed() == 4001
            connection = await running.socket_ended()
            assert (connection.status, connection.close_code) == ("active", 4001)
            seq = running.send(ws_id="ws-002")
            assert (await other.message())["seq"] == seq

    async def test_what_is_sent_meanwhile_comes_with_the_new_token(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database, key=KEY, clock=clock) as running:
            agent = await running.agent(access_token=token(ttl=60, now=clock()))
            clock.forward(60)
            await agent.closed()
            seqs = running.send_many(3)
            with pytest.raises(Refused) as refused:
                await running.agent(access_token=token(ttl=60, now=1000))
            assert refused.value.status == 401
            agent = await running.agent(access_token=token(now=clock()))
            assert await agent.messages(3) == seqs


class TestSecrecy:
    def test_no_token_and_no_content_reaches_a_log_or_an_answer(
        self, database: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        good, bad, foreign = token("octavia", "connect", "send"), "bad.token.here", token("cipher")
        secrets = [good, bad, foreign, KEY.decode(), "the content of a message"]

        async def scenario() -> list[str]:
            answers = []
            async with gateway(database, key=KEY) as running:
                agent = await running.agent(access_token=good)
                await agent.say(type="send", ref=1, to="ws-001", content="the content of a message")
                await agent.json()
                await agent.say(type="send", ref=1, to="nobody", content="the content of a message")
                for given in (bad, foreign):
                    with pytest.raises(Refused) as refused:
                        await running.agent(access_token=given)
                    answers.append(str(refused.value))
                await agent.send(1, b"the content of a message")
                await agent.closed()
                for line in (
                    b"GET /ws?access_token=%b HTTP/9.x",
                    b"GET /ws?access_token=%b",
                    b"%b / HTTP/1.1",
                ):
                    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(running.url).port)
                    writer.write(line % good.encode() + b"\r\n\r\n")
                    await within(reader.read())
                    writer.close()
                reader, writer, _ = await handshake(running.url, "agent=octavia", bearer(bad + "\x01"))
                writer.close()
            return answers

        answers = run(scenario())
        assert "ws-001 opened" in caplog.text
        for secret in secrets:
            assert secret not in caplog.text
            assert secret not in json.dumps(answers)

    def test_the_key_is_not_in_the_options_repr(self, database: Path) -> None:
        assert KEY.decode() not in repr(GatewayOptions(database, key=KEY))


class TestAddress:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example.com"])
    def test_that_others_reach_needs_tokens(self, host: str) -> None:
        check_address(host, tokens=True, aiohttp_version="3.14.3")
        with pytest.raises(InvalidInput, match="--no-auth"):
            check_address(host, tokens=False, aiohttp_version="3.14.3")

    @pytest.mark.parametrize("version", ["3.13.5", "3.14.2", "3.14.2rc1", "3.9.0"])
    def test_that_others_reach_needs_an_aiohttp_without_known_holes(self, version: str) -> None:
        check_address("127.0.0.1", tokens=True, aiohttp_version=version)
        with pytest.raises(InvalidInput, match="CVE-2026-54274"):
            check_address("0.0.0.0", tokens=True, aiohttp_version=version)

    @pytest.mark.parametrize("version", ["3.14.3", "3.14.10", "3.15.0", "4.0.0"])
    def test_with_a_newer_one_is_served(self, version: str) -> None:
        check_address("0.0.0.0", tokens=True, aiohttp_version=version)

    @pytest.mark.parametrize(
        "origin", ["", "null", "*", "app.example.com", "https://", "https://a.example/", "wss://a.example"]
    )
    def test_origin_that_is_none_is_an_error(self, origin: str) -> None:
        with pytest.raises(InvalidInput, match="origin"):
            Names(["127.0.0.1"], (), [origin])
