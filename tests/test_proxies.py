"""Which proxy an address is reached through."""

from __future__ import annotations

import pytest

from ws_manager.errors import InvalidInput
from ws_manager.proxies import proxy_for, unreachable

NAME = "gateway.example.com"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No proxy but those of the test."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


def test_without_one_an_address_is_reached_directly() -> None:
    assert proxy_for(f"https://{NAME}") is None


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        (f"https://{NAME}:8765/ws", "http://secure:1"),
        (f"wss://{NAME}", "http://secure:1"),
        (f"http://{NAME}", "http://plain:2"),
        (f"ws://{NAME}:8765", "http://plain:2"),
        ("https://192.168.1.5:8765", "http://secure:1"),
        *((f"{scheme}://{host}:8765", None) for scheme in ("http", "wss") for host in ("localhost", "[::1]")),
        *((f"{scheme}://127.{n}.0.1", None) for scheme in ("ws", "https") for n in (0, 255)),
    ],
)
def test_the_scheme_decides_and_loopback_is_direct(
    environment: pytest.MonkeyPatch, url: str, proxy: str
) -> None:
    environment.setenv("HTTPS_PROXY", "http://secure:1")
    environment.setenv("http_proxy", "plain:2")
    assert proxy_for(url) == proxy


@pytest.mark.parametrize("hosts", ["*", NAME, "example.com", ".example.com", "a.b, gateway.example.com:8765"])
def test_hosts_in_no_proxy_are_reached_directly(environment: pytest.MonkeyPatch, hosts: str) -> None:
    environment.setenv("HTTPS_PROXY", "http://secure:1")
    environment.setenv("NO_PROXY", hosts)
    assert proxy_for(f"wss://{NAME}:8765") is None
    assert proxy_for("wss://other.example.org") == (None if hosts == "*" else "http://secure:1")


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://u:precious@proxy:1",
        "https://u:precious@proxy:1",
        "http://u:precious@proxy:port",
        "http://u:precious@proxy:99999",
        "http://u:precious@[::1",
        "http://u:precious@",
    ],
)
def test_what_is_no_proxy_is_refused_without_its_password(
    environment: pytest.MonkeyPatch, proxy: str
) -> None:
    environment.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(InvalidInput, match="HTTPS_PROXY is not the address of an http proxy") as refused:
        proxy_for(f"https://{NAME}")
    assert "precious" not in f"{refused.value} {refused.value.hint}"
    # Nobody asks for it here.
    assert proxy_for("https://127.0.0.1") is None


def test_a_failure_names_the_proxy_without_its_password() -> None:
    error = unreachable("no answer", f"https://{NAME}", "http://u:precious@proxy:1")
    assert error.message == f"the proxy proxy:1 does not reach the gateway at https://{NAME}: no answer"
