"""Where an agent's token comes from, and how it comes back with a new one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Optional

import pytest

from tests.support import Clock, gateway, within
from ws_manager.client import dialer
from ws_manager.client.agent import AgentClient
from ws_manager.client.credentials import own_token, token_file, trust
from ws_manager.errors import InvalidInput, NotAuthorised
from ws_manager.gateway.delivery import hub
from ws_manager.tokens import mint, signing_key, verify

HERE = "http://127.0.0.1:8765"

AUTHORITY = """\
# Főtanúsítvány
-----BEGIN CERTIFICATE-----
MIIBdjCCARugAwIBAgIUJSfrB/CcDDx2clcL/CQfOzHAVpUwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjYxNDU3MDFaGA8yMTI2MTEwMjE0NTcw
MVowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABEAn
BCuOhmTiPimYV3YgMkXuF5KieqXyWGqBbABsBwhvQtW3CjB2FTF6AufX/REYZRH6
j24Z11EpgFmu380diaujUzBRMB0GA1UdDgQWBBTc9rtI9p481NPRbnphndHkGKS8
2zAfBgNVHSMEGDAWgBTc9rtI9p481NPRbnphndHkGKS82zAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0kAMEYCIQDMQ4bkO7LV9hssKwEBm4tuIhcjGR0glawF
lajdfaL16gIhAKCqyVqT34NymuFmLb3sQft7FXpcHXKjjDrMkAjpPAkc
-----END CERTIFICATE-----
"""


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a backoff or a tick here."""
    monkeypatch.setattr(dialer, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(dialer, "LONGEST_DELAY", 0.008)
    monkeypatch.setattr(hub, "_TICK_SECONDS", 0.005)


@pytest.fixture
def key(database: Path) -> bytes:
    """The key beside the database."""
    made = signing_key(database, create=True)
    assert made is not None
    return made


class TestOwnToken:
    @pytest.mark.parametrize("url", [HERE, "https://localhost", "ws://[::1]:1", "http://127.9.9.9"])
    def test_is_made_for_this_machine(self, database: Path, key: bytes, url: str) -> None:
        token = own_token(database, "octavia", "ws-001", url)
        assert token is not None
        claims = verify(key, token)
        assert (claims.agent, claims.ws_id) == ("octavia", "ws-001")
        assert claims.scopes == {"connect"}

    def test_allows_what_was_asked_for(self, database: Path, key: bytes) -> None:
        token = own_token(database, "octavia", None, HERE, scopes=("connect", "broadcast"))
        assert token is not None
        assert verify(key, token).scopes == {"connect", "broadcast"}

    @pytest.mark.parametrize(
        "url",
        ["https://gateway.example.com", "http://127.0.0.1.example.com", "http://192.0.2.1", "", "http://["],
    )
    def test_is_not_made_for_another(self, database: Path, key: bytes, url: str) -> None:
        assert own_token(database, "octavia", None, url) is None

    def test_is_made_for_the_databases_own_gateway(self, database: Path, key: bytes) -> None:
        assert own_token(database, "octavia", None, "http://192.0.2.1", ours=True)

    def test_is_not_made_without_a_key(self, database: Path) -> None:
        assert own_token(database, "octavia", None, HERE) is None
        assert list(database.parent.iterdir()) == []

    def test_of_the_environment_is_first(
        self, database: Path, key: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BLACKROAD_WS_TOKEN", "given")
        assert own_token(database, "octavia", None, HERE) == "given"
        assert own_token(database, "octavia", None, "https://gateway.example.com") == "given"


class TestTokenFile:
    def test_is_read_each_time(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        read = token_file(path)
        path.write_text("first\n")
        assert read() == "first"
        path.write_text("second\n")
        assert read() == "second"

    @pytest.mark.parametrize(
        "content", [None, b"", b"\n", b"\xff", b"two words", b"two\nlines", b"a\x00b", "tök".encode("utf-16")]
    )
    def test_without_a_token_is_an_error_that_does_not_repeat_it(
        self, tmp_path: Path, content: Optional[bytes]
    ) -> None:
        path = tmp_path / "token"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(NotAuthorised) as refused:
            token_file(path)()
        assert "two" not in str(refused.value)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_certificates_that_are_none_are_invalid(tmp_path: Path, content: Optional[bytes]) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput):
        trust(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_certificates_are_read_in_any_encoding_of_windows(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes((AUTHORITY * 2).replace("\n", "\r\n").encode(encoding))
    context = trust(path)
    assert context is not None
    # These and no others: not the system's.
    assert [found["subject"] for found in context.get_ca_certs()] == [((("commonName", "test"),),)]


class TestClient:
    async def test_makes_its_own_token(
        self, database: Path, key: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BLACKROAD_WS_DB", str(database))

        async with (
            gateway(database, key=key) as running,
            AgentClient("octavia", url=running.url, ws_id="ws-001") as client,
        ):
            assert await within(client.broadcast("hello")) == 1

    @pytest.mark.parametrize("kind", ["text", "function"])
    async def test_takes_a_token(self, database: Path, key: bytes, kind: str) -> None:
        token = mint(key, "octavia")

        async with gateway(database, key=key) as running:
            given = token if kind == "text" else lambda: token
            async with AgentClient("octavia", url=running.url, token=given) as client:
                assert client.ws_id

    @pytest.mark.parametrize("given", ["wrong.token.here", "ünicode", "a\r\nX-Header: b"])
    async def test_with_a_bad_token_is_not_authorised(self, database: Path, key: bytes, given: str) -> None:
        async with gateway(database, key=key) as running:
            with pytest.raises(NotAuthorised) as refused:
                async with AgentClient("octavia", url=running.url, token=given):
                    pass
            assert given not in f"{refused.value} {refused.value.hint}"

    async def test_comes_back_after_4001_with_a_new_token(self, database: Path, key: bytes) -> None:
        clock = Clock()
        lost: list[str] = []
        async with (
            gateway(database, key=key, clock=clock) as running,
            AgentClient(
                "octavia",
                url=running.url,
                ws_id="ws-001",
                token=lambda: mint(key, "octavia", ttl=60, now=clock()),
                on_lost=lambda cause, delay: lost.append(cause),
            ) as client,
        ):
            clock.forward(60)
            await running.until(lambda: lost)
            assert lost[0].endswith("(4001)")
            seq = running.send("after it")
            (message,) = await within(client.batch(1))
            assert message.seq == seq

    async def test_ends_when_the_token_cannot_be_renewed(self, database: Path, key: bytes) -> None:
        clock = Clock()
        async with gateway(database, key=key, clock=clock) as running:
            token = mint(key, "octavia", ttl=60, now=clock())
            async with AgentClient("octavia", url=running.url, token=token) as client:
                clock.forward(60)
                with pytest.raises(NotAuthorised, match=r"the token has expired \(4001\)"):
                    await within(client.batch(1))

    async def test_ends_when_the_function_gives_the_expired_token_again(
        self, database: Path, key: bytes
    ) -> None:
        clock = Clock()
        async with gateway(database, key=key, clock=clock) as running:
            token = mint(key, "octavia", ttl=60, now=clock())
            async with AgentClient("octavia", url=running.url, token=lambda: token) as client:
                clock.forward(60)
                with pytest.raises(NotAuthorised, match="401"):
                    await within(client.batch(1))

    async def test_without_the_scope_cannot_send(self, database: Path, key: bytes) -> None:
        async with gateway(database, key=key) as running:
            token = mint(key, "octavia")
            async with AgentClient("octavia", url=running.url, ws_id="ws-001", token=token) as client:
                with pytest.raises(NotAuthorised):
                    await within(client.send("ws-001", 1))

    @pytest.mark.parametrize("part", ["?access_token=sEcReT", "#sEcReT"])
    def test_secret_in_the_address_is_refused_and_not_repeated(self, part: str) -> None:
        async def scenario() -> None:
            with pytest.raises(InvalidInput) as refused:
                async with AgentClient("octavia", url=HERE + part):
                    pass
            assert "sEcReT" not in f"{refused.value} {refused.value.hint}"

        asyncio.run(scenario())
