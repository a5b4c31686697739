"""`list`."""

from __future__ import annotations

import json
import re

import pytest

pytestmark = pytest.mark.over_http


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


def test_list_by_conditions_in_an_order(cli) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001", "--metadata", '{"region":"us"}')
    cli("connect", "cipher", "--ws-id", "ws-002", "--metadata", '{"region":"eu"}')
    cli("connect", "octavia", "--ws-id", "ws-003")
    cli("send", "ws-003", "1")
    assert cli("list", "--where", "metadata.region~^(us|eu)$", "-o", "id").stdout == "ws-001\nws-002\n"
    assert cli("list", "--sort", "pending", "-o", "id").stdout == "ws-003\nws-001\nws-002\n"
    assert cli("list", "--sort", "agent", "--limit", "1", "-o", "id").stdout == "ws-002\n"
    assert cli("list", "--where", "agent=octavia", "--count").stdout == "2\n"
    assert cli("list", "--count", "--json").stdout == '{\n  "count": 3\n}\n'
    assert cli("list", "--where", "colour=red").exit_code == 2


@pytest.mark.no_ledger
def test_list_refuses_an_unknown_order_without_a_database_too(cli) -> None:
    assert cli("list", "--sort", "colour").exit_code == 2


def test_list_says_that_an_agent_is_unknown(cli) -> None:
    cli("connect", "octavia")
    result = cli("list", "--agent", "octvia")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "note: no agent octvia has ever connected\n"


@pytest.mark.on_the_file
def test_list_on_a_terminal_ends_with_what_is_stuck(terminal, cli) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    cli("send", "ws-001", "1")
    _code, shown = terminal("list", columns=200)
    assert re.search(r"\n1 pending \(the oldest \d+s ago\), 0 set aside; no gateway runs\n$", shown)
