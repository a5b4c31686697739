"""`disconnect`."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.over_http


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


def test_several(cli, connected) -> None:
    some = cli("disconnect", "ws-001", "nobody", "ws-002", "ws-001")
    assert (some.exit_code, some.stdout) == (5, "Disconnected: ws-001\nDisconnected: ws-002\n")
    assert "error: no connection nobody" in some.stderr
    assert cli("list", "-o", "id").stdout == "ws-003\n"


def test_none_of_several(cli, connected) -> None:
    none = cli("disconnect", "nobody", "nowhere")
    assert (none.exit_code, none.stdout, none.stderr.count("error: ")) == (3, "", 3)


def test_by_agent_and_by_condition(cli, connected) -> None:
    dry = cli("disconnect", "--agent", "octavia", "--dry-run", "-o", "id")
    assert (dry.exit_code, dry.stdout) == (0, "ws-001\nws-002\n")
    assert "dry run: 2 connection(s) would be disconnected" in dry.stderr
    assert cli("list", "--count").stdout == "3\n"
    done = cli("disconnect", "--where", "agent=cipher", "--reason", "maintenance", "--json")
    assert json.loads(done.stdout) == {"ws_id": "ws-003", "status": "disconnected"}
    assert "maintenance" in cli("show", "ws-003").stdout
    assert json.loads(cli("disconnect", "--agent", "octavia", "--json").stdout) == [
        {"ws_id": "ws-001", "status": "disconnected"},
        {"ws_id": "ws-002", "status": "disconnected"},
    ]
    unknown = cli("disconnect", "--agent", "octvia")
    assert (unknown.exit_code, unknown.stdout) == (0, "")
    assert "no agent octvia has ever connected" in unknown.stderr


@pytest.mark.parametrize("arguments", [(), ("ws-001", "--agent", "octavia"), ("--where", "colour=red")])
def test_usage(cli, connected, arguments: tuple[str, ...]) -> None:
    assert cli("disconnect", *arguments).exit_code == 2
    assert cli("list", "--count").stdout == "3\n"
