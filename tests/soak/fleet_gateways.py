"""Several gateways over one database, each with a line to it that can be cut."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from tests.postgres import Server
from tests.soak.gateway import Gateway
from tests.soak.line import Line
from tests.soak.processes import send


class FleetGateway(Gateway):
    """One gateway of several, whose errors are logged as often as its database is away."""

    def __init__(
        self,
        folder: Path,
        database: str,
        loop: str,
        options: Sequence[str],
        meanwhile: Callable[[], None],
    ) -> None:
        super().__init__(folder, database, loop)
        self.name = folder.name
        self._arguments += options
        self._meanwhile = meanwhile

    def resume(self) -> None:
        """Also while it is waited for, the troubles of the others end."""
        super().resume()
        self._meanwhile()

    def _look_at_log(self, number: int, *, orphaned: bool = False) -> None:
        """Complain of every traceback."""
        for line in self._lines(number):
            try:
                is_traceback = "exception" in json.loads(line)
            except ValueError:
                is_traceback = True
            if is_traceback:
                self.complaints.append(f"{self.name}, start {number}, logged: {line}")


class Fleet:
    """Gateways with one database.

    Args:
        folder: for the logs.
        urls: of the database, one for each gateway.
        loop: `asyncio` or `uvloop`.
        server: of the database.
        lines: to it, one for each gateway; none if there is nothing to cut.
        options: of the gateways, besides the usual ones.
    """

    def __init__(
        self,
        folder: Path,
        urls: Sequence[str],
        loop: str,
        server: Server,
        lines: Sequence[Line] = (),
        options: Sequence[str] = (),
    ) -> None:
        self.server = server
        self.lines = lines
        self.gateways: list[FleetGateway] = []
        for number, url in enumerate(urls, start=1):
            own = folder / f"gateway-{number}"
            own.mkdir()
            self.gateways.append(FleetGateway(own, url, loop, options, self.resume))
        # What is to happen at a time, by the gateway's place: a gateway can be in one trouble at a time.
        self._troubles: dict[int, tuple[float, Callable[[], None]]] = {}

    # What `Soak` asks of a gateway

    @property
    def starts(self) -> int:
        return sum(gateway.starts for gateway in self.gateways)

    @property
    def refused(self) -> int:
        return sum(gateway.refused for gateway in self.gateways)

    @property
    def most_memory(self) -> int:
        return max(gateway.most_memory for gateway in self.gateways)

    @property
    def complaints(self) -> list[str]:
        return [
            f"{gateway.name}: {complaint}" for gateway in self.gateways for complaint in gateway.complaints
        ]

    def start(self) -> None:
        """Start all of them, and wait until they are ready."""
        for gateway in self.gateways:
            gateway.launch()
        for gateway in self.gateways:
            gateway.await_ready()

    def kill(self) -> None:
        """Kill all of them, and end their lines."""
        self._troubles.clear()
        for gateway in self.gateways:
            gateway.kill()
        for line in self.lines:
            line.close()

    def stop(self, number: signal.Signals) -> None:
        """Stop all of them in order."""
        for gateway in self.gateways:
            gateway.stop(number)

    def look(self) -> None:
        """See how they are."""
        for gateway in self.gateways:
            gateway.look()

    def complete(self) -> bool:
        """Return whether all run."""
        return not self._troubles

    def pids(self) -> list[int]:
        """Return the process ids of all."""
        return [pid for gateway in self.gateways for pid in gateway.pids()]

    def lines_about(self, text: str) -> list[str]:
        """What the gateways logged about something."""
        return [f"{gateway.name}, {line}" for gateway in self.gateways for line in gateway.lines_about(text)]

    # Troubles

    def free(self) -> list[int]:
        """Return the places of the gateways that are in no trouble."""
        return [place for place in range(len(self.gateways)) if place not in self._troubles]

    def resume(self) -> None:
        """End the troubles whose time has come."""
        # An end may take long, and this is called again meanwhile.
        while due := [place for place, (at, _) in self._troubles.items() if time.monotonic() >= at]:
            _, end = self._troubles.pop(due[0])
            end()

    def end_troubles(self) -> None:
        """End all of them now."""
        self._troubles = {place: (0.0, end) for place, (_, end) in self._troubles.items()}
        self.resume()

    def down(self, place: int, seconds: float, number: signal.Signals) -> None:
        """End a gateway by a signal, and start it again after some seconds."""
        gateway = self.gateways[place]
        if number is signal.SIGKILL:
            gateway.kill()
        else:
            gateway.stop(number)
        self._until(place, seconds, gateway.start)

    def suspend(self, place: int, seconds: float) -> None:
        """Stop the clock of a gateway for some seconds."""
        pids = self.gateways[place].pids()
        send(pids, signal.SIGSTOP)
        self._until(place, seconds, lambda: send(pids, signal.SIGCONT))

    def cut_off(self, place: int, seconds: float) -> None:
        """Cut a gateway off from the database for some seconds."""
        self.lines[place].cut()
        self._until(place, seconds, self.lines[place].mend)

    def swallow(self, place: int, seconds: float, *, lost: bool) -> None:
        """Swallow what a gateway and the database say to each other for some seconds; for ever if it is lost."""
        line = self.lines[place]
        line.swallow()
        self._until(place, seconds, lambda: line.mend(lost=lost))

    def _until(self, place: int, seconds: float, end: Callable[[], None]) -> None:
        self._troubles[place] = time.monotonic() + seconds, end
