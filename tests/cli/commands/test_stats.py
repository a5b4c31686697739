"""`stats`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.processes import command, gateway

pytestmark = pytest.mark.over_http


@pytest.mark.on_the_file
def test_stats(cli) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    cli("connect", "cipher", "--ws-id", "ws-002")
    cli("disconnect", "ws-002")
    cli("send", "ws-001", "1")
    result = cli("stats")
    assert result.stdout == (
        '{\n  "active_connections": 1,\n  "total_ever_connected": 2,\n'
        '  "total_messages": 1,\n  "agents": {"octavia": 1},\n'
        f'  "pending": 1,\n  "set_aside": 0,\n  "unrouted": 0,\n  "oldest_pending_at": "{_sent_at(cli)}",\n'
        '  "gateway": null\n}\n'
    )


def test_stats_name_the_gateway_that_runs(database: Path) -> None:
    with gateway(database) as (program, url):
        counts = json.loads(command(database, "stats").stdout)
        assert counts["gateway"] == {"url": url, "pid": program.process.pid}
        # One that is killed has a lease on PostgreSQL for a while.
        assert program.end() == 0
    assert json.loads(command(database, "stats").stdout)["gateway"] is None


def _sent_at(cli) -> str:
    return str(json.loads(cli("history", "--json").stdout)[0]["sent_at"])
