"""`prune`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.over_http


def test_prune(cli, one_message) -> None:
    cli("receive", "ws-001")
    told = cli("prune", "--older-than", "0s", "--dry-run")
    assert (told.exit_code, told.stdout.split(",")[0]) == (0, "Would delete: 1 message(s)")
    assert cli("prune", "--older-than", "30d").stdout.startswith("Deleted: 0 message(s)")
    row = json.loads(cli("prune", "--older-than", "0s", "--json").stdout)
    assert (row["messages"], row["connections"], row["dry_run"]) == (1, 0, False)
    assert json.loads(cli("stats").stdout)["total_messages"] == 0


@pytest.mark.sqlite_only("the size of its file")
@pytest.mark.on_the_file
def test_prune_gives_the_room_back(cli, connected, database: Path) -> None:
    for number in range(3):
        cli("send", "ws-001", "-", stdin=b"x" * 200_000 + b"%d" % number)
    cli("receive", "ws-001")
    size = database.stat().st_size
    assert cli("prune", "--older-than", "0s", "--vacuum").exit_code == 0
    assert database.stat().st_size < size / 2


def test_a_gateway_does_not_shrink_its_file(way, cli, one_message) -> None:
    refused = cli("prune", "--older-than", "0s", "--vacuum")
    assert refused.exit_code == (0 if way[0] == "--db" else 2)


@pytest.mark.parametrize(
    "arguments", [(), ("--older-than", "-1d"), ("--older-than", "0s", "--dry-run", "--vacuum")]
)
def test_prune_that_is_wrong_deletes_nothing(cli, one_message, arguments: tuple[str, ...]) -> None:
    cli("receive", "ws-001")
    assert cli("prune", *arguments).exit_code == 2
    assert json.loads(cli("stats").stdout)["total_messages"] == 1


def test_prune_asks_for_the_unit(cli) -> None:
    result = cli("prune", "--older-than", "30")
    assert (result.exit_code, "30 of what?" in result.stderr) == (2, True)
