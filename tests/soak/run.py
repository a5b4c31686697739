"""A randomised run that shows that the gateway loses nothing: `make soak`.

Real agents, senders and commands use a real gateway, while it is killed, stopped and suspended, sockets break and are
taken over, and others hold the write lock or delete what is confirmed. With `--workers` the gateway has several
processes, and one of them alone is killed or suspended too. `judgement.py` has the rules. A seed gives the same
faults again, though not at the same moment of the gateway. Linux only.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

from tests.soak.cast import cast
from tests.soak.faults import Faults
from tests.soak.gateway import PATIENCE, Gateway
from tests.soak.judgement import Judge
from tests.soak.records import Events, Tail, Watched, sent_in
from ws_manager import get_db

ROOT = Path(__file__).parents[2]
SENDERS = "ab"
MOST_MEMORY = 100 * 1024 * 1024
"""Bytes that each process of the gateway may have: over twice what it needs."""

_LOOK_SECONDS = 0.5
_PATIENCE_IN_VAIN = 5.0
_SHOWN_COMPLAINTS, _SHOWN_FAULTS, _SHOWN_LINES = 10, 30, 20


class Helper:
    """A process of ours that works until its stdin ends."""

    def __init__(self, folder: Path, module: str, name: str, *arguments: object) -> None:
        self.name = name
        self.journal = folder / f"{name}.journal"
        self.errors = folder / f"{name}.errors"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, arguments)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                text=True,
                encoding="utf-8",
            )

    def order(self, order: dict[str, Any]) -> None:
        print(json.dumps(order), file=self.process.stdin, flush=True)

    def end(self) -> list[str]:
        """Let it end, and return what was wrong with it."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        errors = self.errors.read_text(encoding="utf-8", errors="replace")
        return [f"{self.name} ended with {code}: {errors}"] if code or errors else []


class Soak:
    """One run in a folder."""

    def __init__(self, folder: Path, loop: str, seed: int, count: int, workers: int = 1) -> None:
        self.database = folder / "ledger.db"
        self._folder = folder
        self._seed = seed
        self._count = count
        self._db = get_db(self.database)
        self.gateway = Gateway(folder, self.database, loop, workers)
        members = cast(count)
        self.watched = Watched(self._db)
        self._events = Events(self._db)
        self.judge = Judge((member.ws_id for member in members), self.watched)
        journal = folder / "agents.journal"
        self._agents = Helper(
            folder, "tests.soak.agents", "agents", self.gateway.port, journal, f"{seed} agents", count
        )
        self._senders: list[Helper] = []
        self._agents_tail = Tail(journal)
        self._sender_tails: list[Tail] = []
        self.faults = Faults(
            f"{seed} faults",
            members,
            self.gateway,
            self.database,
            folder / "faults.log",
            self._agents.order,
            self.judge.take_registration,
            self.judge.take_disconnection,
            self.look,
            workers,
        )
        self._failures: list[str] = []

    def run(self, seconds: float) -> list[str]:
        """Run, and return what is wrong."""
        try:
            self.gateway.start()
            if not self._wait_for_all():
                self._failures.append(f"only {len(self.judge.greeted)} agents could connect")
                return self.problems()
            self._start_senders()
            self._make_faults(seconds)
            self._settle()
            self._close()
        finally:
            for helper in (*self._senders, self._agents):
                helper.process.kill()
                helper.process.wait()
            self.gateway.kill()
            self._db.close()
        return self.problems()

    def problems(self) -> list[str]:
        """What is wrong so far."""
        return [*self._failures, *self.gateway.complaints, *self.faults.complaints, *self.judge.complaints]

    def look(self) -> None:
        """Take what has come, and judge it."""
        for tail in self._sender_tails:
            for sent in sent_in(tail):
                self.judge.take_sent(sent)
        for line in self._agents_tail.lines():
            self.judge.take_line(line)
        for swept in self._events.swept():
            self.judge.take_swept(swept)
        self.judge.look()
        self.gateway.look()

    def _start_senders(self) -> None:
        for name in SENDERS:
            journal = self._folder / f"sender-{name}.journal"
            self._senders.append(
                Helper(
                    self._folder,
                    "tests.soak.senders",
                    f"sender-{name}",
                    self.database,
                    journal,
                    name,
                    f"{self._seed} {name}",
                    self._count,
                )
            )
            self._sender_tails.append(Tail(journal))

    def _wait_for_all(self) -> bool:
        return self._wait(lambda: len(self.judge.greeted) == self._count)

    def _wait(self, condition: Callable[[], bool]) -> bool:
        """Wait until something holds. Return False if it does not come to that."""
        begun = time.monotonic()
        while True:
            self.look()
            if condition():
                return True
            if time.monotonic() > begun + (_PATIENCE_IN_VAIN if self.problems() else PATIENCE):
                return False
            time.sleep(0.1)

    def _make_faults(self, seconds: float) -> None:
        """Make faults until the time is over, or something is wrong."""
        end = time.monotonic() + seconds
        looked_at = 0.0
        while time.monotonic() < end and not self.problems():
            self.faults.step()
            if time.monotonic() - looked_at >= _LOOK_SECONDS:
                self.look()
                looked_at = time.monotonic()
            for helper in (*self._senders, self._agents):
                if helper.process.poll() is not None:
                    self._failures += helper.end() or [f"{helper.name} ended by itself"]
            time.sleep(0.02)

    def _settle(self) -> None:
        """Let everybody stop sending, come back and read everything."""
        for sender in self._senders:
            self._failures += sender.end()
        self.faults.end()
        self._agents.order({"do": "calm"})
        if not self._wait(self._settled):
            away = self._count - len(self.judge.greeted)
            self._failures.append(
                f"{self.watched.pending} messages are pending, {away} agents are away, with two sockets are"
                f" {self.judge.doubled}, and processes run: {self.gateway.pids()}"
            )

    def _settled(self) -> bool:
        everybody = len(self.judge.greeted) == self._count and not self.judge.doubled
        return everybody and not self.watched.pending and self.gateway.complete()

    def _close(self) -> None:
        """Stop everything in order, and judge the whole."""
        self.gateway.stop(signal.SIGTERM)
        self._failures += self._agents.end()
        self.look()
        self.judge.finish()
        verdict = [row[0] for row in self._db.execute("PRAGMA integrity_check")]
        if verdict != ["ok"]:
            self._failures.append(f"integrity_check: {verdict}")
        doctor = subprocess.run(
            [sys.executable, "-m", "ws_manager", "--db", str(self.database), "doctor", "--json"],
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        found = [check for check in json.loads(doctor.stdout) if check["status"] == "problem"]
        if doctor.returncode or found:
            self._failures.append(f"doctor ended with {doctor.returncode}: {found}")
        if self.gateway.most_memory > MOST_MEMORY:
            self._failures.append(
                f"a process of the gateway took {self.gateway.most_memory >> 20} MiB of memory"
            )


def summary(soak: Soak, given: argparse.Namespace, seed: int, problems: list[str]) -> str:
    """What a run was, and what was wrong with it."""
    judge, faults = soak.judge, soak.faults
    codes = ", ".join(f"{code} {times}" for code, times in sorted(judge.codes.items()))
    made = ", ".join(f"{kind} {times}" for kind, times in sorted(faults.made.items()))
    lines = [
        f"soak: {given.seconds:.0f} s on {given.loop}, workers {given.workers}, seed {seed}",
        f"messages: {judge.addressed} in {len(judge.sent)} sends; {judge.read} read, {judge.again} came again,"
        f" {judge.aside} set aside, {faults.pruned} pruned",
        f"faults: {made}",
        f"sockets: {judge.sockets} greeted; the gateway closed them with {codes or 'no code'}",
        f"gateway: {soak.gateway.starts} starts, {soak.gateway.refused} of them refused,"
        f" at most {soak.gateway.most_memory >> 20} MiB a process",
    ]
    if problems:
        lines += ["the last faults:", *faults.log[-_SHOWN_FAULTS:]]
        for ws_id in judge.concerned[:1]:
            lines += [f"faults of {ws_id}:", *(line for line in faults.log if ws_id in line)]
            lines += [f"the gateway's log about {ws_id}:", *soak.gateway.lines_about(ws_id)[-_SHOWN_LINES:]]
        lines += [f"{len(problems)} complaints:", *problems[:_SHOWN_COMPLAINTS]]
    else:
        lines.append("nothing lost")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.run", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--agents", type=int, default=80)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    if given.loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
        print("uvloop is not installed here: pip install uvloop", file=sys.stderr)
        return 1
    seed = int.from_bytes(os.urandom(4), "big") if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="ws-manager-soak-"))
    soak = Soak(folder, given.loop, seed, given.agents, given.workers)
    problems = soak.run(given.seconds)
    print(summary(soak, given, seed, problems))
    if problems:
        print(f"the ledger, the journals and the logs are in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
