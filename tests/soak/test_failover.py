"""A primary that is killed, and a synchronous standby that takes over: three gateways, their agents and senders."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.postgres import Server, server
from tests.soak.cast import cast
from tests.soak.fleet import GATEWAYS, FleetSoak
from tests.soak.fleet_faults import FleetFaults
from tests.soak.fleet_gateways import Fleet

AGENTS = 20
TIMEOUT = 10.0
"""Seconds: the heartbeat timeout of the gateways."""

DECK = {"hop": 6, "reset": 2, "close": 1, "mute": 2, "send": 12}
_BEFORE, _AFTER = 4.0, 8.0


class TakeOver(FleetFaults):
    """Kills the primary after some seconds, among what agents do, and lets the standby take over."""

    standby: Server
    began: float = 0.0
    killed_at: float = 0.0
    promoted_at: float = 0.0

    @property
    def over(self) -> bool:
        return bool(self.promoted_at) and time.time() > self.promoted_at + _AFTER

    def step(self) -> None:
        self.began = self.began or time.time()
        if not self.killed_at and time.time() > self.began + _BEFORE:
            self._take_over()
        super().step()

    def _take_over(self) -> None:
        self._note("SIGKILL to the primary")
        self.killed_at = time.time()
        self._gateway.server.kill()
        self.standby.promote()
        self.promoted_at = time.time()
        self._note("the standby is the primary")


def seconds_until_all_are_back(soak: FleetSoak, since: float) -> float:
    """When the last agent had read something that was sent after a time, in seconds since then."""
    late = {sent.key for sent in soak.judge.sent.values() if sent.at > since}
    return max(min(soak.judge.times_of(member.ws_id, late)) for member in cast(AGENTS)) - since


@pytest.mark.long
@pytest.mark.timeout(170)
def test_nothing_is_lost_when_a_synchronous_standby_takes_over(tmp_path: Path) -> None:
    with server(durable=True) as primary, server(durable=True, primary=primary) as standby:
        primary.wait_for_standby()
        hosts = f":{primary.port},127.0.0.1:{standby.port}/"
        both = primary.new().replace(f":{primary.port}/", hosts) + "?target_session_attrs=read-write"
        fleet = Fleet(
            tmp_path, [both] * GATEWAYS, "asyncio", primary, options=("--timeout", f"{TIMEOUT:.0f}s")
        )
        soak = FleetSoak(tmp_path, 1, AGENTS, fleet, both, TakeOver, DECK)
        faults = soak.faults
        assert isinstance(faults, TakeOver)
        faults.standby = standby
        assert soak.run(60) == [], faults.log
        sent = [sent.at for sent in soak.judge.sent.values()]
        assert min(sent) < faults.killed_at < faults.promoted_at < max(sent)
        # The gateways went on by themselves.
        assert fleet.starts == GATEWAYS
        assert seconds_until_all_are_back(soak, faults.promoted_at) < 2 * TIMEOUT
