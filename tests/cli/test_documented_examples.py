"""Every example of the documented CLI reference, run as it is written, in a shell."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import open_sql

pytestmark = pytest.mark.over_http

UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.fixture
def shell(environment: dict[str, str], tmp_path: Path):
    """Run a line in a shell that finds `ws-manager`, and return its stdout; it must succeed, silently."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"

    def run(line: str) -> str:
        ended = subprocess.run(
            line,
            shell=True,
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**environment, "PATH": path},
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout

    return run


CONNECT = """ws-manager connect octavia --ws-id ws-001 --metadata '{"ip":"10.0.0.1","region":"us-west"}'"""


def test_connect(shell) -> None:
    assert shell(CONNECT) == "Connected: ws-001 (agent=octavia)\n"
    (row,) = json.loads(shell("ws-manager list --json"))
    assert row["metadata"] == {"ip": "10.0.0.1", "region": "us-west"}
    assert re.fullmatch(rf"Connected: {UUID4} \(agent=cipher\)\n", shell("ws-manager connect cipher"))


def test_the_short_form(shell) -> None:
    assert shell("ws-manager connect octavia --ws-id ws-001") == "Connected: ws-001 (agent=octavia)\n"


def test_disconnect(shell) -> None:
    shell(CONNECT)
    assert shell("ws-manager disconnect ws-001") == "Disconnected: ws-001\n"


def test_list(shell) -> None:
    shell(CONNECT)
    assert shell("ws-manager list").startswith("ws-001\toctavia\t")


def test_broadcast(shell) -> None:
    shell(CONNECT)
    shell("ws-manager connect octavia --ws-id ws-002")
    shell("ws-manager connect cipher --ws-id ws-003")
    deploy = """ws-manager broadcast '{"event":"deploy","version":"2.1.0"}'"""
    assert shell(deploy).startswith("Broadcast to 3 connection(s)\n")
    alert = """ws-manager broadcast '{"event":"alert"}' --agent octavia"""
    assert shell(alert).startswith("Broadcast to 2 connection(s)\n")
    typed = """ws-manager broadcast '{"event":"alert"}' --agent octavia --type alert"""
    assert shell(typed).startswith("Broadcast to 2 connection(s)\n")


def test_send(shell) -> None:
    shell(CONNECT)
    told = shell("""ws-manager send ws-001 '{"ping":true}'""")
    assert re.fullmatch(f"Sent message {UUID4} to ws-001\n", told)


def test_heartbeat(shell) -> None:
    shell(CONNECT)
    assert shell("ws-manager heartbeat ws-001") == "Heartbeat updated for ws-001\n"
    assert shell("ws-manager heartbeat ws-001 --latency 12") == "Heartbeat updated for ws-001\n"


def test_heartbeat_check(shell, database: Path) -> None:
    for number in (1, 2, 3):
        shell(f"ws-manager connect octavia --ws-id ws-00{number}")
    db = open_sql(database)
    db.execute("UPDATE connections SET last_heartbeat = '2020-01-01' WHERE ws_id = 'ws-003'")
    db.close()
    assert shell("ws-manager heartbeat-check --timeout 600") == "Active: 2  Timed out: 1\n"
    assert shell("ws-manager heartbeat-check") == "Active: 2  Timed out: 0\n"


def test_history(shell) -> None:
    shell(CONNECT)
    shell("""ws-manager send ws-001 '{"ping":true}'""")
    assert shell("ws-manager history --ws-id ws-001 --limit 10").endswith('\t{"ping":true}\n')
    assert shell("ws-manager history").count("\n") == 1


def test_stats(shell) -> None:
    for agent, count in (("octavia", 2), ("cipher", 1)):
        for number in range(count):
            shell(f"ws-manager connect {agent} --ws-id {agent}-{number}")
    told = shell("ws-manager stats")
    assert list(json.loads(told))[:4] == [
        "active_connections",
        "total_ever_connected",
        "total_messages",
        "agents",
    ]
    assert told.startswith(
        '{\n  "active_connections": 3,\n  "total_ever_connected": 3,\n'
        '  "total_messages": 0,\n  "agents": {"cipher": 1, "octavia": 2},\n'
    )


def test_every_command_takes_db(shell, tmp_path: Path) -> None:
    db = tmp_path / "custom.db"
    shell(f"ws-manager --db {db} connect octavia --ws-id ws-001")
    shell("ws-manager connect octavia --ws-id elsewhere")
    assert shell(f"ws-manager list --db {db} -o id") == "ws-001\n"
    assert shell(f"ws-manager --db {db} broadcast 1").startswith("Broadcast to 1 connection(s)\n")
    for line in (
        "send ws-001 1",
        "heartbeat ws-001",
        "heartbeat-check",
        "history",
        "stats",
        "disconnect ws-001",
    ):
        shell(f"ws-manager {line} --db {db}")
    assert shell("ws-manager list -o id") == "elsewhere\n"
