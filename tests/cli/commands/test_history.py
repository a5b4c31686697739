"""history: what can be asked, and what comes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import open_sql
from ws_manager.core.ledger import Ledger, ledger_over

pytestmark = pytest.mark.over_http

COMMAND = [sys.executable, "-m", "ws_manager", "history"]


@pytest.fixture
def ledger(database: Path) -> Iterator[Ledger]:
    """Three messages: two to octavia's ws-001, one of them old, and one to cipher's ws-002."""
    db = open_sql(database)
    ledger = ledger_over(db)
    ledger.connect("octavia", "ws-001")
    ledger.connect("cipher", "ws-002")
    ledger.send("ws-001", {"event": "deploy"}, "note")
    ledger.send("ws-002", "100%", sender_id="ws-001")
    ledger.send("ws-001", 3)
    db.execute("UPDATE messages SET sent_at = '2020-01-01T00:00:00.000000+00:00' WHERE id = 1")
    yield ledger
    db.close()


@contextmanager
def following(environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Follow in a process of its own, until the block ends."""
    with subprocess.Popen(
        [*COMMAND, "--follow", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def line_of(started: subprocess.Popen[bytes]) -> bytes:
    assert started.stdout is not None
    return started.stdout.readline()


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        ([], [3, 2, 1]),
        (["--ws-id", "ws-002"], [2]),
        (["--agent", "octavia"], [3, 2, 1]),
        (["--agent", "cipher"], [2]),
        (["--type", "note"], [1]),
        (["--pending"], [3, 2, 1]),
        (["--set-aside"], []),
        (["--since", "2h"], [3, 2]),
        (["--before", "2h"], [1]),
        (["--before", "2020-01-01T00:00:00Z"], []),
        (["--before", "2020-01-01T02:00:00.5+01:00"], [1]),
        (["--since", "2020-01-01"], [3, 2, 1]),
        (["--search", "DEPLOY"], [1]),
        (["--search", "%"], [2]),
        (["--search", "_"], []),
        (["--ws-id", "ws-001", "--type", "data", "--limit", "1"], [3]),
    ],
)
def test_what_can_be_asked(cli, ledger: Ledger, arguments: list[str], ids: list[int]) -> None:
    result = cli("history", *arguments, "--json")
    assert result.exit_code == 0
    assert [row["seq"] for row in json.loads(result.stdout)] == ids


def test_of_one_broadcast(cli, ledger: Ledger) -> None:
    broadcast_id = cli("broadcast", "1", "-o", "id").stdout.strip()
    found = cli("history", "--broadcast", broadcast_id, "--fields", "recipient_id").stdout.split()
    assert sorted(found) == ["ws-001", "ws-002"]
    assert cli("history", "--broadcast", "none").exit_code == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["--since", "soon"],
        ["--before", "2020-13-01T00:00:00Z"],
        ["--since", "-5"],
        ["--search", ""],
        ["--ws-id", "ws-001", "--agent", "octavia"],
        ["--limit", "-1"],
        ["--follow", "--limit", "-1"],
        ["--follow", "--pending"],
        ["--follow", "--before", "2h"],
        ["--follow", "--broadcast", "x"],
        ["--follow", "--fields", "nothing"],
    ],
)
def test_what_cannot_be_asked(cli, ledger: Ledger, arguments: list[str]) -> None:
    result = cli("history", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(r"error: .+\nhint: .+\n", result.stderr)


def test_follow_prints_json_as_it_comes(environment, ledger: Ledger) -> None:
    with following(environment, "--since", "2h") as started:
        assert [json.loads(line_of(started))["content"] for _ in range(2)] == ["100%", 3]
        ledger.send("ws-002", {"text": "wést"})
        row = json.loads(line_of(started))
    assert (row["content"], row["recipient_id"], row["delivered"]) == ({"text": "wést"}, "ws-002", False)


def test_follow_ends_after_the_limit(process, ledger: Ledger) -> None:
    ended = process("history", "--follow", "--since", "2019-01-01", "--limit", "2", "-o", "tsv")
    assert ended.returncode == 0
    assert [line.split(b"\t")[0] for line in ended.stdout.splitlines()] == [b"1", b"2"]
    assert process("history", "--follow", "--limit", "0").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (["-o", "csv", "--fields", "seq,content"], b"seq,content"),
        (["-o", "csv", "--fields", "seq,content", "--no-headers"], b'1,"{""event"":""deploy""}"'),
        (["-o", "tsv", "--fields", "seq,sent_at", "--time", "unix"], b"1\t1577836800.0"),
        (["--fields", "seq"], b'{"seq":1}'),
        (["-o", "table"], b'2020-01-01 00:00:00Z #1 to ws-001 note  {"event":"deploy"}'),
    ],
)
def test_follow_in_other_formats(process, ledger: Ledger, arguments: list[str], first: bytes) -> None:
    ended = process("history", "--follow", "--since", "2019-01-01", "--limit", "1", *arguments)
    assert ended.stdout.splitlines()[0] == first


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_following(environment, ledger: Ledger, number: signal.Signals, code: int) -> None:
    with following(environment, "--since", "2h", "--ws-id", "ws-002") as started:
        assert line_of(started)
        started.send_signal(number)
        output, errors = started.communicate(timeout=60)
    assert (started.returncode, output, errors) == (code, b"", b"")


@pytest.mark.skipif(not hasattr(os, "pipe2"), reason="no poll() that tells of a pipe without a reader")
def test_a_reader_that_has_gone_ends_the_following_at_once(environment, ledger: Ledger) -> None:
    with following(environment, "--since", "2h") as started:
        assert line_of(started)
        assert started.stdout is not None
        assert started.stderr is not None
        started.stdout.close()
        assert started.stderr.read() == b""
        assert started.wait(60) == 141


def test_follow_on_a_terminal(terminal, ledger: Ledger) -> None:
    ledger.send("ws-001", "esc \x1b[31m [bold] \u202e")
    code, seen = terminal("history", "--follow", "--since", "2h", "--limit", "3")
    assert code == 0
    assert seen.splitlines()[-1].endswith(r'#4 to ws-001 data  "esc \u001b[31m [bold] \u202e"')


def test_there_is_nothing_to_follow(process, tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    ended = process("--db", str(path), "history", "--follow")
    assert ended.returncode == 1
    assert b"there is nothing to follow" in ended.stderr
    assert not path.exists()


def test_since_and_before_take_what_time_unix_prints(cli, ledger: Ledger) -> None:
    printed = cli("history", "--fields", "msg_id,sent_at", "--time", "unix").stdout.splitlines()
    for line in printed:
        msg_id, sent_at = line.split("\t")
        assert cli("history", "--since", sent_at, "-o", "id").stdout.splitlines()[-1] == msg_id
        assert msg_id not in cli("history", "--before", sent_at, "-o", "id").stdout.split()
    assert len(printed) == 3


def contents(cli) -> list[object]:
    return [row["content"] for row in json.loads(cli("history", "--json").stdout)]


def test_history(cli, connected) -> None:
    for number in range(3):
        cli("send", f"ws-00{number + 1}", str(number))
    assert contents(cli) == [2, 1, 0]
    assert [row["content"] for row in json.loads(cli("history", "--ws-id", "ws-002", "--json").stdout)] == [1]
    assert len(cli("history", "--limit", "2", "-o", "id").stdout.splitlines()) == 2
    line = cli("history", "--limit", "1").stdout.rstrip("\n").split("\t")
    assert [line[3], line[5], line[6], line[-1]] == ["data", "ws-003", "0", "2"]
    assert cli("history", "--limit", "-1").exit_code == 2
    assert cli("history", "--limit", "0").stdout == ""


def test_history_nests_content_as_it_was_sent(cli, connected) -> None:
    cli("send", "ws-001", '{"big": 12345678901234567890123, "text": "wést", "half": 1.50}')
    assert '"content":{"big":12345678901234567890123,"text":"wést",' in cli("history", "-o", "ndjson").stdout
