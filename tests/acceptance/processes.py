"""Real processes for the acceptance tests: the command, a gateway, agents. They wait for lines, never for time."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Optional

import pytest

from ws_manager import ConnectionPool, open_ledger, send_message
from ws_manager.settings import Location

PATIENCE = 60.0
"""Seconds after which something that does not happen has failed."""

COMMAND = [sys.executable, "-m", "ws_manager"]


class Program:
    """A running program whose lines can be waited for."""

    def __init__(
        self,
        arguments: list[str],
        *,
        stdin: Optional[int] = subprocess.DEVNULL,
        environment: Optional[Mapping[str, str]] = None,
    ) -> None:
        self.process = subprocess.Popen(
            arguments,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            # As users run it: what is not flushed does not come out.
            env={
                name: value
                for name, value in (os.environ if environment is None else environment).items()
                if name != "PYTHONUNBUFFERED"
            },
        )
        self.errors: list[str] = []
        self._output: queue.Queue[Optional[str]] = queue.Queue()
        self._error_lines: queue.Queue[Optional[str]] = queue.Queue()
        self._threads = [
            threading.Thread(target=self._copy, args=(self.process.stdout, self._output), daemon=True),
            threading.Thread(target=self._copy, args=(self.process.stderr, self._error_lines), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _copy(stream, lines) -> None:
        with stream:
            for line in stream:
                lines.put(line.rstrip("\n"))
        lines.put(None)

    def line(self) -> str:
        """Wait for the next line on stdout."""
        line = self._output.get(timeout=PATIENCE)
        assert line is not None, f"no more output; {self.rest_of_errors()}"
        return line

    def lines(self) -> list[str]:
        """Wait for the end, and return the lines on stdout that were not taken yet."""
        return list(iter(lambda: self._output.get(timeout=PATIENCE), None))

    def error_line(self, containing: str) -> str:
        """Wait for a line on stderr that contains a text."""
        while True:
            line = self._error_lines.get(timeout=PATIENCE)
            assert line is not None, f"no line with {containing!r} in {self.errors}"
            self.errors.append(line)
            if containing in line:
                return line

    def rest_of_errors(self) -> list[str]:
        """Wait for the end, and return every line on stderr."""
        self.errors += iter(lambda: self._error_lines.get(timeout=PATIENCE), None)
        return self.errors

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def send_until_it_ends(self, number: signal.Signals) -> None:
        """Send a signal again and again, for one that comes within 0.3 s of the first is taken for the same.

        At a pace: hundreds of thousands of signals hang CPython, whose C handler takes a lock when the pipe of its
        wake-ups is full.
        """
        while self.process.poll() is None:
            self.process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.4)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        code = self.process.wait(timeout=PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)
        return code


@contextmanager
def running(
    *arguments: str,
    stdin: Optional[int] = subprocess.DEVNULL,
    environment: Optional[Mapping[str, str]] = None,
) -> Iterator[Program]:
    """Run a program for the length of a block, and end it at the latest there."""
    program = Program(list(arguments), stdin=stdin, environment=environment)
    try:
        yield program
    finally:
        if program.process.poll() is None:
            program.send(signal.SIGCONT)
            program.process.kill()
        if program.process.stdin is not None:
            program.process.stdin.close()
        program.wait()


@contextmanager
def gateway(database: Location, *options: str) -> Iterator[tuple[Program, str]]:
    """Run a gateway, and give it and its base address once it is ready."""
    with gateway_with_tokens(database, "--no-auth", *options) as started:
        yield started


def killed_gateways(database: Location, kills: int) -> Iterator[tuple[int, str]]:
    """Run one gateway after the other on the same port, and give how many kills are left, and its base address.

    Each is killed when the next one is asked for.
    """
    port = "0"
    for left in range(kills, -1, -1):
        with running(*COMMAND, "--db", str(database), "serve", "--no-auth", "--port", port) as program:
            url = program.error_line("Ready: ").split()[1]
            port = url.rpartition(":")[2]
            yield left, url


@contextmanager
def gateway_with_tokens(database: Location, *options: str) -> Iterator[tuple[Program, str]]:
    """The same for a gateway that asks for tokens."""
    with running(*COMMAND, "--db", str(database), "serve", "--port", "0", *options) as program:
        yield program, program.error_line("Ready: ").split()[1]


@contextmanager
def listener(database: Location, agent: str, *options: str) -> Iterator[Program]:
    """Run `listen`, and give it once it is connected."""
    with running(*COMMAND, "--db", str(database), "listen", agent, *options) as program:
        program.error_line("Ready: ")
        yield program


@contextmanager
def load(database: Location, ws_id: str) -> Iterator[list[int]]:
    """Commit messages, the numbers from 0, one after the other until the block ends; give those so far."""
    committed: list[int] = []
    failed: list[Exception] = []
    enough = threading.Event()

    def run() -> None:
        try:
            own = open_ledger(database)
            pool = ConnectionPool(own)
            while not enough.wait(0.001):  # others write too
                assert send_message(pool, own, ws_id, len(committed)) is not None
                committed.append(len(committed))
            own.close()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield committed
    finally:
        enough.set()
        thread.join()
    assert not failed, failed


def command(database: Location, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, "--db", str(database), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )


def made_certificate(folder: Path, names: str) -> Path:
    """Make a folder with cert.pem, its own authority, and key.pem.

    Args:
        folder: a new one.
        names: that it is for, as `subjectAltName` has them.
    """
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, and makes the certificate of this test")
    folder.mkdir()
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=ws-manager test"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-keyout", "key.pem", "-out", "cert.pem", "-addext", f"subjectAltName={names}"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder
