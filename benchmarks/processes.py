"""The gateway and its agents as processes, and what the system says about them."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

PATIENCE = 120.0
SERVER_CORE, LOAD_CORE = 0, 1
"""Where the gateway runs, and where the agents and whoever sends. Of the cores that this process may use."""

LOOPS = ("uvloop", "asyncio") if importlib.util.find_spec("uvloop") else ("asyncio",)
"""The event loops that the gateway can have here."""

_HERE = Path(__file__).parent
_BUILT = _HERE.parent / "build" / "benchmarks"
_SOURCES = [_HERE / name for name in ("agents.c", "kinds.c")]
_PYTHON = {
    "": ["-m", "ws_manager"],
    "uvloop": ["-m", "ws_manager"],
    # What `import uvloop` finds as None is not there.
    "asyncio": [
        "-c",
        "import sys; sys.modules['uvloop'] = None; from ws_manager.__main__ import main; main()",
    ],
}
_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def on_core(number: int) -> Iterator[None]:
    """Keep this thread on one core, and every process that it starts meanwhile.

    Nothing happens where the system cannot do this, or has one core only.
    """
    if len(_CORES) < 2:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {_CORES[number]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Gateway:
    """`ws-manager serve` in a process of its own, with the event loop that it chooses, or with another."""

    def __init__(
        self,
        database: Path | str,
        port: int = 0,
        loop: str = "",
        workers: int = 1,
        log: Path | None = None,
    ) -> None:
        self._log = log or Path(database).with_suffix(".log")
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, *_PYTHON[loop], "--db", str(database)),
                    *("serve", "--no-auth", "--port", str(port)),
                    *(("--workers", str(workers)) if workers > 1 else ()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
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
        """Seconds of CPU until now, of its workers too."""
        return cpu_of(self.pid, *_children(self.pid))

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)
        self._process.wait(PATIENCE)


class Load:
    """A process of agents; see `agents.c` for the commands."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [str(agents_program())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, command: str, group: str, *arguments: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(command, group, *arguments, file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def begin(self, group: str, kind: str, count: int, port: int, *, returns: bool = False) -> None:
        """Begin to connect a group."""
        self("open", group, kind, count, port, int(returns))

    def open(self, group: str, kind: str, count: int, port: int, *, returns: bool = False) -> float:
        """Connect a group, wait until all are in, and return how long it took."""
        began = time.monotonic()
        self.begin(group, kind, count, port, returns=returns)
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
def serving(database: Path, loop: str = "", workers: int = 1) -> Iterator[tuple[Gateway, Load]]:
    """A gateway that has already served an agent, and a process for agents.

    With a loop, each has a core of its own, and this thread shares that of the agents for the time of the block.
    """
    with ExitStack() as stack:
        with on_core(SERVER_CORE) if loop else nullcontext():
            gateway = Gateway(database, loop=loop, workers=workers)
        stack.callback(gateway.end)
        if loop:
            stack.enter_context(on_core(LOAD_CORE))
        load = Load()
        stack.callback(load.end)
        load.open("first", "ack", 5, gateway.port)
        time.sleep(1.5)
        load("close", "first")
        time.sleep(1.5)
        yield gateway, load


def agents_program() -> Path:
    """Return the program of `agents.c`; it is compiled if its source is newer.

    Raises:
        SystemExit: there is no compiler, or it fails.
    """
    program = _BUILT / "agents"
    sources = [*_SOURCES, _HERE / "agents.h"]
    if program.exists() and program.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        return program
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise SystemExit("no C compiler for the agents of the benchmarks (agents.c): install gcc, or set CC")
    _BUILT.mkdir(parents=True, exist_ok=True)
    # Somebody else may be doing the same.
    unfinished = program.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    command = [compiler, "-O2", "-Wall", "-Wextra", "-o", str(unfinished), *map(str, _SOURCES)]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"{compiler} could not compile {_SOURCES[0].name}: see above")
    unfinished.rename(program)
    return program


def cpu_of(*pids: int) -> float:
    """Seconds of CPU that these processes have taken until now, all threads together."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def cpu_of_server(pid: int) -> float:
    """Seconds of CPU until now of a process and of all its children, also of those that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ended = (int(fields[13]) + int(fields[14])) / _TICKS
    return ended + cpu_of(pid, *_children(pid))


def _children(pid: int) -> list[int]:
    """Return the processes that a process has started; see man 5 proc, /proc/pid/task/tid/children."""
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


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
