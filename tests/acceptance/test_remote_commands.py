"""Commands with `--url`: over kills of the gateway, with TLS, through a proxy."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import (
    COMMAND,
    Program,
    command,
    gateway_with_tokens,
    made_certificate,
    running,
)
from tests.acceptance.proxy import Proxy
from ws_manager import open_ledger
from ws_manager.repository.findings import MessageFilter
from ws_manager.tokens import mint, signing_key

KILLS = 6
NAME = "gateway.test"


@pytest.fixture
def port() -> int:
    """A port that nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def token_file(database: Path, tmp_path: Path) -> Path:
    """A file with an operator's token."""
    key = signing_key(database, create=True)
    assert key is not None
    file = tmp_path / "operator.token"
    file.write_text(mint(key, "*", scopes=["admin"]))
    return file


@contextlib.contextmanager
def serving(database: Path, port: int) -> Iterator[Program]:
    """A gateway on one port, ready; it is killed at the end."""
    with running(*COMMAND, "--db", str(database), "serve", "--port", str(port)) as program:
        program.error_line("Ready: ")
        yield program
        program.process.kill()


def remote(port: int, token_file: Path, *arguments: str) -> list[str]:
    return [*COMMAND, *arguments, "--url", f"http://127.0.0.1:{port}", "--token-file", str(token_file)]


@pytest.mark.long
class TestOverKills:
    """The gateway is killed and started again, again and again."""

    def test_each_line_of_a_batch_is_sent_once_and_in_order(
        self, database: Path, port: int, token_file: Path
    ) -> None:
        with open_ledger(database) as ledger:
            ledger.connect("octavia", "ws-001")
        batch = remote(port, token_file, "send", "ws-001", "--batch", "-")
        total, each = 30_000, 30_000 // KILLS
        answers: list[dict[str, object]] = []
        with running(*batch, stdin=subprocess.PIPE) as sending:
            stdin = sending.process.stdin
            assert stdin is not None
            for round_of_it in range(KILLS):
                with serving(database, port):
                    for number in range(round_of_it * each, (round_of_it + 1) * each):
                        stdin.write(f"{number}\n")
                    stdin.flush()
                    # It is killed in the middle of the rest.
                    answers += [json.loads(sending.line()) for _ in range(each // 2)]
            with serving(database, port):
                stdin.close()
                answers += map(json.loads, sending.lines())
                assert sending.wait() == 0, sending.rest_of_errors()
        assert [answer["line"] for answer in answers] == list(range(1, total + 1))
        assert all(answer["ok"] for answer in answers)
        with open_ledger(database) as ledger:
            sent, _ = ledger.messages_after(None, MessageFilter(since="2026"), total + 1)
        assert [message.payload for message in sent] == list(range(total))
        assert [message.msg_id for message in sent] == [answer["msg_id"] for answer in answers]

    def test_what_is_followed_and_received_is_whole(
        self, database: Path, port: int, token_file: Path
    ) -> None:
        with open_ledger(database) as ledger:
            ledger.connect("octavia", "ws-001")
            following = remote(port, token_file, "history", "--follow", "--since", "1h")
            receiving = remote(port, token_file, "receive", "ws-001", "--follow")
            with running(*following) as history, running(*receiving) as receiver:
                seen: list[object] = []
                received: list[object] = []
                for round_of_it in range(KILLS):
                    with serving(database, port):
                        for number in range(50):
                            ledger.send("ws-001", round_of_it * 50 + number)
                        # Some of them in this round, the others in the next.
                        seen += [json.loads(history.line())["content"] for _ in range(25)]
                        received += [json.loads(receiver.line())["content"] for _ in range(25)]
                with serving(database, port):
                    rest = KILLS * 50 - len(seen)
                    seen += [json.loads(history.line())["content"] for _ in range(rest)]
                    while received[-1:] != [KILLS * 50 - 1]:
                        received.append(json.loads(receiver.line())["content"])
                    assert receiver.end(signal.SIGINT) == 0
                    assert history.end(signal.SIGTERM) == 143
            assert seen == list(range(KILLS * 50))
            # What was printed and whose confirmation was lost comes again.
            assert list(dict.fromkeys(received)) == list(range(KILLS * 50))
            connection = ledger.find("ws-001")
            assert connection is not None
            assert ledger.count_pending(connection) == 0


class TestTls:
    def test_with_the_authoritys_certificate(self, database: Path, tmp_path: Path, token_file: Path) -> None:
        certificate = made_certificate(tmp_path / "tls", "DNS:localhost,IP:127.0.0.1")
        tls = "--tls-cert", str(certificate / "cert.pem"), "--tls-key", str(certificate / "key.pem")
        with gateway_with_tokens(database, *tls) as (_, url):
            reached = "--url", url, "--token-file", str(token_file)
            trusted = "--ca", str(certificate / "cert.pem")
            made = run("connect", "octavia", "--ws-id", "ws-001", *reached, *trusted)
            assert (made.returncode, made.stdout) == (0, "Connected: ws-001 (agent=octavia)\n"), made.stderr
            refused = run("list", *reached)
            assert (refused.returncode, refused.stdout) == (7, "")
            assert "is not to be trusted" in refused.stderr
            assert "--ca" in refused.stderr


class TestProxy:
    def test_goes_through_it(
        self, database: Path, token_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        certificate = made_certificate(tmp_path / "tls", f"DNS:{NAME}")
        tls = "--tls-cert", str(certificate / "cert.pem"), "--tls-key", str(certificate / "key.pem")
        with (
            gateway_with_tokens(database, "--public-host", NAME, *tls) as (_, url),
            Proxy(int(url.rpartition(":")[2])) as proxy,
        ):
            monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//user:pass@"))
            reached = "--url", f"https://{NAME}", "--token-file", str(token_file)
            listed = run("stats", *reached, "--ca", str(certificate / "cert.pem"))
            assert listed.returncode == 0, listed.stderr
            (head,) = proxy.heads
            assert head.startswith(f"CONNECT {NAME}:443 ")
            assert "proxy-authorization: basic dxnlcjpwyxnz" in head.lower()
            assert "Bearer" not in head
            proxy.answer = 403
            refused = run("stats", *reached, "--ca", str(certificate / "cert.pem"))
            assert refused.returncode == 7
            assert f"127.0.0.1:{proxy.port} does not reach" in refused.stderr
            assert "pass" not in refused.stderr


class TestTokens:
    def test_on_the_gateways_machine_nobody_types_one(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with gateway_with_tokens(database) as (_, url):
            monkeypatch.setenv("BLACKROAD_WS_DB", str(database))
            made = run("connect", "octavia", "--ws-id", "ws-001", "--url", url)
            assert (made.returncode, made.stderr) == (0, "")
            monkeypatch.setenv("BLACKROAD_WS_URL", url)
            assert run("list", "-o", "id").stdout == "ws-001\n"

    def test_none_or_a_wrong_one_ends_with_4(
        self, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wrong = tmp_path / "wrong.token"
        wrong.write_text(mint(b"another key, and not a secret one", "*", scopes=["admin"]))
        with gateway_with_tokens(database) as (_, url):
            monkeypatch.delenv("BLACKROAD_WS_SECRET", raising=False)
            for more in ([], ["--token-file", str(wrong)], ["--token-file", str(tmp_path / "missing")]):
                refused = run("list", "--url", url, *more)
                assert (refused.returncode, refused.stdout) == (4, ""), refused.stderr
                assert wrong.read_text() not in refused.stderr

    def test_without_a_scope_ends_with_4(self, database: Path, tmp_path: Path) -> None:
        file = tmp_path / "reader.token"
        with gateway_with_tokens(database) as (_, url):
            assert command(database, "token", "*", "--scope", "read", "--out", str(file)).returncode == 0
            reached = "--url", url, "--token-file", str(file)
            assert run("list", *reached).returncode == 0
            refused = run("broadcast", "1", *reached)
            assert (refused.returncode, refused.stdout) == (4, "")
            assert "the token has no scope broadcast" in refused.stderr


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ws_manager", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
