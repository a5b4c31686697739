"""`broadcasts`, and what is said of one."""

from __future__ import annotations

import json
import re

import pytest

from ws_manager.forms import BROADCAST_FIELDS

pytestmark = pytest.mark.over_http


def test_lists_each_with_its_outcome_newest_first(cli, connected) -> None:
    first = cli("broadcast", "1", "-o", "id").stdout.strip()
    second = cli("broadcast", "2", "--agent", "cipher", "--type", "note", "-o", "id").stdout.strip()
    cli("receive", "ws-003", "--count", "1")
    rows = json.loads(cli("broadcasts", "--json").stdout)
    assert [tuple(row) for row in rows] == [BROADCAST_FIELDS] * 2
    assert [(row["broadcast_id"], row["recipients"], row["confirmed"], row["pending"]) for row in rows] == [
        (second, 1, 0, 1),
        (first, 3, 1, 2),
    ]
    assert cli("broadcasts", "--limit", "1", "--fields", "msg_type,pending").stdout == "note\t1\n"
    assert cli("broadcasts", "-o", "id").stdout == f"{second}\n{first}\n"


def test_none(cli, connected) -> None:
    assert cli("broadcasts", "--json").stdout == "[]\n"


def test_broadcast_prints_its_id(cli, connected) -> None:
    line, name = cli("broadcast", "1").stdout.splitlines()
    assert line == "Broadcast to 3 connection(s)"
    assert name == "broadcast_id: " + cli("broadcasts", "-o", "id").stdout.strip()


def test_table(terminal, connected) -> None:
    terminal("broadcast", "1")
    code, shown = terminal("broadcasts", columns=200)
    assert code == 0
    header = re.sub("\x1b\\[[0-9;]*m", "", shown.splitlines()[0]).split()
    assert header == [
        "broadcast_id",
        "sent_at",
        "recipients",
        "confirmed",
        "pending",
        "set_aside",
        "msg_type",
    ]
