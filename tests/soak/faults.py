"""What goes wrong in a soak, chosen at random by the seed. Every kind is in each deck, most of them several times."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from random import Random
from typing import Any, Callable, Generic, Protocol, TypeVar

from tests.soak.cast import Member
from tests.soak.gateway import Gateway
from ws_manager.settings import Location

ENDS = ("kill", "stop", "restart", "kill_parent")
"""What every second deck does without, so that some gateways live longer."""

_VICTIMS = 8
"""Agents to whom half of a deck's faults happen, so that several meet: a take-over of one that does not read."""

_DECK = {
    "kill": 3,
    "stop": 2,
    "restart": 1,
    "suspend": 3,
    "reset": 8,
    "half_close": 5,
    "close": 6,
    "refuse": 2,
    "take_over": 8,
    "knock": 4,
    "deafen": 6,
    "mute": 6,
    "connect": 4,
    "disconnect": 2,
    "hold": 4,
    "hold_and_connect": 6,
    "prune": 4,
}

_WITH_WORKERS = {"kill_worker": 5, "suspend_worker": 5, "suspend_parent": 1, "kill_parent": 2}
"""What is added if the gateway has workers."""

_SHORTER, _LONGER = (0.1, 2.5), (3.2, 6)
"""Seconds for which one process is suspended: less than the heartbeat timeout, or more."""


class Background:
    """A command that runs beside the rest."""

    def __init__(self, what: str, arguments: list[str], codes: tuple[int, ...], then: Callable[[str], None]):
        self.what = what
        self.codes = codes
        self.then = then
        self.process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )


class Resumed(Protocol):
    """What faults are made of."""

    def resume(self) -> None:
        """Let what was suspended go on, if its time has come."""


Served = TypeVar("Served", bound=Resumed)


def deck(workers: int) -> dict[str, int]:
    """What happens to one gateway, and how often in each deck."""
    return {**_DECK, **(_WITH_WORKERS if workers > 1 else {})}


class Faults(Generic[Served]):
    """Makes faults.

    Args:
        seed: decides which, and when.
        members: the agents.
        gateway: the gateway, or several.
        database: their ledger.
        log: the file for `log`.
        kinds: how often each kind is in a deck.
        left_out: what every second deck does without.
        order: gives an order to the agents.
        registered: called when a command has registered a ws_id again, with the times before and after it.
        disconnected: the same, when a command has disconnected a ws_id.
        look: makes sure that everything that is confirmed now has been seen.

    Attributes:
        made: how many of each kind.
        log: a line for each, oldest first.
        complaints: commands that have failed.
        pause: seconds between two faults, on average.
        over: whether no more come.
    """

    pause = 0.35

    def __init__(
        self,
        seed: str,
        members: list[Member],
        gateway: Served,
        database: Location,
        log: Path,
        kinds: Mapping[str, int],
        left_out: Collection[str],
        order: Callable[[dict[str, Any]], None],
        registered: Callable[[str, float, float], None],
        disconnected: Callable[[str, float, float], None],
        look: Callable[[], None],
    ) -> None:
        self.made: Counter[str] = Counter()
        self.log: list[str] = []
        self.complaints: list[str] = []
        self._random = Random(seed)
        self._members = members
        self._gateway = gateway
        self._database = database
        self._file = log.open("w", encoding="utf-8")
        self._order = order
        self._registered = registered
        self._disconnected = disconnected
        self._kinds = kinds
        self._left_out = left_out
        self._look = look
        self._decks = 0
        self._deck: list[str] = []
        self._victims: list[Member] = []
        self._next_at = time.monotonic()
        self._background: list[Background] = []

    @property
    def over(self) -> bool:
        return False

    def step(self) -> None:
        """Make the next one if it is due, and see what those before have become."""
        self._reap()
        self._gateway.resume()
        if time.monotonic() < self._next_at:
            return
        if not self._deck:
            self._decks += 1
            left_out = () if self._decks % 2 else self._left_out
            self._deck = [
                kind for kind, times in self._kinds.items() for _ in range(times) if kind not in left_out
            ]
            self._random.shuffle(self._deck)
            self._victims = self._random.sample(self._members, _VICTIMS)
        kind = self._deck.pop()
        self.made[kind] += 1
        getattr(self, f"_{kind}")()
        self._next_at = time.monotonic() + self._random.expovariate(1 / self.pause)

    def end(self) -> None:
        """Wait for what runs beside the rest."""
        while self._background:
            self._reap()
            time.sleep(0.02)

    def close(self) -> None:
        """Write no more."""
        self._file.close()

    def _note(self, text: str) -> None:
        now = time.time()
        stamp = time.strftime("%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}"
        self.log.append(f"{now:.3f} ({stamp}Z) {text}")
        print(self.log[-1], file=self._file, flush=True)

    def _seconds(self, least: float, most: float) -> float:
        return round(self._random.uniform(least, most), 2)

    def _somebody(self) -> Member:
        return self._random.choice(self._random.choice([self._members, self._victims]))

    # The agents

    def _tell(self, order: str, ws_id: str, **how: object) -> None:
        self._note(" ".join([ws_id, order, *(f"{name}={value}" for name, value in how.items())]))
        self._order({"do": order, "ws_id": ws_id, **how})

    def _reset(self) -> None:
        self._tell("reset", self._somebody().ws_id)

    def _half_close(self) -> None:
        self._tell("half_close", self._somebody().ws_id)

    def _close(self) -> None:
        code = self._random.choice([1001, 1001, 1000, 1012])
        self._tell("close", self._somebody().ws_id, code=code, seconds=self._seconds(0, 2))

    def _refuse(self) -> None:
        self._tell("close", self._somebody().ws_id, code=1009, seconds=0)

    def _take_over(self) -> None:
        self._tell("take_over", self._somebody().ws_id, seconds=self._random.choice([0, 0.1, 0.5]))

    def _knock(self) -> None:
        self._tell("knock", self._somebody().ws_id)

    def _deafen(self) -> None:
        self._tell("deafen", self._somebody().ws_id, seconds=self._seconds(0.3, 6))

    def _mute(self) -> None:
        self._tell("mute", self._somebody().ws_id, seconds=self._seconds(0.3, 6))

    # Other processes

    def _run(
        self,
        arguments: list[str],
        then: Callable[[str], None] = lambda _: None,
        codes: tuple[int, ...] = (0,),
        module: str = "ws_manager",
    ) -> None:
        what = " ".join([module, *arguments])
        self._note(what)
        database = ["--db", str(self._database)] if module == "ws_manager" else [str(self._database)]
        program = [sys.executable, "-m", module, *database, *arguments]
        self._background.append(Background(what, program, codes, then))

    def _reap(self) -> None:
        for command in list(self._background):
            if command.process.poll() is None:
                continue
            self._background.remove(command)
            output, errors = command.process.communicate()
            self._note(f"{command.what} has ended with {command.process.returncode}")
            if command.process.returncode in command.codes:
                command.then(output)
            else:
                self._failed(command, errors)

    def _failed(self, command: Background, errors: str) -> None:
        """Take note of a command that has not ended as it should."""
        self.complaints.append(f"{command.what} ended with {command.process.returncode}: {errors}")

    def _connect(self) -> None:
        member, begun = self._somebody(), time.time()
        self._run(
            ["connect", member.agent, "--ws-id", member.ws_id],
            lambda _: self._registered(member.ws_id, begun, time.time()),
        )

    def _disconnect(self, codes: tuple[int, ...] = (0, 3)) -> None:
        ws_id, begun = self._somebody().ws_id, time.time()
        # 3: it is not active, because its agent has said goodbye.
        self._run(["disconnect", ws_id], lambda _: self._disconnected(ws_id, begun, time.time()), codes=codes)


class GatewayFaults(Faults[Gateway]):
    """Makes faults of one gateway over one file.

    Attributes:
        pruned: messages that were deleted.
    """

    pruned = 0

    # The gateway

    def _kill(self) -> None:
        self._note("SIGKILL to the gateway")
        self._gateway.kill()
        self._gateway.start()
        self._note(f"gateway {self._gateway.starts} is ready")

    def _stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        self._note(f"{number.name} to the gateway")
        self._gateway.stop(number)
        self._gateway.start()
        self._note(f"gateway {self._gateway.starts} is ready")

    def _restart(self) -> None:
        self._stop(signal.SIGHUP)

    def _suspend(self) -> None:
        seconds = self._seconds(0.1, 2)
        self._note(f"SIGSTOP to the gateway for {seconds} s")
        self._gateway.suspend(seconds)

    def _kill_worker(self) -> None:
        self._note("SIGKILL to a worker")
        self._gateway.kill_worker(self._random)

    def _suspend_worker(self) -> None:
        seconds = self._seconds(*self._random.choice([_SHORTER, _LONGER]))
        self._note(f"SIGSTOP to a worker for {seconds} s")
        self._gateway.suspend_worker(self._random, seconds)

    def _suspend_parent(self) -> None:
        seconds = self._seconds(*_SHORTER)
        self._note(f"SIGSTOP to the parent for {seconds} s")
        self._gateway.suspend_parent(seconds)

    def _kill_parent(self) -> None:
        seconds = self._random.choice([0.0, self._seconds(*_LONGER)])
        self._note(f"SIGKILL to the parent, while a worker is suspended for {seconds} s")
        refused = self._gateway.kill_parent(self._random, seconds)
        self._note(f"gateway {self._gateway.starts} is ready; {refused} before it were refused")

    # Other processes

    def _hold(self) -> None:
        self._run([str(self._seconds(0.1, 3))], module="tests.soak.holder")

    def _hold_and_connect(self) -> None:
        member = self._somebody()

        def ended(output: str) -> None:
            times = json.loads(output)
            self._registered(member.ws_id, times["begun"], times["ended"])

        arguments = [str(self._seconds(0.1, 0.6)), member.ws_id, member.agent]
        self._run(arguments, ended, module="tests.soak.holder")

    def _prune(self) -> None:
        self._look()
        age = self._random.randint(3, 8)
        self._run(["prune", "--older-than", f"{age}s", "--json"], self._count_pruned)

    def _count_pruned(self, output: str) -> None:
        self.pruned += json.loads(output)["messages"]
