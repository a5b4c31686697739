"""`heartbeat-check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import open_sql
from ws_manager import ConnectionPool, heartbeat_check
from ws_manager.core.ledger import Ledger, ledger_over
from ws_manager.models import Gateway, seconds_before, utc_now

pytestmark = pytest.mark.over_http


def make_old(database: Path, ws_id: str) -> None:
    db = open_sql(database)
    db.execute("UPDATE connections SET last_heartbeat = '2020-01-01' WHERE ws_id = ?", (ws_id,))
    db.close()


def test_heartbeat_check(cli, database: Path) -> None:
    for ws_id in ("ws-001", "ws-002", "ws-003"):
        cli("connect", "octavia", "--ws-id", ws_id)
    make_old(database, "ws-002")
    result = cli("heartbeat-check")
    assert (result.exit_code, result.stdout) == (0, "Active: 2  Timed out: 1\n")
    make_old(database, "ws-003")
    assert json.loads(cli("heartbeat-check", "--timeout", "7d", "--json").stdout) == {
        "active": ["ws-001"],
        "timed_out": ["ws-003"],
    }
    make_old(database, "ws-001")
    assert cli("heartbeat-check", "-o", "id").stdout == "ws-001\n"


@pytest.mark.on_the_file
def test_heartbeat_check_spares_those_of_a_gateway_that_ended_a_moment_ago(cli, database: Path) -> None:
    for ws_id in ("ws-001", "ws-002"):
        cli("connect", "octavia", "--ws-id", ws_id)
        make_old(database, ws_id)
    db = open_sql(database)
    db.execute("UPDATE connections SET gateway = 'g' WHERE ws_id = 'ws-001'")
    ledger_over(db)._store.gateways.insert(Gateway("g", 1, "http://127.0.0.1:1", utc_now(), utc_now()))
    pool = ConnectionPool(db)

    result = cli("heartbeat-check", "--json")
    assert json.loads(result.stdout) == {"active": ["ws-001"], "timed_out": ["ws-002"], "spared": ["ws-001"]}
    result = cli("heartbeat-check")
    assert (result.exit_code, result.stdout) == (0, "Active: 1  Timed out: 0\n")
    assert result.stderr.startswith("Spared 1 silent connection(s): their gateway ended a moment ago")
    assert heartbeat_check(pool, db) == {"active": ["ws-001"], "timed_out": []}

    db.execute("UPDATE gateways SET seen_at = ?", (seconds_before(utc_now(), 41),))
    result = cli("heartbeat-check", "--json")
    assert json.loads(result.stdout) == {"active": [], "timed_out": ["ws-001"]}
    assert "Spared" not in result.stderr
    db.close()


@pytest.mark.parametrize("timeout", ["30", "90s", "5m", "24h", "7d"])
def test_heartbeat_check_takes_durations(cli, db, timeout: str) -> None:
    assert cli("heartbeat-check", "--timeout", timeout).stdout == "Active: 0  Timed out: 0\n"


def test_heartbeat_check_reads_its_default_from_the_environment(
    cli, db, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    plain = Ledger.heartbeat_check
    monkeypatch.setattr(
        Ledger, "heartbeat_check", lambda self, timeout: seen.append(timeout) or plain(self, timeout)
    )
    cli("heartbeat-check")
    monkeypatch.setenv("BLACKROAD_HB_TIMEOUT", "2m")
    cli("heartbeat-check")
    cli("heartbeat-check", "--timeout", "5")
    assert seen == [30.0, 120.0, 5.0]
    monkeypatch.setenv("BLACKROAD_HB_TIMEOUT", "never")
    assert cli("heartbeat-check").exit_code == 2
    assert cli("heartbeat-check", "--timeout", "-1").exit_code == 2
