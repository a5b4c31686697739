"""A full disk under a running gateway: sockets stay, sends are refused, and all recovers when there is room."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from tests.acceptance.processes import COMMAND, PATIENCE, command, gateway, listener, running

AGENT = """
import asyncio, sys
from ws_manager.client.agent import AgentClient
from ws_manager.errors import WsManagerError

async def main(url):
    async with AgentClient("cipher", url=url, ws_id="ws-asks") as client:
        print("ready", flush=True)
        for line in sys.stdin:
            try:
                await client.send("ws-hears", line.strip())
                print("sent", flush=True)
            except WsManagerError as error:
                print(error.code, error.message, flush=True)

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if sys.platform == "linux"
        else None
    )
    if mounted is None or mounted.returncode:
        pytest.skip(f"no small file system: {mounted.stderr.strip() if mounted else 'needs Linux'}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no room."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    return filler


def test_all_recovers_when_there_is_room(small_disk: Path) -> None:
    database = small_disk / "ledger.db"
    with gateway(database) as (program, url), listener(database, "octavia", "--ws-id", "ws-hears") as hears:
        with running(sys.executable, "-c", AGENT, url, stdin=subprocess.PIPE) as asks:
            assert asks.line() == "ready"
            filler = fill(small_disk)

            # Some may find room in the log, which is as large as it ever was.
            for _ in range(10):
                refused = command(database, "send", "ws-hears", '"' + "x" * 100_000 + '"')
                if refused.returncode:
                    break
            assert refused.returncode == 1
            assert "the disk is full" in refused.stderr
            assert "make room" in refused.stderr

            for _ in range(50):
                asks.process.stdin.write("y" * 50_000 + "\n")
                asks.process.stdin.flush()
                answer = asks.line()
                if answer != "sent":
                    break
            assert answer == "ledger the ledger cannot grow: the disk is full"

            filler.unlink()
            asks.process.stdin.write("there is room\n")
            asks.process.stdin.flush()
            assert asks.line() == "sent"
            sent = command(database, "send", "ws-hears", '"again"', "--wait", "20s")
            assert sent.returncode == 0, sent.stderr
            heard = (hears.line().rpartition('"content":')[2] for _ in range(60))
            others = (content for content in heard if not content.startswith(('"x', '"y')))
            assert [next(others), next(others)] == ['"there is room"}', '"again"}']
            assert not any("Disconnected" in line for line in hears.errors)
        assert program.end() == 0


def status(url: str) -> tuple[int, Optional[str], str]:
    """Status, Retry-After and body of what a handshake is answered with while the gateway waits."""
    try:
        urllib.request.urlopen(f"{url}/ws?agent=octavia", timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Retry-After"], error.read().decode()
    raise AssertionError("a plain request was let in")


def until_refused_with(url: str, code: int) -> tuple[int, Optional[str], str]:
    """Wait until there is an answer with this status."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(urllib.error.URLError):
            if (answer := status(url))[0] == code:
                return answer
        assert time.monotonic() < deadline, f"{url} does not answer {code}"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What a service manager listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(PATIENCE)
        listening.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


WAITS = (
    b"STATUS=Waiting, and answering agents 503: the ledger cannot grow: the disk is full\n"
    b"EXTEND_TIMEOUT_USEC=60000000"
)


class TestStart:
    @pytest.mark.parametrize("before", ["nothing", "ledger"])
    def test_waits_until_there_is_room(
        self, small_disk: Path, supervisor: socket.socket, before: str
    ) -> None:
        database = small_disk / "ledger.db"
        if before == "ledger":
            assert command(database, "connect", "octavia", "--ws-id", "ws-hears").returncode == 0
        filler = fill(small_disk)
        port = free_port()
        with running(*COMMAND, "--db", str(database), "serve", "--port", str(port)) as program:
            code, retry, body = until_refused_with(f"http://127.0.0.1:{port}", 503)
            assert (code, retry) == (503, "1")
            assert "the gateway waits: the ledger cannot grow: the disk is full" in body
            assert str(database) not in body
            assert supervisor.recv(200) == WAITS
            filler.unlink()
            program.error_line("can open the ledger again")
            program.error_line("Ready: ")
            assert supervisor.recv(200) == b"READY=1"
            assert supervisor.recv(200) == f"STATUS=Serving http://127.0.0.1:{port}".encode()
            assert status(f"http://127.0.0.1:{port}")[:2] == (401, None)
            with listener(database, "octavia", "--ws-id", "ws-hears") as hears:
                assert command(database, "send", "ws-hears", '"at last"', "--wait", "20s").returncode == 0
                assert '"at last"' in hears.line()
            assert program.end() == 0
        assert sum("cannot open the ledger" in line for line in program.errors) == 1

    def test_agents_come_back_to_one_that_was_killed_on_a_full_disk(self, small_disk: Path) -> None:
        database, port = small_disk / "ledger.db", str(free_port())
        with gateway(database, "--port", port) as (killed, _), listener(database, "octavia") as agent:
            filler = fill(small_disk)
            killed.end(signal.SIGKILL)
            with running(*COMMAND, "--db", str(database), "serve", "--port", port, "--no-auth") as program:
                program.error_line("cannot open the ledger, will go on trying")
                agent.error_line("answered 503")
                filler.unlink()
                agent.error_line("Ready: resumed")
                assert program.end() == 0

    def test_can_be_stopped_while_it_waits(self, small_disk: Path, supervisor: socket.socket) -> None:
        fill(small_disk)
        with running(*COMMAND, "--db", str(small_disk / "ledger.db"), "serve", "--port", "0") as program:
            program.error_line("cannot open the ledger, will go on trying")
            assert supervisor.recv(200) == WAITS
            assert program.end() == 0

    def test_does_not_wait_where_room_would_not_help(self, small_disk: Path) -> None:
        database = small_disk / "ledger.db"
        database.write_bytes(b"not a database, and nothing that becomes one" * 100)
        fill(small_disk)
        ended = command(database, "serve", "--port", "0")
        assert ended.returncode == 1
        assert "is not a SQLite database" in ended.stderr

    def test_does_not_wait_where_another_gateway_has_the_file(self, small_disk: Path) -> None:
        database = small_disk / "ledger.db"
        with gateway(database) as (_, url):
            fill(small_disk)
            second = command(database, "serve", "--port", "0", "--no-auth")
            assert second.returncode == 6
            assert f"another gateway at {url}" in second.stderr


def test_commands_say_that_the_disk_is_full_whatever_sqlite_says(small_disk: Path) -> None:
    database = small_disk / "ledger.db"
    assert command(database, "connect", "octavia", "--ws-id", "ws-001").returncode == 0
    fill(small_disk)
    for arguments in (("send", "ws-001", "1"), ("heartbeat", "ws-001"), ("list",)):
        done = command(database, *arguments)
        if done.returncode:
            assert "the disk is full" in done.stderr, arguments
    assert command(database, "send", "ws-001", "1").returncode == 1
