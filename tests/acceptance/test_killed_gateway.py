"""A gateway that was killed: the check that clears the dead leaves those who are about to come back."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path

from tests.acceptance.processes import command, gateway, listener
from ws_manager import get_db
from ws_manager.models import seconds_before, utc_now

AGENTS = 3


def silent_for(database: Path, seconds: float) -> None:
    """Let no connection have been heard for so long."""
    db = get_db(database)
    db.execute("UPDATE connections SET last_heartbeat = ?", (seconds_before(utc_now(), seconds),))
    db.close()


def gone_for(database: Path, seconds: float) -> None:
    """Let the gateway have ended so long ago."""
    db = get_db(database)
    db.execute("UPDATE gateways SET seen_at = ?", (seconds_before(utc_now(), seconds),))
    db.close()


def test_agents_are_kept_until_the_next_gateway_has_them(tmp_path: Path) -> None:
    database = tmp_path / "ledger.db"
    with contextlib.ExitStack() as agents:
        with gateway(database) as (program, url):
            hears = [
                agents.enter_context(listener(database, "octavia", "--ws-id", f"ws-{number}"))
                for number in range(AGENTS)
            ]
            program.end(signal.SIGKILL)
        silent_for(database, 3600)
        checked = command(database, "heartbeat-check")
        assert checked.stdout == f"Active: {AGENTS}  Timed out: 0\n"
        assert f"Spared {AGENTS} silent connection(s)" in checked.stderr

        with gateway(database, "--port", url.rpartition(":")[2]):
            sent = command(database, "broadcast", '"is anybody there"', "--wait", "30s")
            assert sent.returncode == 0, sent.stderr
            for agent in hears:
                assert json.loads(agent.line())["content"] == "is anybody there"


def test_those_who_do_not_come_back_time_out(tmp_path: Path) -> None:
    database = tmp_path / "ledger.db"
    with gateway(database) as (program, _), listener(database, "octavia", "--ws-id", "ws-001") as agent:
        program.end(signal.SIGKILL)
        agent.end(signal.SIGKILL)
    silent_for(database, 3600)
    gone_for(database, 3600)
    checked = command(database, "heartbeat-check")
    assert (checked.stdout, checked.stderr) == ("Active: 0  Timed out: 1\n", "")
