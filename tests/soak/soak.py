"""A randomised run: real agents, senders and faults, and what was wrong at the end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Protocol, Union

from tests.soak.cast import cast
from tests.soak.faults import ENDS, Faults, GatewayFaults, deck
from tests.soak.gateway import PATIENCE, Gateway
from tests.soak.judgement import Judge
from tests.soak.records import Events, Swept, Tail, Tried, Watched, sent_in
from ws_manager import get_db
from ws_manager.settings import Location

if TYPE_CHECKING:
    from tests.soak.fleet_gateways import Fleet

ROOT = Path(__file__).parents[2]
MOST_MEMORY = 100 * 1024 * 1024
"""Bytes that each process of the gateway may have: over twice what it needs."""

_LOOK_SECONDS = 0.5
_PATIENCE_IN_VAIN = 5.0


class Observed(Protocol):
    """A ledger, as those see it who judge.

    Attributes:
        location: where it is.
        watched: its messages.
    """

    location: Location
    watched: Watched

    def swept(self) -> Iterable[Swept]:
        """Give the connections that were called lost since the last time."""

    def problems(self) -> list[str]:
        """Say what is wrong with its storage."""

    def keep(self, folder: Path) -> None:
        """See to it that what it has is in a folder."""

    def close(self) -> None:
        """Look at it no more."""


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
    """One run in a folder.

    Args:
        folder: for everything that is written.
        seed: decides what happens.
        count: of agents.
        gateway: the gateway, or several.
        ports: where they listen.
        ledger: theirs.
        senders: the module of those who send, and the names that they get.
        faults: makes the faults.
        kinds: of faults, and how often each is in a deck.
        left_out: what every second deck does without.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        count: int,
        gateway: Union[Gateway, Fleet],
        ports: list[int],
        ledger: Observed,
        senders: tuple[str, str],
        faults: Callable[..., Faults[Any]],
        kinds: Mapping[str, int],
        left_out: Collection[str] = (),
    ) -> None:
        self._folder = folder
        self._seed = seed
        self._count = count
        self._ports = ",".join(map(str, ports))
        self._ledger = ledger
        self.gateway = gateway
        members = cast(count)
        self.watched = ledger.watched
        self.judge = Judge((member.ws_id for member in members), self.watched)
        journal = folder / "agents.journal"
        self._agents = Helper(
            folder, "tests.soak.agents", "agents", self._ports, journal, f"{seed} agents", count
        )
        self._who_sends = senders
        self._senders: list[Helper] = []
        self._agents_tail = Tail(journal)
        self._sender_tails: list[Tail] = []
        self.faults = faults(
            f"{seed} faults",
            members,
            gateway,
            ledger.location,
            folder / "faults.log",
            kinds,
            left_out,
            self._agents.order,
            self.judge.take_registration,
            self.judge.take_disconnection,
            self.look,
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
            self.faults.close()
            if self.problems():
                self._ledger.keep(self._folder)
            self._ledger.close()
        return self.problems()

    def problems(self) -> list[str]:
        """What is wrong so far."""
        return [*self._failures, *self.gateway.complaints, *self.faults.complaints, *self.judge.complaints]

    def look(self) -> None:
        """Take what has come, and judge it."""
        for tail in self._sender_tails:
            for sent in sent_in(tail):
                if isinstance(sent, Tried):
                    self.judge.take_tried(sent.key)
                else:
                    self.judge.take_sent(sent)
        for line in self._agents_tail.lines():
            self.judge.take_line(line)
        for swept in self._ledger.swept():
            self.judge.take_swept(swept)
        self.judge.look()
        self.gateway.look()

    def _start_senders(self) -> None:
        module, names = self._who_sends
        for name in names:
            journal = self._folder / f"sender-{name}.journal"
            self._senders.append(
                Helper(
                    self._folder,
                    module,
                    f"sender-{name}",
                    self._ledger.location,
                    journal,
                    name,
                    f"{self._seed} {name}",
                    self._count,
                    *self._more_for_senders(),
                )
            )
            self._sender_tails.append(Tail(journal))

    def _more_for_senders(self) -> list[object]:
        """What the senders of this run are told besides."""
        return []

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
        """Make faults until the time or the faults are over, or something is wrong."""
        end = time.monotonic() + seconds
        looked_at = 0.0
        while time.monotonic() < end and not self.faults.over and not self.problems():
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
        # First: a sender may wait for a gateway that is in trouble.
        self.faults.end()
        for sender in self._senders:
            self._failures += sender.end()
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
        self._failures += self._ledger.problems()
        doctor = subprocess.run(
            [sys.executable, "-m", "ws_manager", "--db", str(self._ledger.location), "doctor", "--json"],
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


class LedgerFile:
    """A ledger of SQLite; see `Observed`."""

    def __init__(self, database: Path) -> None:
        self.location: Location = database
        self._db = get_db(database)
        self._events = Events(self._db)
        self.watched = Watched(self._db)

    def swept(self) -> Iterable[Swept]:
        return self._events.swept()

    def problems(self) -> list[str]:
        verdict = [row[0] for row in self._db.execute("PRAGMA integrity_check")]
        return [] if verdict == ["ok"] else [f"integrity_check: {verdict}"]

    def keep(self, folder: Path) -> None:
        assert Path(str(self.location)).parent == folder

    def close(self) -> None:
        self._db.close()


def file_soak(folder: Path, loop: str, seed: int, count: int, workers: int) -> Soak:
    """One gateway over a file."""
    ledger = LedgerFile(folder / "ledger.db")
    gateway = Gateway(folder, ledger.location, loop, workers)
    senders = "tests.soak.senders", "ab"
    return Soak(
        folder, seed, count, gateway, [gateway.port], ledger, senders, GatewayFaults, deck(workers), ENDS
    )
