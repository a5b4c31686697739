"""`wait`, and what a `--wait` says that has run out."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from ws_manager.core.ledger import open_ledger

pytestmark = pytest.mark.over_http


def test_for_a_message_that_is_confirmed(cli, connected) -> None:
    msg_id = cli("send", "ws-001", "1", "-o", "id").stdout.strip()
    cli("receive", "ws-001")
    done = cli("wait", msg_id[-8:], "--timeout", "0")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "confirmed 1 of 1\n")


def test_for_a_broadcast_ends_with_its_last_confirmation(cli, process, connected, database: Path) -> None:
    broadcast_id = cli("broadcast", "1", "--agent", "octavia", "-o", "id").stdout.strip()
    cli("receive", "ws-001")
    waiting = threading.Thread(target=lambda: ended.append(process("wait", broadcast_id, "--timeout", "1m")))
    ended: list[Any] = []
    waiting.start()
    cli("receive", "ws-002")
    waiting.join(60)
    assert (ended[0].returncode, ended[0].stderr.splitlines()[-1]) == (0, b"confirmed 2 of 2")


@pytest.mark.on_the_file
def test_that_runs_out_says_who_has_not_confirmed_and_why(cli, connected) -> None:
    broadcast_id = cli("broadcast", "1", "-o", "id").stdout.strip()
    cli("receive", "ws-001")
    cli("disconnect", "ws-003")
    late = cli("wait", broadcast_id, "--timeout", "0")
    lines = late.stderr.splitlines()
    assert late.exit_code == 5
    assert lines[0].startswith("note: no gateway runs for this ledger")
    assert lines[1].startswith("ws-002  ")
    assert "registered by a command" in lines[1]
    assert "ws-003 is disconnected" in lines[2]
    assert lines[3] == "error: confirmed 1 of 3: 2 pending"
    told = json.loads(cli("wait", broadcast_id, "--timeout", "0", "--json").stdout)
    assert (told["broadcast_id"], told["confirmed"], told["pending"]) == (broadcast_id, 1, 2)
    assert [one["ws_id"] for one in told["unconfirmed"]] == ["ws-002", "ws-003"]


@pytest.mark.parametrize("command", [("send", "ws-001", "1"), ("broadcast", "1", "--agent", "cipher")])
@pytest.mark.on_the_file
def test_of_what_is_sent_says_the_same(cli, connected, command: tuple[str, ...]) -> None:
    late = cli(*command, "--wait", "0")
    assert late.exit_code == 5
    assert late.stderr.startswith("note: no gateway runs for this ledger")
    assert "registered by a command: `receive` takes what is pending" in late.stderr
    told = json.loads(cli(*command, "--wait", "0", "--json").stdout)
    assert len(told["unconfirmed"]) == told["pending"] == 1


def test_with_set_aside_messages_says_their_reason(cli, connected, database: Path) -> None:
    msg_id = cli("send", "ws-001", "1", "-o", "id").stdout.strip()
    with open_ledger(database) as ledger:
        ledger.connect("cipher", "ws-001")
    late = cli("wait", msg_id, "--timeout", "1m")
    assert (late.exit_code, "set aside: agent changed" in late.stderr) == (5, True)


@pytest.mark.parametrize(("identifier", "code"), [("nothing", 3), ("ws-001", 2)])
def test_for_what_is_not_sent(cli, connected, identifier: str, code: int) -> None:
    assert cli("wait", identifier).exit_code == code
