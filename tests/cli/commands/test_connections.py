"""connect, disconnect, list, heartbeat, heartbeat-check, stats."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from tests.support import open_db
from ws_manager import ConnectionPool, heartbeat_check
from ws_manager.core.ledger import Ledger
from ws_manager.models import Connection, Gateway, seconds_before, utc_now
from ws_manager.repository.sqlite.gateways import Gateways

UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def make_old(database: Path, ws_id: str) -> None:
    db = open_db(database)
    db.execute("UPDATE connections SET last_heartbeat = '2020-01-01' WHERE ws_id = ?", (ws_id,))
    db.close()


def test_connect(cli) -> None:
    result = cli("connect", "octavia", "--ws-id", "ws-001")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Connected: ws-001 (agent=octavia)\n", "")
    assert re.fullmatch(rf"Connected: {UUID4} \(agent=octavia\)\n", cli("connect", "octavia").stdout)


def test_connect_as_json_is_the_connection(cli) -> None:
    row = json.loads(
        cli("connect", "octavia", "--ws-id", "ws-001", "--metadata", '{"region":"wést"}', "--json").stdout
    )
    assert list(row) == [*(f.name for f in fields(Connection) if f.name != "metadata_json"), "pending"]
    assert (row["ws_id"], row["agent"], row["metadata"]) == ("ws-001", "octavia", {"region": "wést"})
    assert cli("connect", "octavia", "--ws-id", "ws-001", "-o", "id").stdout == "ws-001\n"


@pytest.mark.parametrize("metadata", ["{", "[1]", "1", '"text"', '{"a":NaN}', "[" * 100_000])
def test_connect_with_metadata_that_is_no_object_changes_nothing(cli, database: Path, metadata: str) -> None:
    result = cli("connect", "octavia", "--metadata", metadata)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "metadata" in result.stderr
    assert not database.exists()


@pytest.mark.parametrize("agent", ["", " ", "a\tb", "x" * 129])
def test_connect_with_a_name_that_cannot_be(cli, agent: str) -> None:
    assert cli("connect", agent).exit_code == 2
    assert cli("stats", "-o", "ndjson").stdout.startswith('{"active_connections":0,')


def test_disconnect(cli) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    result = cli("disconnect", "ws-001")
    assert (result.exit_code, result.stdout) == (0, "Disconnected: ws-001\n")
    again = cli("disconnect", "ws-001")
    assert again.exit_code == 3
    assert "ws-001 is not active: disconnected since" in again.stderr
    unknown = cli("disconnect", "nobody")
    assert unknown.exit_code == 3
    assert "no connection nobody" in unknown.stderr


def test_disconnect_as_json(cli) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    assert json.loads(cli("disconnect", "ws-001", "--json").stdout) == {
        "ws_id": "ws-001",
        "status": "disconnected",
    }


def test_list_piped_is_a_line_each(cli) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001", "--metadata", '{"ip": "10.0.0.1"}')
    cli("connect", "cipher", "--ws-id", "ws-002")
    cli("send", "ws-001", "1")
    first, second = (line.split("\t") for line in cli("list").stdout.splitlines())
    assert [first[0], first[1], first[2], *first[5:]] == [
        "ws-001",
        "octavia",
        "active",
        "1",
        "1",
        '{"ip":"10.0.0.1"}',
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", first[3])
    assert second[0] == "ws-002"


def test_list_as_json(cli) -> None:
    assert cli("list", "--json").stdout == "[]\n"
    cli("connect", "octavia", "--ws-id", "ws-001", "--metadata", '{"a":{"b":[1]}}')
    cli("connect", "octavia", "--ws-id", "ws-002")
    rows = json.loads(cli("list", "--json").stdout)
    assert [row["ws_id"] for row in rows] == ["ws-001", "ws-002"]
    assert rows[0]["metadata"] == {"a": {"b": [1]}}
    assert [json.loads(line) for line in cli("list", "-o", "ndjson").stdout.splitlines()] == rows
    assert cli("list", "-o", "id").stdout == "ws-001\nws-002\n"


def test_list_leaves_out_who_has_gone(cli) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    cli("disconnect", "ws-001")
    result = cli("list")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_heartbeat(cli, database: Path) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    result = cli("heartbeat", "ws-001", "--latency", "12.4")
    assert (result.exit_code, result.stdout) == (0, "Heartbeat updated for ws-001\n")
    assert json.loads(cli("heartbeat", "ws-001", "--json").stdout) == {"ws_id": "ws-001", "latency_ms": None}
    db = open_db(database)
    assert [row[0] for row in db.rows("SELECT latency_ms FROM heartbeat_log ORDER BY id")] == [12, None]
    db.close()
    assert cli("heartbeat", "nobody").exit_code == 3


@pytest.mark.parametrize("latency", ["-1", "nan", "inf", "soon"])
def test_heartbeat_with_a_latency_that_cannot_be(cli, latency: str) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    assert cli("heartbeat", "ws-001", "--latency", latency).exit_code == 2


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


def test_heartbeat_check_spares_those_of_a_gateway_that_ended_a_moment_ago(cli, database: Path) -> None:
    for ws_id in ("ws-001", "ws-002"):
        cli("connect", "octavia", "--ws-id", ws_id)
        make_old(database, ws_id)
    db = open_db(database)
    db.execute("UPDATE connections SET gateway = 'g' WHERE ws_id = 'ws-001'")
    Gateways(db).insert(Gateway("g", 1, "http://127.0.0.1:1", utc_now(), utc_now()))
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


def test_stats(cli) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    cli("connect", "cipher", "--ws-id", "ws-002")
    cli("disconnect", "ws-002")
    cli("send", "ws-001", "1")
    result = cli("stats")
    assert result.stdout == (
        '{\n  "active_connections": 1,\n  "total_ever_connected": 2,\n'
        '  "total_messages": 1,\n  "agents": {"octavia": 1}\n}\n'
    )


def test_connect_says_that_a_ws_id_was_another_agents(cli) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    result = cli("connect", "cipher", "--ws-id", "ws-001")
    assert result.stdout == "Connected: ws-001 (agent=cipher)\n"
    assert "belonged to octavia" in result.stderr
