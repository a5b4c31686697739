"""Who may talk to the gateway, and with which query."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import pytest

from tests.support import Refused, gateway, refusal, run
from ws_manager.errors import InvalidInput
from ws_manager.gateway.http.access import is_loopback
from ws_manager.gateway.http.names import Names

Header = tuple[str, str]


def status_of(database: Path, *headers: Header, query: str = "agent=octavia", host: str = "127.0.0.1") -> int:
    """The status of a handshake with these headers."""

    async def scenario() -> int:
        async with gateway(database, host=host) as running:
            return await refusal(running.url, query, list(headers))

    return run(scenario())


class TestHost:
    @pytest.mark.parametrize(
        "host",
        [
            "localhost",
            "LOCALHOST",
            "localhost:8765",
            "localhost:1",
            "127.0.0.1",
            "127.0.0.1:9999",
            "localhost:",
        ],
    )
    def test_of_this_machine_is_served(self, database: Path, host: str) -> None:
        assert status_of(database, ("Host", host)) == 101

    @pytest.mark.parametrize(
        "host",
        [
            "example.com",
            "localhost.example.com",
            "example-localhost",
            "evil.localhost",
            "localhost.",
            "127.0.0.1.example.com",
            "127.0.0.2",
            "2130706433",
            "0.0.0.0",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "localhost[::1]",
            "[localhost]example.com",
            "localhost@example.com",
            "example.com@localhost",
            "localhost:8765@example.com",
            "localhost/example.com",
            "localhost#example.com",
            "localhost?example.com",
            "localhost\\example.com",
            "localhost:port",
            "localhost:99999",
            "localhost, example.com",
            "",
        ],
    )
    def test_of_anybody_else_is_refused(self, database: Path, host: str) -> None:
        assert status_of(database, ("Host", host)) in (400, 403)

    def test_ipv6_address_is_served_where_it_is_bound(self, database: Path) -> None:
        assert status_of(database, host="::1") == 101

    @pytest.mark.parametrize("host", ["[::1]", "[::1]:80", "localhost"])
    def test_ipv6_host_is_served_where_it_is_bound(self, database: Path, host: str) -> None:
        assert status_of(database, ("Host", host), host="::1") == 101

    @pytest.mark.parametrize("host", ["[::2]", "::1", "[::1", "127.0.0.1"])
    def test_other_host_is_refused_where_ipv6_is_bound(self, database: Path, host: str) -> None:
        assert status_of(database, ("Host", host), host="::1") in (400, 403)


class TestOrigin:
    @pytest.mark.parametrize(
        "origin", ["http://localhost", "http://localhost:3000", "https://127.0.0.1:8765", "http://127.0.0.1"]
    )
    def test_of_this_machine_is_allowed(self, database: Path, origin: str) -> None:
        assert status_of(database, ("Origin", origin)) == 101

    @pytest.mark.parametrize(
        "origin",
        [
            "null",
            "",
            "http://example.com",
            "http://localhost.example.com",
            "http://evil-localhost",
            "http://127.0.0.1.example.com",
            "http://localhost@example.com",
            "http://localhost:80@example.com",
            "http://example.com@localhost",
            "http://example.com#localhost",
            "http://example.com\\@localhost",
            "http://[::1]",
            "http://localhost:port",
            "file://localhost",
            "chrome-extension://localhost",
            "localhost",
            "//localhost",
            "http://",
        ],
    )
    def test_of_anybody_else_is_refused(self, database: Path, origin: str) -> None:
        assert status_of(database, ("Origin", origin)) == 403

    def test_agreeing_with_a_foreign_host_does_not_help(self, database: Path) -> None:
        assert status_of(database, ("Host", "example.com"), ("Origin", "http://example.com")) == 403

    def test_second_one_is_looked_at_too(self, database: Path) -> None:
        origins = [("Origin", "http://localhost"), ("Origin", "http://example.com")]
        assert status_of(database, *origins) == 403

    def test_none_is_allowed(self, database: Path) -> None:
        assert status_of(database) == 101


class TestProxy:
    @pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "x-forwarded-for"])
    def test_is_refused(self, database: Path, name: str) -> None:
        assert status_of(database, (name, "127.0.0.1")) == 403


class TestQuery:
    @pytest.mark.parametrize(
        "query",
        [
            "",
            "agent=",
            "agent=%20",
            "agent=a%00b",
            "agent=a%0Ab",
            "agent=" + "x" * 129,
            "agent=octavia&ws_id=",
            "agent=octavia&ws_id=a%07",
            "agent=oct%E2%80%8Bavia",
            "agent=octavia&ws_id=%EF%BB%BFws-001",
            "agent=octavia&ws_id=ws%E2%80%A8001",
            "agent=octavia&ws_id=ws%F3%A0%81%81",
            "agent=octavia&ws_id=" + "x" * 129,
            "agent=octavia&ack=maybe",
            "agent=octavia&metadata=",
            "agent=octavia&metadata=[]",
            "agent=octavia&metadata=null",
            "agent=octavia&metadata={",
            "agent=octavia&metadata={%22a%22:NaN}",
            "agent=octavia&metadata=" + "[" * 3000,
            "agent=octavia&metadata=%FF",
        ],
    )
    def test_that_cannot_be_accepted_is_400(self, database: Path, query: str) -> None:
        assert status_of(database, query=query) == 400

    def test_metadata_over_4_kib_is_400(self, database: Path) -> None:
        metadata = json.dumps({"a": "x" * 4096})
        assert status_of(database, query=urlencode({"agent": "octavia", "metadata": metadata})) == 400

    def test_metadata_of_4_kib_is_accepted(self, database: Path) -> None:
        metadata = json.dumps({"a": "x" * (4096 - len('{"a": ""}'))})
        assert status_of(database, query=urlencode({"agent": "octavia", "metadata": metadata})) == 101

    async def test_refused_handshake_registers_nothing(self, database: Path) -> None:
        async with gateway(database) as running:
            await refusal(running.url, "agent=octavia&ws_id=ws-001", [("Origin", "null")])
            assert running.ledger.find("ws-001") is None

    async def test_refusal_says_why_and_what_to_do(self, database: Path) -> None:
        async with gateway(database) as running:
            with pytest.raises(Refused) as refused:
                await running.agent("octavia", "ws-001", ack="maybe")
            assert json.loads(refused.value.body)["code"] == "invalid"

    async def test_plain_http_is_400(self, database: Path) -> None:
        async with gateway(database) as running, aiohttp.ClientSession() as session:
            response = await session.get(f"{running.url}/ws?agent=octavia&ws_id=ws-001")
            assert response.status == 400
            assert running.ledger.find("ws-001") is None

    async def test_other_paths_are_not_found(self, database: Path) -> None:
        async with gateway(database) as running, aiohttp.ClientSession() as session:
            response = await session.get(running.url)
            assert response.status == 404


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.com", "localhost.example.com", ""])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["", "a/b", "a@b", "a#b"])
def test_host_that_is_no_name_is_an_error(host: str) -> None:
    with pytest.raises(InvalidInput):
        Names([host], (), ())
