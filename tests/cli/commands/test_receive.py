"""`receive`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import open_sql
from ws_manager import get_message_history
from ws_manager.core.ledger import ledger_over
from ws_manager.forms import WIRE_FIELDS

pytestmark = pytest.mark.over_http


def test_receive(cli, connected) -> None:
    cli("send", "ws-001", '{"n": 1, "text": "wést"}')
    cli("broadcast", "2")
    result = cli("receive", "ws-001")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.exit_code, result.stderr) == (0, "")
    assert [list(line) for line in lines] == [list(WIRE_FIELDS)] * 2
    assert [line["content"] for line in lines] == [{"n": 1, "text": "wést"}, 2]
    assert lines[0]["seq"] < lines[1]["seq"]
    assert "wést" in result.stdout
    again = cli("receive", "ws-001")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "")
    rows = json.loads(cli("history", "--json").stdout)
    assert [row["recipient_id"] for row in rows if row["delivered"]] == ["ws-001", "ws-001"]


def test_receive_more_than_a_batch_in_order(cli, connected, database: Path) -> None:
    db = open_sql(database)
    ledger = ledger_over(db)
    for number in range(250):
        ledger.send("ws-001", number)
    db.close()
    lines = cli("receive", "ws-001").stdout.splitlines()
    assert [json.loads(line)["content"] for line in lines] == list(range(250))


def test_receive_for_a_connection_that_has_gone(cli, connected) -> None:
    cli("send", "ws-001", "1")
    cli("disconnect", "ws-001")
    assert json.loads(cli("receive", "ws-001").stdout)["content"] == 1
    assert cli("receive", "nobody").exit_code == 3


def test_receive_for_a_connection_that_another_holds(cli, connected, database: Path) -> None:
    cli("send", "ws-001", "1")
    db = open_sql(database)
    with ledger_over(db).delivery.holding("ws-001"):
        result = cli("receive", "ws-001")
    db.close()
    assert (result.exit_code, result.stdout) == (6, "")
    assert json.loads(cli("receive", "ws-001").stdout)["content"] == 1


def test_receive_in_other_formats(cli, connected) -> None:
    cli("send", "ws-001", '{"a":1}')
    refused = cli("receive", "ws-001", "-o", "id")
    assert (refused.exit_code, refused.stdout) == (2, "")
    header, row = cli("receive", "ws-001", "-o", "csv").stdout.splitlines()
    assert header == ",".join(WIRE_FIELDS)
    assert row.endswith(',"{""a"":1}"')
    cli("send", "ws-001", '{"a":1}')
    assert cli("receive", "ws-001", "-o", "tsv").stdout.rstrip("\n").split("\t")[-1] == '{"a":1}'


def test_what_a_closed_pipe_did_not_take_stays_pending(process, environment, database: Path) -> None:
    process("connect", "octavia", "--ws-id", "ws-001")
    db = open_sql(database)
    # More than a pipe holds: the reader goes away while the command is writing.
    ledger = ledger_over(db)
    for number in range(5):
        ledger.send("ws-001", {"number": number, "fill": "x" * 100_000})
    with subprocess.Popen(
        [sys.executable, "-m", "ws_manager", "receive", "ws-001"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        assert json.loads(started.stdout.readline())["content"]["number"] == 0
        started.stdout.close()
        assert started.stderr.read() == b""
    assert started.returncode == 141
    delivered = [row["delivered"] for row in reversed(get_message_history(ledger))]
    db.close()
    assert delivered[0] == 1
    assert delivered[-1] == 0
    assert delivered == sorted(delivered, reverse=True)


def test_a_pipe_that_is_closed_from_the_start_confirms_nothing(process, environment, database: Path) -> None:
    process("connect", "octavia", "--ws-id", "ws-001")
    process("send", "ws-001", "1")
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "ws_manager", "receive", "ws-001"],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
        env=environment,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, b"")
    assert json.loads(process("receive", "ws-001").stdout)["content"] == 1
