"""The command line: in this process where nothing but arguments matters, otherwise in one of its own."""

from __future__ import annotations

import fcntl
import inspect
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.support import gateway_in_a_thread
from ws_manager.cli.app import app
from ws_manager.settings import MAX_TIMEOUT
from ws_manager.tokens import mint, signing_key

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked with `over_http` twice: on the ledger's file, and through a gateway that serves it.

    What is marked with `on_the_file` too is about the file itself. On PostgreSQL the way over HTTP is left to the
    tests of the API.
    """
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    if "way" in metafunc.fixturenames and "over_http" in marks:
        once = "on_the_file" in marks or metafunc.config.getoption("--engine") == "postgres"
        metafunc.parametrize("way", ["file"] if once else ["file", "url"], indirect=True)


@pytest.fixture
def way(
    request: pytest.FixtureRequest, database: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, str]]:
    """How commands reach the ledger at `database`, as an option and its value."""
    if getattr(request, "param", "file") == "file":
        yield "--db", str(database)
        return
    key = signing_key(database, create=True)
    assert key is not None
    monkeypatch.setenv("BLACKROAD_WS_TOKEN", mint(key, "*", scopes=["admin"], ttl=MAX_TIMEOUT))
    with gateway_in_a_thread(database, key) as url:
        yield "--url", url


@pytest.fixture
def cli(way: tuple[str, str]):
    """Run a command on `database` in this process."""
    # Click 8.1 mixes the two streams unless it is told not to; its successors cannot be told.
    options: dict[str, Any] = (
        {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
    )
    runner = CliRunner(**options)

    def run(*arguments: str, stdin: bytes = b""):
        return runner.invoke(app, [*way, *arguments], input=stdin)

    return run


@pytest.fixture
def environment(way: tuple[str, str]) -> dict[str, str]:
    """The environment of a process whose ledger is `database`."""
    return {**os.environ, "BLACKROAD_WS_DB" if way[0] == "--db" else "BLACKROAD_WS_URL": way[1]}


@pytest.fixture
def process(environment: dict[str, str]) -> Run:
    """Run a command in a process of its own, its streams being pipes."""

    def run(*arguments: str, stdin: bytes = b"", **variables: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "ws_manager", *arguments],
            input=stdin,
            capture_output=True,
            check=False,
            env={**environment, **variables},
        )

    return run


@pytest.fixture
def terminal(environment: dict[str, str]) -> Callable[..., tuple[int, str]]:
    """Run a command on a terminal, and return its exit code and what appeared there."""

    def run(*arguments: str, columns: int = 80, typed: str = "", **variables: str) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        with subprocess.Popen(
            [sys.executable, "-m", "ws_manager", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={"TERM": "xterm", **environment, **variables},
        ) as started:
            os.close(theirs)
            os.write(ours, typed.encode())
            seen = b""
            while True:
                try:
                    some = os.read(ours, 65536)
                except OSError:  # Linux says EIO when the other end is gone
                    break
                if not some:
                    break
                seen += some
            os.close(ours)
        return started.returncode, seen.decode().replace("\r\n", "\n")

    return run


@pytest.fixture
def modules_of(environment: dict[str, str]) -> Callable[..., set[str]]:
    """Run a command in a process of its own, and return the names of the modules that it has loaded."""
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('loaded', *sys.modules, file=sys.stderr))\n"
        "from ws_manager.__main__ import main\n"
        "main()"
    )

    def run(*arguments: str, **variables: str) -> set[str]:
        ended = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            check=True,
            env={**environment, **variables},
        )
        return set(ended.stderr.splitlines()[-1].split()[1:])

    return run
