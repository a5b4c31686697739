"""The gateway of a soak: a real process that is killed, stopped, suspended, and started again on the same port."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 60.0
WITHOUT_UVLOOP = (
    "import sys; sys.modules['uvloop'] = None; from ws_manager.__main__ import main; sys.exit(main())"
)
OPTIONS = ("--timeout", "3s", "--write-timeout", "2s", "--drain", "1s")
"""Shorter than usual, so that a run sees what happens then."""


class Gateway:
    """One gateway after the other.

    Attributes:
        starts: how many there were.
        most_memory: the most anonymous memory that one had, in bytes.
        complaints: what was wrong with them.
    """

    def __init__(self, folder: Path, database: Path, loop: str) -> None:
        self.starts = 0
        self.most_memory = 0
        self.complaints: list[str] = []
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        run = ["-m", "ws_manager"] if loop == "uvloop" else ["-c", WITHOUT_UVLOOP]
        self._loop = loop
        self._folder = folder
        self._arguments = [
            *(sys.executable, *run, "--db", str(database), "serve", "--no-auth"),
            *("--port", str(self.port), *OPTIONS),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start one, and wait until it is ready."""
        self.starts += 1
        # A gateway that is started with SIGHUP ignored, as under `nohup`, would go on ignoring it.
        hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with self._log().open("wb") as log:
            self._process = subprocess.Popen(
                self._arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        signal.signal(signal.SIGHUP, hangup)
        deadline = time.monotonic() + PATIENCE
        while b"Ready: " not in self._log().read_bytes():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.complaints.append(
                    f"gateway {self.starts} was not ready in {PATIENCE:.0f} s, or has ended"
                )
                return
            time.sleep(0.02)
        loaded = "uvloop" in Path(f"/proc/{self._process.pid}/maps").read_text(encoding="utf-8")
        if loaded != (self._loop == "uvloop"):
            self.complaints.append(f"gateway {self.starts} does not run on {self._loop}")

    def kill(self) -> None:
        """Kill it."""
        self._end(signal.SIGKILL)

    def stop(self, number: signal.Signals) -> None:
        """Stop it in order."""
        code = self._end(number)
        if code != 0:
            self.complaints.append(f"gateway {self.starts} ended with {code} after {number.name}")

    def suspend(self, seconds: float) -> None:
        """Stop its clock for a while."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._process.send_signal(signal.SIGCONT)

    def look(self) -> None:
        """See how it is."""
        if self._process is None:
            return
        if self._process.poll() is not None:
            self.complaints.append(f"gateway {self.starts} ended by itself with {self._process.returncode}")
            self._process = None
            return
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"RssAnon:\s+(\d+) kB", status)
        if found:
            self.most_memory = max(self.most_memory, int(found[1]) * 1024)

    def lines_about(self, text: str) -> list[str]:
        """What the gateways logged about something, oldest first."""
        return [
            f"gateway {number}: {line}"
            for number in range(1, self.starts + 1)
            for line in self._log(number).read_text(encoding="utf-8", errors="replace").splitlines()
            if text in line
        ]

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.complaints.append(
                f"gateway {self.starts} did not end within {PATIENCE:.0f} s of {number.name}"
            )
            code = 0
        text = self._log().read_text(encoding="utf-8", errors="replace")
        self.complaints += [
            f"gateway {self.starts} logged: {line}" for line in text.splitlines() if is_error(line)
        ]
        return code

    def _log(self, number: int | None = None) -> Path:
        return self._folder / f"gateway-{number or self.starts:03d}.log"


def is_error(line: str) -> bool:
    """Whether a line of the log reports an error. What is not JSON is a traceback."""
    try:
        entry = json.loads(line)
    except ValueError:
        return True
    return entry.get("level") not in ("debug", "info", "warning") or "exception" in entry
