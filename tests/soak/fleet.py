"""A soak of three gateways over a private server of PostgreSQL, which loses nothing when it is killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psycopg

from tests.postgres import Server
from tests.soak.fleet_faults import DECK, FleetFaults
from tests.soak.fleet_gateways import Fleet
from tests.soak.line import Line
from tests.soak.records import COLUMNS, LOST, Swept, Watched, seconds
from tests.soak.soak import Soak
from ws_manager.settings import Location

GATEWAYS = 3

_SWEPT = (
    "SELECT id, ws_id, ts FROM ws_manager.events AS lost"
    " WHERE kind = 'disconnected' AND detail = %s AND id <> ALL(%s)"
    " AND NOT EXISTS (SELECT 1 FROM ws_manager.events AS closed WHERE closed.kind = 'closed'"
    " AND closed.ws_id = lost.ws_id AND closed.ts = lost.ts)"
)


class WatchedInPostgres(Watched):
    """The table of messages, read as a whole each time: the order of ids is not the order of commits."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._read_nothing()

    def _found(self, seq: int) -> Iterable[tuple[Any, ...]]:
        # Sessions of before are gone when the server was killed.
        with psycopg.connect(self._url) as session:
            return session.execute(f"SELECT {COLUMNS} FROM ws_manager.messages ORDER BY id").fetchall()


class LedgerInPostgres:
    """A ledger of PostgreSQL; see `Observed`."""

    def __init__(self, url: str) -> None:
        self.location: Location = url
        self.watched: Watched = WatchedInPostgres(url)
        self._url = url
        self._known: list[int] = []

    def swept(self) -> Iterable[Swept]:
        with psycopg.connect(self._url) as session:
            found = session.execute(_SWEPT, (LOST, self._known)).fetchall()
        self._known += [number for number, _, _ in found]
        return [Swept(ws_id, seconds(at)) for _, ws_id, at in found]

    def problems(self) -> list[str]:
        """Nothing is wrong with what the server has opened again after each kill: it would have refused to start."""
        return []

    def keep(self, folder: Path) -> None:
        """Export it: its server goes away."""
        arguments = [sys.executable, "-m", "ws_manager", "--db", self._url, "export"]
        with (folder / "ledger.jsonl").open("wb") as file:
            subprocess.run(arguments, stdout=file, check=False)

    def close(self) -> None:
        """No session is left open."""


class FleetSoak(Soak):
    """One run of three gateways.

    Args:
        fleet: they.
        url: of their database, as senders have it.
        faults: makes the faults.
        kinds: of faults, and how often each comes.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        count: int,
        fleet: Fleet,
        url: str,
        faults: type[FleetFaults] = FleetFaults,
        kinds: Mapping[str, int] = DECK,
    ) -> None:
        ports = [gateway.port for gateway in fleet.gateways]
        senders = "tests.soak.fleet_senders", "ab"
        super().__init__(folder, seed, count, fleet, ports, LedgerInPostgres(url), senders, faults, kinds)

    def _more_for_senders(self) -> list[object]:
        return [self._ports]


def fleet_soak(folder: Path, server: Server, loop: str, seed: int, count: int) -> FleetSoak:
    """Three gateways over a server, each with a line to it."""
    url = server.new()
    lines = [Line(server.port) for _ in range(GATEWAYS)]
    urls = [url.replace(f":{server.port}/", f":{line.port}/") for line in lines]
    return FleetSoak(folder, seed, count, Fleet(folder, urls, loop, server, lines), url)
