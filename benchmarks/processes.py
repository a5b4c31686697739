"""The gateway and its agents as processes, and what the system says about them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

AGENTS = Path(__file__).with_name("agents.py")
PATIENCE = 120.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


class Gateway:
    """`ws-manager serve` in a process of its own."""

    def __init__(self, database: Path, port: int = 0) -> None:
        self._log = database.with_suffix(".log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ws_manager", "--db", str(database)),
                    *("serve", "--no-auth", "--port", str(port)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = self._process.pid
        self.port = int(wait_for(self._address).rpartition(":")[2])

    def _address(self) -> str:
        assert self._process.poll() is None, self._log.read_text()
        found = re.search(r"Ready: (http://[\d.]+:\d+)", self._log.read_text())
        return found[1] if found else ""

    def memory(self) -> int:
        """Bytes that are this process's alone and no file's."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) * 1024

    def cpu(self) -> float:
        """Seconds of CPU until now."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)
        self._process.wait(PATIENCE)


class Load:
    """A process of agents; see `agents.py` for the commands."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(AGENTS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, command: str, group: str, **arguments: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"do": command, "group": group, **arguments}), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def open(self, group: str, kind: str, count: int, port: int, *, returns: bool = False) -> float:
        """Connect a group, wait until all are in, and return how long it took."""
        began = time.monotonic()
        self("open", group, kind=kind, count=count, port=port, returns=returns)
        wait_for(lambda: self("state", group)["opened"] >= count)
        return float(self("state", group)["full_at"]) - began

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)


class Peak(threading.Thread):
    """The highest value within a time."""

    def __init__(self, *measures: Callable[[], int]) -> None:
        super().__init__(daemon=True)
        self._measures = measures
        self._stop_now = threading.Event()
        self.values = [measure() for measure in measures]

    def run(self) -> None:
        while not self._stop_now.wait(0.02):
            self.values = [max(value, measure()) for value, measure in zip(self.values, self._measures)]

    def stop(self) -> list[int]:
        self._stop_now.set()
        self.join()
        return self.values


@contextmanager
def serving(database: Path) -> Iterator[tuple[Gateway, Load]]:
    """A gateway that has already served an agent, and a process for agents."""
    gateway, load = Gateway(database), Load()
    try:
        load.open("first", "ack", 5, gateway.port)
        time.sleep(1.5)
        load("close", "first")
        time.sleep(1.5)
        yield gateway, load
    finally:
        load.end()
        gateway.end()


def socket_memory() -> int:
    """Bytes that the kernel keeps for all TCP sockets of this machine."""
    line = re.search(r"^TCP: .* mem (\d+)", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    return int(line[1]) * _PAGE if line else 0


def wait_for(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
