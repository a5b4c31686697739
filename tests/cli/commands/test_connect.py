"""`connect`."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from ws_manager.core.locations import exists
from ws_manager.models import Connection

pytestmark = pytest.mark.over_http

UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


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


@pytest.mark.no_ledger
@pytest.mark.parametrize("metadata", ["{", "[1]", "1", '"text"', '{"a":NaN}', "[" * 100_000])
@pytest.mark.on_the_file
def test_connect_with_metadata_that_is_no_object_changes_nothing(cli, database: Path, metadata: str) -> None:
    result = cli("connect", "octavia", "--metadata", metadata)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "metadata" in result.stderr
    assert not exists(database)


@pytest.mark.parametrize("agent", ["", " ", "a\tb", "x" * 129])
def test_connect_with_a_name_that_cannot_be(cli, agent: str) -> None:
    assert cli("connect", agent).exit_code == 2
    assert cli("stats", "-o", "ndjson").stdout.startswith('{"active_connections":0,')


def test_connect_says_that_a_ws_id_was_another_agents(cli) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    result = cli("connect", "cipher", "--ws-id", "ws-001")
    assert result.stdout == "Connected: ws-001 (agent=cipher)\n"
    assert "belonged to octavia" in result.stderr
