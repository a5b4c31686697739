"""`heartbeat`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import open_sql

pytestmark = pytest.mark.over_http


def test_heartbeat(cli, database: Path) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    result = cli("heartbeat", "ws-001", "--latency", "12.4")
    assert (result.exit_code, result.stdout) == (0, "Heartbeat updated for ws-001\n")
    assert json.loads(cli("heartbeat", "ws-001", "--json").stdout) == {"ws_id": "ws-001", "latency_ms": None}
    db = open_sql(database)
    assert [row[0] for row in db.rows("SELECT latency_ms FROM heartbeat_log ORDER BY id")] == [12, None]
    db.close()
    assert cli("heartbeat", "nobody").exit_code == 3


@pytest.mark.parametrize("latency", ["-1", "nan", "inf", "soon"])
def test_heartbeat_with_a_latency_that_cannot_be(cli, latency: str) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    assert cli("heartbeat", "ws-001", "--latency", latency).exit_code == 2
