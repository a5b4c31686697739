"""Tokens and TLS as a new user meets them: the real command in real processes."""

from __future__ import annotations

import json
import signal
import socket
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.acceptance.processes import (
    COMMAND,
    PATIENCE,
    command,
    listener,
    made_certificate,
    running,
)
from tests.acceptance.processes import gateway_with_tokens as gateway
from ws_manager.errors import InvalidInput
from ws_manager.gateway.http.access import check_address
from ws_manager.tokens import mint, signing_key, verify

HERE = Path(__file__).parent


def listen_elsewhere(url: str, *options: str) -> list[str]:
    """The command line of an agent that has no access to the gateway's files."""
    return [*COMMAND, "listen", "octavia", "--ws-id", "ws-001", "--url", url, *options]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A folder with cert.pem, its own authority, for localhost and 127.0.0.1, and key.pem."""
    return made_certificate(tmp_path / "tls", "DNS:localhost,IP:127.0.0.1")


def test_on_one_machine_nobody_types_a_token(database: Path) -> None:
    with gateway(database), listener(database, "octavia", "--ws-id", "ws-001", "--count", "1") as agent:
        assert command(database, "broadcast", '"hello"', "--wait", "30s").returncode == 0
        assert json.loads(agent.line())["content"] == "hello"
        assert agent.wait() == 0


def test_the_same_where_the_environment_has_the_secret(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLACKROAD_WS_SECRET", "s" * 40)
    with gateway(database), listener(database, "octavia", "--ws-id", "ws-001"):
        assert not Path(f"{database}.key").exists()


def test_an_agent_elsewhere_is_let_in_with_its_token_file(database: Path, tmp_path: Path) -> None:
    file = tmp_path / "octavia.token"
    with gateway(database) as (_, url):
        file.write_text(command(database, "token", "octavia").stdout)
        with running(*listen_elsewhere(url, "--token-file", str(file))) as agent:
            agent.error_line("Ready: ")


@pytest.mark.parametrize("given", ["nothing", "nonsense", "expired", "another key", "another agent", "scope"])
def test_any_other_is_not_and_ends_with_4(
    database: Path, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gateway(database) as (server, url):
        key = signing_key(database, create=False)
        assert key is not None
        token = {
            "nothing": "",
            "nonsense": "no-token-at-all",
            "expired": mint(key, "octavia", now=1000),
            "another key": mint(b"x" * 32, "octavia"),
            "another agent": mint(key, "cipher"),
            "scope": mint(key, "octavia", scopes=("send",)),
        }[given]
        monkeypatch.setenv("BLACKROAD_WS_TOKEN", token)
        monkeypatch.delenv("BLACKROAD_WS_SECRET", raising=False)
        with running(*listen_elsewhere(url)) as agent:
            assert agent.wait() == 4
            told = agent.rest_of_errors()
            assert [line.split(":")[0] for line in told] == ["error", "hint"]
        assert server.end() == 0
        said = "\n".join([*told, *server.rest_of_errors()])
        assert not token or token not in said
        assert key.decode() not in said


def test_an_agent_comes_back_after_a_restart_with_the_same_key(database: Path) -> None:
    with gateway(database) as (server, _), listener(database, "octavia", "--ws-id", "ws-001") as agent:
        server.end(signal.SIGKILL)
        agent.error_line("Disconnected: ")
        with gateway(database):
            agent.error_line("Ready: resumed")


def test_a_foreign_client_with_a_token_in_the_address(database: Path) -> None:
    with gateway(database) as (_, url):
        token = command(database, "token", "octavia").stdout.strip()
        address = url.replace("http", "ws", 1) + f"/ws?agent=octavia&ws_id=ws-001&access_token={token}"
        with running(sys.executable, str(HERE / "websockets_agent.py"), address) as agent:
            assert json.loads(agent.line())["type"] == "connected"


class TestTls:
    def test_an_agent_with_the_authoritys_certificate_receives(
        self, database: Path, certificate: Path
    ) -> None:
        pem, key = certificate / "cert.pem", certificate / "key.pem"
        with gateway(database, "--tls-cert", str(pem), "--tls-key", str(key)) as (_, url):
            assert url.startswith("https://127.0.0.1:")
            with listener(database, "octavia", "--ws-id", "ws-001", "--ca", str(pem)) as agent:
                sent = command(database, "broadcast", json.dumps("x" * 100_000), "--wait", "30s")
                assert sent.returncode == 0, sent.stderr
                assert len(json.loads(agent.line())["content"]) == 100_000

    def test_an_agent_without_it_does_not_connect(self, database: Path, certificate: Path) -> None:
        pem, key = certificate / "cert.pem", certificate / "key.pem"
        with gateway(database, "--tls-cert", str(pem), "--tls-key", str(key)):
            ended = command(database, "listen", "octavia")
            assert (ended.returncode, "not to be trusted" in ended.stderr) == (7, True), ended.stderr

    def test_a_certificate_for_another_name_is_not_trusted(self, database: Path, certificate: Path) -> None:
        pem, key = certificate / "cert.pem", certificate / "key.pem"
        options = ("--tls-cert", str(pem), "--tls-key", str(key), "--host", "127.0.0.2")
        with gateway(database, *options):
            ended = command(database, "listen", "octavia", "--ca", str(pem))
            assert (ended.returncode, "not to be trusted" in ended.stderr) == (7, True), ended.stderr

    @pytest.mark.parametrize(
        "files", [("cert.pem", None), (None, "key.pem"), ("cert.pem", "cert.pem"), ("none.pem", "key.pem")]
    )
    def test_files_that_cannot_be_used_are_one_clear_line(
        self, database: Path, certificate: Path, files: tuple[str, str]
    ) -> None:
        options = [
            part
            for name, file in zip(("--tls-cert", "--tls-key"), files)
            if file
            for part in (name, str(certificate / file))
        ]
        ended = command(database, "serve", *options)
        assert ended.returncode == 2
        assert [line.split(":")[0] for line in ended.stderr.splitlines()] == ["error", "hint"]

    @pytest.mark.parametrize("file", ["cert.pem", "key.pem"])
    def test_a_byte_order_mark_is_named(self, database: Path, certificate: Path, file: str) -> None:
        path = certificate / file
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        options = ("--tls-cert", certificate / "cert.pem", "--tls-key", certificate / "key.pem")
        ended = command(database, "serve", *map(str, options))
        assert (ended.returncode, f"{path} begins with a byte order mark" in ended.stderr) == (2, True)


def test_an_address_that_others_reach_is_warned_of_without_tls(database: Path) -> None:
    try:
        check_address("0.0.0.0", tokens=True)
    except InvalidInput:
        ended = command(database, "serve", "--host", "0.0.0.0", "--port", "0")
        assert (ended.returncode, aiohttp.__version__ in ended.stderr) == (2, True)
        return
    with gateway(database, "--host", "0.0.0.0") as (server, url):
        assert url.startswith("http://127.0.0.1:")
        assert any("without TLS" in line for line in server.errors)
        with listener(database, "octavia", "--ws-id", "ws-001"):
            pass


def presented(database: Path, *options: str) -> str:
    """Run `listen` at an address of this machine, and return the token that it connects with."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        program = (*COMMAND, "listen", "octavia", "--url", url, *options)
        with running("env", f"BLACKROAD_WS_DB={database}", *program) as listening:
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as request:
                lines = list(iter(request.readline, b"\r\n"))
                connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            listening.wait()
    (header,) = [line for line in lines if line.lower().startswith(b"authorization: bearer ")]
    return header.split()[2].decode()


class TestListensOwnToken:
    @pytest.mark.parametrize(
        ("options", "scopes"),
        [
            ((), {"connect"}),
            (("--scope", "connect broadcast"), {"connect", "broadcast"}),
            (("--scope", "connect", "--scope", "send"), {"connect", "send"}),
        ],
    )
    def test_allows_what_was_asked_for_and_otherwise_to_connect_alone(
        self, database: Path, options: tuple[str, ...], scopes: set[str]
    ) -> None:
        key = signing_key(database, create=True)
        assert key is not None
        assert verify(key, presented(database, *options)).scopes == scopes

    @pytest.mark.parametrize(
        "options", [("--scope", "fly"), ("--scope", ""), ("--scope", "send", "--token-file", "x")]
    )
    def test_scope_that_cannot_be_is_a_usage_error(self, database: Path, options: tuple[str, ...]) -> None:
        ended = command(database, "listen", "octavia", *options)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "scope" in ended.stderr
