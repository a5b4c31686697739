"""`listen` and `stripe trigger` behind a proxy: real processes, a real proxy, certificates, and a gateway far away.

The gateway's name exists for the proxy alone, so that whatever arrives went through it.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import (
    COMMAND,
    command,
    gateway,
    gateway_with_tokens,
    listener,
    made_certificate,
    running,
)
from tests.acceptance.proxy import Proxy
from tests.stripe_support import SECRET
from ws_manager.tokens import mint, signing_key

NAME = "gateway.example.com"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine of these tests has is not for them."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for the gateway's name."""
    return made_certificate(tmp_path / "tls", f"DNS:{NAME}")


@pytest.fixture
def proxy(database: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy that leads to a gateway with tokens and TLS."""
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", SECRET)
    tls = "--tls-cert", str(certificate / "cert.pem"), "--tls-key", str(certificate / "key.pem")
    with (
        gateway_with_tokens(database, "--public-host", NAME, *tls) as (_, url),
        Proxy(int(url.rpartition(":")[2])) as proxy,
    ):
        yield proxy


@pytest.fixture
def agent(database: Path, certificate: Path, tmp_path: Path) -> list[str]:
    """What an agent on another machine is started with."""
    file = tmp_path / "octavia.token"
    key = signing_key(database, create=True)
    assert key is not None
    file.write_text(mint(key, "octavia"))
    return [
        *[*COMMAND, "listen", "octavia", "--ws-id", "ws-001"],
        *["--token-file", str(file), "--ca", str(certificate / "cert.pem")],
    ]


@pytest.mark.parametrize("scheme", ["https", "wss"])
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_listen_goes_through_it(
    database: Path,
    proxy: Proxy,
    agent: list[str],
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    name: str,
) -> None:
    monkeypatch.setenv(name, proxy.url.replace("//", "//user:pass@"))
    with running(*agent, "--url", f"{scheme}://{NAME}", "--count", "1") as listening:
        listening.error_line("Ready: ")
        assert command(database, "broadcast", '"far away"', "--wait", "30s").returncode == 0
        assert json.loads(listening.line())["content"] == "far away"
        assert listening.wait() == 0
    (head,) = proxy.heads
    assert head.startswith(f"CONNECT {NAME}:443 ")
    # RFC 7617: user:pass. The token is for the gateway alone.
    assert "Proxy-Authorization: Basic dXNlcjpwYXNz" in head
    assert "Bearer" not in head


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_listen_without_tls_goes_through_it(
    database: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    with (
        gateway_with_tokens(database, "--public-host", NAME) as (_, url),
        Proxy(int(url.rpartition(":")[2])) as proxy,
    ):
        # As curl takes it, without a scheme.
        monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")
        key = signing_key(database, create=False)
        assert key is not None
        monkeypatch.setenv("BLACKROAD_WS_TOKEN", mint(key, "octavia"))
        with running(*COMMAND, "listen", "octavia", "--url", f"{scheme}://{NAME}") as listening:
            listening.error_line("Ready: ")
            assert NAME in proxy.heads[0]


@pytest.mark.parametrize("status", [403, 407, 502])
def test_its_refusal_during_a_reconnect_is_not_the_gateways(
    database: Path, proxy: Proxy, agent: list[str], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    with running(*agent, "--url", f"https://{NAME}") as listening:
        listening.error_line("Ready: ")
        proxy.answer = status
        proxy.cut()
        assert f"127.0.0.1:{proxy.port} does not reach" in listening.error_line(f"it answered {status}")
        proxy.answer = None
        listening.error_line("Ready: resumed")
        assert command(database, "broadcast", "1", "--wait", "30s").returncode == 0
        assert listening.end(signal.SIGTERM) == 0


def test_its_refusal_of_the_first_attempt_names_it_without_its_password(
    proxy: Proxy, agent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//user:precious@"))
    proxy.answer = 407
    with running(*agent, "--url", f"https://{NAME}") as listening:
        assert listening.wait() == 7
        told = "\n".join(listening.rest_of_errors())
    assert (
        f"the proxy 127.0.0.1:{proxy.port} does not reach the gateway at https://{NAME}: it answered 407"
        in told
    )
    assert "precious" not in told


def test_the_gateways_own_refusal_comes_through(
    proxy: Proxy, agent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    Path(agent[agent.index("--token-file") + 1]).write_text("of.another.key")
    with running(*agent, "--url", f"https://{NAME}") as listening:
        assert listening.wait() == 4


@pytest.mark.parametrize(
    "proxy_url",
    [
        "socks5://user:precious@127.0.0.1:9",
        "https://user:precious@127.0.0.1:9",
        "http://user:precious@[::1",
    ],
)
def test_one_of_another_kind_is_refused(
    proxy: Proxy, agent: list[str], monkeypatch: pytest.MonkeyPatch, proxy_url: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy_url)
    with running(*agent, "--url", f"https://{NAME}") as listening:
        assert listening.wait() == 2
        told = "\n".join(listening.rest_of_errors())
    assert "HTTPS_PROXY is not the address of an http proxy" in told
    assert "precious" not in told


def test_this_machine_is_reached_without_it(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", SECRET)
    with gateway(database) as (_, url):
        # Nobody listens there.
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        with listener(database, "octavia", "--ws-id", "ws-001"):
            assert command(database, "stripe", "trigger", "invoice.paid").returncode == 0
        for address in (url, url.replace("127.0.0.1", "localhost")):
            with running(*COMMAND, "listen", "octavia", "--url", address) as listening:
                listening.error_line("Ready: ")


def test_trigger_goes_through_it(
    database: Path, proxy: Proxy, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    command(database, "connect", "octavia")
    trigger = ["stripe", "trigger", "invoice.paid", "--ca", str(certificate / "cert.pem"), "--url"]
    with running(*COMMAND, *trigger, f"wss://{NAME}") as triggering:
        assert triggering.wait() == 0, triggering.rest_of_errors()
    assert proxy.heads[0].startswith(f"CONNECT {NAME}:443 ")
    proxy.answer = 403
    with running(*COMMAND, *trigger, f"https://{NAME}") as triggering:
        assert triggering.wait() == 7
        assert f"the proxy 127.0.0.1:{proxy.port} does not reach" in triggering.rest_of_errors()[0]
