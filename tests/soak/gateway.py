"""The gateway of a soak: real processes that are killed, stopped, suspended, and started again on the same port."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Callable

from tests.soak.processes import has_loaded, memory_of, send, workers_on
from ws_manager.settings import Location

PATIENCE = 60.0
OPTIONS = ("--timeout", "3s", "--write-timeout", "2s", "--drain", "1s")
"""Shorter than usual, so that a run sees what happens then."""

_CONFLICT, _OTHER = 6, "another gateway"
"""How a `serve` ends on a ledger that is being served, and what it says."""

_GONE_SECONDS = 25.0
"""How long workers may take to end once their parent has: they close their sockets and write the last receipts."""

_POLL = 0.02
_WITHOUT_UVLOOP = "raise ImportError('not in this run')\n"

_KILLED = re.compile(r"worker \d+ was ended by SIGKILL; it starts again in [\d.]+ s")
_ORPHANED = re.compile(r"worker \d+ ends, because its parent has ended")


class Gateway:
    """One gateway after the other.

    Args:
        folder: for the logs.
        database: the ledger.
        loop: `asyncio` or `uvloop`.
        count: of workers; with 1 the gateway is one process.

    Attributes:
        starts: how many there were.
        refused: how many of these were refused, because workers of the one before still ran.
        most_memory: the most anonymous memory that one process had, in bytes.
        complaints: what was wrong with them.
    """

    def __init__(self, folder: Path, database: Location, loop: str, count: int = 1) -> None:
        self.starts = 0
        self.refused = 0
        self.most_memory = 0
        self.complaints: list[str] = []
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._loop = loop
        self._count = count
        self._folder = folder
        self._database = database
        self._arguments = [
            *(sys.executable, "-m", "ws_manager", "--db", str(database), "serve", "--no-auth"),
            *("--port", str(self.port), *OPTIONS),
            *(("--workers", str(count)) if count > 1 else ()),
        ]
        self._environment = _environment(folder, loop)
        self._process: subprocess.Popen[bytes] | None = None
        self._suspended: dict[int, float] = {}
        # Workers that were killed, by the gateway: its log says so of each.
        self._killed: Counter[int] = Counter()

    # Start and end

    def start(self) -> None:
        """Start one, and wait until it is ready."""
        self.launch()
        self.await_ready()

    def await_ready(self) -> None:
        """Wait until the one that was launched is ready."""
        if self._becomes_ready() is None:
            self._check_loop()
        else:
            self.complaints.append(f"gateway {self.starts} was not ready in {PATIENCE:.0f} s, or has ended")

    def kill(self) -> None:
        """Kill all its processes."""
        pids = self.pids()
        send(pids, signal.SIGKILL)
        # A worker that was being started at that moment shows only now.
        while workers := workers_on(self._database):
            send(workers, signal.SIGKILL)
            time.sleep(_POLL)
        self._end(None)

    def stop(self, number: signal.Signals) -> None:
        """Stop it in order."""
        code = self._end(number)
        if code != 0:
            self.complaints.append(f"gateway {self.starts} ended with {code} after {number.name}")
        if left := workers_on(self._database):
            self.complaints.append(f"gateway {self.starts} has ended, and its workers have not: {left}")

    def kill_parent(self, random: Random, suspended: float) -> int:
        """Kill the parent alone, and start another gateway when the workers have ended.

        Args:
            random: chooses the worker.
            suspended: seconds for which one worker is suspended, so that it cannot end before.

        Returns:
            How many further ones were refused meanwhile.
        """
        self.suspend_worker(random, suspended)
        process = self._process
        assert process is not None
        process.kill()
        process.wait()
        deadline = time.monotonic() + suspended + _GONE_SECONDS
        before, refused = self.starts, 0
        while True:
            seen = set(workers_on(self._database))
            self.launch()
            code = self._becomes_ready()
            left = workers_on(self._database).keys() - self._workers()
            if code != _CONFLICT or not seen or time.monotonic() > deadline:
                break
            refused += 1
            text = " ".join(self._lines(self.starts))
            if _OTHER not in text:
                # The port is in use, too; but another gateway could have another port.
                self.complaints.append(f"gateway {self.starts} was refused, but not for the ledger: {text}")
        if code is None and left:
            self.complaints.append(f"gateway {self.starts} is ready while workers of {before} run: {left}")
        elif code is not None:
            why = f"workers of {before} that run: {left}, before: {seen}"
            self.complaints.append(
                f"gateway {self.starts} ended with {code} after its parent was killed; {why}"
            )
        else:
            self._check_loop()
        self._look_at_log(before, orphaned=True)
        self.refused += refused
        return refused

    def launch(self) -> None:
        """Start one, and do not wait for it."""
        self.starts += 1
        # A gateway that is started with SIGHUP ignored, as under `nohup`, would go on ignoring it.
        hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with self._log().open("wb") as log:
            self._process = subprocess.Popen(
                self._arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )
        signal.signal(signal.SIGHUP, hangup)

    def _becomes_ready(self) -> int | None:
        """Wait until it is ready. Return the exit code if it ends before; 0 if nothing comes at all."""
        assert self._process is not None
        ended = self._process.poll
        self._wait(lambda: b"Ready: " in self._log().read_bytes() or ended() is not None)
        if b"Ready: " in self._log().read_bytes():
            return None
        return ended() or 0

    def _check_loop(self) -> None:
        """See that what serves runs on the right event loop. A parent of workers serves nothing."""
        assert self._process is not None
        for pid in self._workers() if self._count > 1 else [self._process.pid]:
            if has_loaded(pid, "uvloop") == (self._loop != "uvloop"):
                self.complaints.append(f"gateway {self.starts} does not run on {self._loop}")

    def _end(self, number: signal.Signals | None) -> int:
        """Send a signal, if it is one, and wait for the end."""
        process, self._process = self._process, None
        if process is None:
            return 0
        if number is not None:
            process.send_signal(number)
        if not self._wait(lambda: process.poll() is not None):
            send([process.pid, *workers_on(self._database)], signal.SIGKILL)
            process.wait()
            self.complaints.append(f"gateway {self.starts} did not end within {PATIENCE:.0f} s of {number}")
        self._suspended.clear()
        # Of those that are killed together, the parent is the first: a worker may notice that.
        self._look_at_log(self.starts, orphaned=number is None)
        return process.returncode

    # Its processes

    def pids(self) -> list[int]:
        """Return the process ids of all that it has: the parent first."""
        return [] if self._process is None else [self._process.pid, *self._workers()]

    def complete(self) -> bool:
        """Return whether every worker runs."""
        return len(self._workers()) == (self._count if self._count > 1 else 0)

    def suspend(self, seconds: float) -> None:
        """Stop the clock of all its processes for a while."""
        pids = self.pids()
        send(pids, signal.SIGSTOP)
        time.sleep(seconds)
        send((pid for pid in pids if pid not in self._suspended), signal.SIGCONT)

    def kill_worker(self, random: Random) -> None:
        """Kill one worker. The parent starts it again."""
        for pid in self._one_of(self._workers(), random):
            self._killed[self.starts] += 1
            self._suspended.pop(pid, None)
            send([pid], signal.SIGKILL)

    def suspend_worker(self, random: Random, seconds: float) -> None:
        """Stop the clock of one worker, and go on; `resume` ends that."""
        self._suspend_one(self._one_of(self._workers(), random), seconds)

    def suspend_parent(self, seconds: float) -> None:
        """Stop the clock of the parent, and go on; `resume` ends that."""
        self._suspend_one(self.pids()[:1], seconds)

    def resume(self) -> None:
        """Let those processes go on whose time has come."""
        for pid, until in list(self._suspended.items()):
            if time.monotonic() >= until:
                del self._suspended[pid]
                send([pid], signal.SIGCONT)

    def look(self) -> None:
        """See how it is."""
        self.resume()
        if self._process is None:
            return
        if self._process.poll() is not None:
            self.complaints.append(f"gateway {self.starts} ended by itself with {self._process.returncode}")
            self._process = None
            return
        self.most_memory = max(self.most_memory, *map(memory_of, self.pids()))

    def _workers(self) -> list[int]:
        if self._process is None or self._count == 1:
            return []
        own = self._process.pid
        return sorted(pid for pid, parent in workers_on(self._database).items() if parent == own)

    @staticmethod
    def _one_of(pids: list[int], random: Random) -> list[int]:
        """Choose one, if there is any. The choice takes the same from the random numbers, however many there are."""
        place = random.random()
        return [pids[int(place * len(pids))]] if pids else []

    def _suspend_one(self, pids: Iterable[int], seconds: float) -> None:
        for pid in pids:
            send([pid], signal.SIGSTOP)
            self._suspended[pid] = time.monotonic() + seconds

    def _wait(self, condition: Callable[[], bool]) -> bool:
        """Wait until something holds, and resume what is due meanwhile. Return False if it does not come to that."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.resume()
            time.sleep(_POLL)
        return True

    # Its log

    def lines_about(self, text: str) -> list[str]:
        """What the gateways logged about something, oldest first."""
        return [
            f"gateway {number}: {line}"
            for number in range(1, self.starts + 1)
            for line in self._lines(number)
            if text in line
        ]

    def _look_at_log(self, number: int, *, orphaned: bool = False) -> None:
        """Complain of every error in the log that no fault explains."""
        killed = self._killed[number]
        orphans = self._count if orphaned else 0
        for line in self._lines(number):
            if not is_error(line):
                continue
            if _says(line, _KILLED) and killed:
                killed -= 1
            elif _says(line, _ORPHANED) and orphans:
                orphans -= 1
            else:
                self.complaints.append(f"gateway {number} logged: {line}")

    def _lines(self, number: int) -> list[str]:
        return self._log(number).read_text(encoding="utf-8", errors="replace").splitlines()

    def _log(self, number: int | None = None) -> Path:
        return self._folder / f"gateway-{number or self.starts:03d}.log"


def _environment(folder: Path, loop: str) -> dict[str, str]:
    """Return what the gateway's processes see. For asyncio, uvloop cannot be imported there."""
    if loop == "uvloop":
        return dict(os.environ)
    without = folder / "without"
    without.mkdir()
    (without / "uvloop.py").write_text(_WITHOUT_UVLOOP, encoding="utf-8")
    others = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{without}:{others}" if others else str(without)}


def is_error(line: str) -> bool:
    """Whether a line of the log reports an error. What is not JSON is a traceback."""
    try:
        entry = json.loads(line)
    except ValueError:
        return True
    return entry.get("level") not in ("debug", "info", "warning") or "exception" in entry


def _says(line: str, pattern: re.Pattern[str]) -> bool:
    """Whether the message of a line is this one, and there is no traceback."""
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    return "exception" not in entry and pattern.fullmatch(entry.get("message", "")) is not None
