"""`serve` as a process: signals, service managers, its log, and options that cannot be."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.processes import COMMAND, Program, command, gateway, listener, running
from ws_manager.tokens import signing_key


def serve(database: Path, *options: str):
    return running(*COMMAND, "--db", str(database), "serve", "--port", "0", *options)


class TestSignals:
    @pytest.mark.parametrize(
        ("number", "said"),
        [
            (signal.SIGTERM, "the gateway is shutting down (1001)"),
            (signal.SIGINT, "the gateway is shutting down (1001)"),
            (signal.SIGHUP, "the gateway is restarting (1012)"),
        ],
    )
    def test_ends_with_0_and_tells_its_agents(
        self, database: Path, number: signal.Signals, said: str
    ) -> None:
        with gateway(database) as (program, _), listener(database, "octavia", "--ws-id", "ws-001") as agent:
            program.send(number)
            agent.error_line(said)
            assert program.wait() == 0

    def test_second_one_ends_it_at_once(self, database: Path) -> None:
        with gateway(database, "--drain", "1h") as (program, _), listener(database, "octavia") as agent:
            # It answers no close frame, so the gateway waits for it.
            agent.send(signal.SIGSTOP)
            program.send(signal.SIGTERM)
            # By then it has replaced its handlers: it refuses connections.
            _until_closed(program, database)
            program.send_until_it_ends(signal.SIGTERM)
            assert program.wait() == -signal.SIGTERM

    def test_other_one_ends_it_at_once(self, database: Path) -> None:
        with gateway(database, "--drain", "1h") as (program, _), listener(database, "octavia") as agent:
            agent.send(signal.SIGSTOP)
            program.send(signal.SIGTERM)
            _until_closed(program, database)
            program.send(signal.SIGINT)
            assert program.wait() == -signal.SIGINT

    def test_doubled_one_counts_once(self, database: Path) -> None:
        with gateway(database) as (program, _), listener(database, "octavia", "--ws-id", "ws-001") as agent:
            program.send(signal.SIGTERM)
            _until_closed(program, database)
            program.send(signal.SIGTERM)
            agent.error_line("the gateway is shutting down (1001)")
            assert program.wait() == 0

    def test_hangup_is_ignored_where_it_was(self, database: Path) -> None:
        with running(
            "nohup", *COMMAND, "--db", str(database), "serve", "--no-auth", "--port", "0"
        ) as program:
            program.error_line("Ready: ")
            program.send(signal.SIGHUP)
            assert command(database, "stats").returncode == 0
            assert program.process.poll() is None
            assert program.end() == 0


def _until_closed(program: Program, database: Path) -> None:
    """Wait until a gateway takes no more connections, or has ended."""
    while program.process.poll() is None and not _closed(database):
        pass


def _closed(database: Path) -> bool:
    """Return whether the gateway takes no more connections."""
    from ws_manager import open_ledger

    with open_ledger(database) as ledger:
        latest = ledger.latest_gateway()
    assert latest is not None
    try:
        socket.create_connection(("127.0.0.1", int(latest.url.rpartition(":")[2])), timeout=5).close()
    except OSError:
        return True
    return False


def test_service_manager_is_told_when_it_is_ready_and_when_it_stops(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.settimeout(60)
        supervisor.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with serve(database) as program:
            assert supervisor.recv(100) == b"READY=1"
            program.send(signal.SIGTERM)
            assert supervisor.recv(100) == b"STOPPING=1"
            assert program.wait() == 0


class TestLog:
    def test_in_a_pipe_every_line_is_json(self, database: Path) -> None:
        with gateway(database) as (program, url):
            with listener(database, "octavia", "--ws-id", "ws-001"):
                pass
            program.error_line("ws-001 closed")
            assert program.end() == 0
            records = [json.loads(line) for line in program.rest_of_errors()]
        ready = next(each for each in records if each["logger"] == "ws_manager.ready")
        assert ready["url"] == url
        assert {"ws_id": "ws-001", "agent": "octavia"}.items() <= next(
            each for each in records if "opened" in each["message"]
        ).items()

    def test_on_a_terminal_it_is_for_people(self, database: Path) -> None:
        ours, theirs = pty.openpty()
        program = subprocess.Popen(
            [*COMMAND, "--db", str(database), "serve", "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
        )
        os.close(theirs)
        seen = ""
        try:
            while "Ready: http://127.0.0.1" not in seen:
                seen += os.read(ours, 4096).decode()
        finally:
            program.terminate()
            program.wait(60)
            os.close(ours)
        assert " INFO " in seen
        assert "{" not in seen

    def test_level_leaves_out_what_is_below_it_but_not_that_it_is_ready(self, database: Path) -> None:
        with gateway(database, "--log-level", "error") as (program, _):
            with listener(database, "octavia"):
                pass
            assert program.end() == 0
            assert [json.loads(line)["logger"] for line in program.rest_of_errors()] == ["ws_manager.ready"]

    def test_no_token_and_no_content_is_in_it(self, database: Path) -> None:
        with serve(database, "--log-level", "debug") as program:
            program.error_line("Ready: ")
            token = command(database, "token", "octavia").stdout.strip()
            with listener(database, "octavia", "--ws-id", "ws-001"):
                assert command(database, "send", "ws-001", '"a secret word"', "--wait", "30s").returncode == 0
            url = json.loads(next(line for line in program.errors if "Ready" in line))["url"]
            for path in (f"/ws?agent=octavia&access_token={token}", f"/nowhere?access_token={token}"):
                with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as stranger:
                    stranger.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nbad\r\n\r\n".encode())
                    stranger.recv(1000)
            assert program.end() == 0
            log = "\n".join(program.rest_of_errors())
        key = signing_key(database, create=False)
        assert key is not None
        for secret in (token, token.split(".")[2], key.decode(), "a secret word"):
            assert secret not in log


@pytest.mark.sqlite_only("the file that is not made")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-frame", "3x"], "--max-frame is not a size"),
        (["--max-frame", "17MiB"], "--max-frame is not a size"),
        (["--max-content", "2MiB"], "--max-content is not a size"),
        (["--max-metadata", "0"], "--max-metadata is not a size"),
        (["--max-connections", "0"], "--max-connections"),
        (["--max-connections", "1000000000000"], "open files"),
        (["--max-frame-rate", "0"], "--max-frame-rate"),
        (["--max-per-token", "0"], "--max-per-token"),
        (["--max-per-address", "0"], "--max-per-address"),
        (["--max-handshake-rate", "0"], "--max-handshake-rate"),
        (["--max-send-rate", "20MB"], "--max-send-rate is not a size"),
        (["--max-webhook-memory", "1KiB"], "--max-webhook-memory is out of range"),
        (["--max-webhook-memory", "2048MiB"], "--max-webhook-memory is not a size"),
        (["--workers", "0"], "--workers"),
        (["--workers", "65"], "--workers"),
        (["--proxy", "the-proxy"], "--proxy is not an address"),
        (["--host", "127.0.0.1", "--host", "::", "--no-auth"], "--no-auth works on this machine only"),
        (["--host", "127.0.0.1", "--allow-origin", "https://*.x"], "--allow-origin takes no pattern"),
        (["--allow-origin", "app.example.com"], "not an origin: 'app.example.com'"),
        (["--public-host", "*.example.com"], "--public-host takes no pattern"),
        (["--public-host", "https://gateway.example.com"], "--public-host is not a name"),
        (["--handshake-timeout", "0"], "--handshake-timeout is out of range"),
        (["--write-timeout", "2h"], "--write-timeout is out of range"),
        (["--drain", "2h"], "--drain is out of range"),
        (["--keep", "30"], "--keep 30 of what?"),
        (["--heartbeat-log-keep", "24"], "--heartbeat-log-keep 24 of what?"),
        (["--heartbeat-log-interval", "x"], "not a duration"),
        (["--log-level", "loud"], "not a log level"),
    ],
)
def test_option_that_cannot_be_ends_it_before_it_starts(
    database: Path, options: list[str], said: str
) -> None:
    ended = command(database, "serve", *options)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert list(database.parent.iterdir()) == []


def test_ready_names_every_address_and_the_first_is_recorded(database: Path) -> None:
    with serve(database, "--no-auth", "--host", "127.0.0.2", "--host", "::1") as program:
        ready = json.loads(program.error_line("Ready: "))
        port = ready["url"].rpartition(":")[2]
        assert ready["urls"] == [f"http://127.0.0.2:{port}", f"http://[::1]:{port}"]
        assert ready["message"].endswith(f", also http://[::1]:{port}")
        with listener(database, "octavia"):
            pass


@pytest.mark.skipif(sys.version_info < (3, 10), reason="the aiohttp for it serves loopback addresses only")
def test_every_address_is_served_on_both_protocols(database: Path) -> None:
    with serve(database, "--host", "::") as program:
        port = json.loads(program.error_line("Ready: "))["url"].rpartition(":")[2]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, int(port)), timeout=60).close()
        with listener(database, "octavia"):
            pass


def test_options_come_from_the_environment_too(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLACKROAD_WS_MAX_CONNECTIONS", "1")
    with gateway(database), listener(database, "octavia", "--ws-id", "ws-001"):
        refused = command(database, "listen", "octavia", "--ws-id", "ws-002")
        assert (refused.returncode, "full" in refused.stderr or "503" in refused.stderr) == (7, True)
