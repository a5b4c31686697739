"""What goes wrong in a soak of several gateways over PostgreSQL, chosen at random by the seed."""

from __future__ import annotations

import signal
import time
from random import Random
from typing import Callable

import psycopg

from tests.soak.cast import content
from tests.soak.faults import Background, Faults
from tests.soak.fleet_gateways import Fleet

DECK = {
    "kill": 2,
    "stop": 1,
    "restart": 1,
    "suspend": 2,
    "cut_off": 2,
    "swallow": 2,
    "crash": 1,
    "terminate": 2,
    "hop": 6,
    "reset": 2,
    "half_close": 1,
    "close": 2,
    "refuse": 1,
    "knock": 2,
    "deafen": 2,
    "mute": 2,
    "connect": 1,
    "disconnect": 1,
    "send": 14,
}

_ENDED = 0.6
"""How many of the sessions are ended together."""

_DATABASE_FAILED = 1
"""How a command ends that could not use the database; it may have done its work."""

_SESSIONS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND application_name = 'ws-manager' ORDER BY pid"
)


class FleetFaults(Faults[Fleet]):
    """Makes faults of several gateways and of their database: one deck, and then no more."""

    pause = 0.25

    @property
    def over(self) -> bool:
        return self._decks == 1 and not self._deck

    def end(self) -> None:
        self._note("all troubles end")
        self._gateway.end_troubles()
        super().end()

    # The gateways

    def _trouble(self, what: str, begin: Callable[[int, float], None], least: float, most: float) -> None:
        """Bring one gateway into trouble, if there is one that is in none."""
        seconds, place, free = self._seconds(least, most), self._random.random(), self._gateway.free()
        if free:
            chosen = free[int(place * len(free))]
            self._note(f"gateway-{chosen + 1}: {what}, for {seconds} s")
            begin(chosen, seconds)

    def _down(self, number: signal.Signals) -> None:
        self._trouble(
            number.name, lambda place, seconds: self._gateway.down(place, seconds, number), least=0, most=2
        )

    def _kill(self) -> None:
        self._down(signal.SIGKILL)

    def _stop(self) -> None:
        self._down(signal.SIGTERM)

    def _restart(self) -> None:
        self._down(signal.SIGHUP)

    def _suspend(self) -> None:
        self._trouble("SIGSTOP", self._gateway.suspend, least=0.3, most=6)

    def _cut_off(self) -> None:
        self._trouble("cut off from the database", self._gateway.cut_off, least=0.2, most=5)

    def _swallow(self) -> None:
        lost = self._random.random() < 0.5
        what = "what it says to the database is swallowed" + (", and its sessions are lost" if lost else "")
        self._trouble(
            what, lambda place, seconds: self._gateway.swallow(place, seconds, lost=lost), least=0.3, most=6
        )

    # The server

    def _crash(self) -> None:
        seconds = self._seconds(0, 1.5)
        self._note(f"SIGKILL to the server, for {seconds} s")
        self._gateway.server.kill()
        time.sleep(seconds)
        self._gateway.server.start()
        self._note("the server runs again")

    def _terminate(self) -> None:
        with psycopg.connect(str(self._database), autocommit=True) as session:
            pids = [row[0] for row in session.execute(_SESSIONS)]
            # However many there are, the faults to come stay the same.
            random = Random(self._random.random())
            chosen = [pid for pid in pids if random.random() < _ENDED]
            session.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", (chosen,))
        self._note(f"{len(chosen)} of {len(pids)} sessions are ended")

    # The agents

    def _hop(self) -> None:
        self._tell("take_over", self._somebody().ws_id, seconds=self._random.choice([0, 0, 0.3]))

    def _send(self) -> None:
        key = f"s{self.made['send']}"
        text = content(key, self._random.choice([20, 150, 3000]), self._random)
        self._order(
            {
                "do": "send",
                "ws_id": self._somebody().ws_id,
                "key": key,
                "to": self._somebody().ws_id,
                "text": text,
            }
        )

    # Other processes

    def _failed(self, command: Background, errors: str) -> None:
        # A `connect` of which nobody knows whether it was done: then the agents see no more than that.
        if command.process.returncode != _DATABASE_FAILED or "Traceback" in errors:
            super()._failed(command, errors)

    def _disconnect(self, codes: tuple[int, ...] = (0, 3, _DATABASE_FAILED)) -> None:
        super()._disconnect(codes)
