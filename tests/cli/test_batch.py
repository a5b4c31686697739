"""send --batch and broadcast --batch: a message a line, an answer a line."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.processes import COMMAND, PATIENCE, running
from tests.support import open_sql
from ws_manager.cli.process.line_reader import LONGEST
from ws_manager.core import batch as core_batch
from ws_manager.core.ledger import ledger_over
from ws_manager.errors import LedgerError

pytestmark = pytest.mark.over_http


@pytest.fixture
def connected(cli) -> None:
    """ws-001 is octavia's, ws-002 cipher's."""
    cli("connect", "octavia", "--ws-id", "ws-001")
    cli("connect", "cipher", "--ws-id", "ws-002")


@pytest.fixture
def lines(tmp_path: Path):
    """Write lines to a file and return its name."""

    def write(*some: str) -> str:
        path = tmp_path / "lines.ndjson"
        path.write_bytes("\n".join(some).encode("utf-8", "surrogateescape"))
        return str(path)

    return write


def answers(result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def sent(cli) -> list[tuple[str, str, object]]:
    rows = json.loads(cli("history", "--limit", "1000", "--json").stdout)
    return [(row["recipient_id"], row["msg_type"], row["content"]) for row in reversed(rows)]


def test_a_message_a_line_to_one_connection(cli, connected, lines) -> None:
    result = cli("send", "ws-001", "--batch", lines("1", '"two"', '{"n": 3}'), "--type", "note")
    assert (result.exit_code, result.stderr) == (0, "")
    assert [(a["line"], a["ok"]) for a in answers(result)] == [(1, True), (2, True), (3, True)]
    assert sent(cli) == [("ws-001", "note", 1), ("ws-001", "note", "two"), ("ws-001", "note", {"n": 3})]
    ids = cli("history", "-o", "id").stdout.split()
    assert [a["msg_id"] for a in answers(result)] == ids[::-1]


def test_lines_that_name_their_recipient(cli, connected, lines) -> None:
    result = cli(
        "send", "--batch", lines('{"to":"ws-002","content":1,"type":"x"}', '{"content":null,"to":"ws-001"}')
    )
    assert result.exit_code == 0
    assert sent(cli) == [("ws-002", "x", 1), ("ws-001", "data", None)]


def test_message_counts(cli, connected, lines) -> None:
    cli("send", "--batch", lines('{"to":"ws-002","content":1}', '{"to":"ws-002","content":2}'))
    cli("broadcast", "--batch", lines("1", "2", "3"))
    counts = {row["ws_id"]: row["message_count"] for row in json.loads(cli("list", "--json").stdout)}
    assert counts == {"ws-001": 3, "ws-002": 5}


def test_a_broadcast_a_line(cli, connected, lines) -> None:
    result = cli("broadcast", "--batch", lines("1", "2"))
    assert [(a["line"], a["ok"], a["recipients"]) for a in answers(result)] == [(1, True, 2), (2, True, 2)]
    assert len({a["broadcast_id"] for a in answers(result)}) == 2
    assert sent(cli) == [(ws_id, "broadcast", n) for n in (1, 2) for ws_id in ("ws-001", "ws-002")]


def test_a_broadcast_a_line_to_one_agent(cli, connected, lines) -> None:
    result = cli("broadcast", "--batch", lines("1"), "--agent", "cipher")
    assert answers(result)[0]["recipients"] == 1
    assert sent(cli) == [("ws-002", "broadcast", 1)]


def test_a_broadcast_to_nobody_is_answered(cli, db, lines) -> None:
    assert answers(cli("broadcast", "--batch", lines("1")))[0]["recipients"] == 0


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ("nope", "invalid"),
        ("NaN", "invalid"),
        ('"\\ud800"', "invalid"),
        ("[" * 100_000, "invalid"),
        (json.dumps("x" * 300_000), "invalid"),
        ('"' + "x" * LONGEST + '"', "invalid"),
        ("\udcff", "invalid"),
    ],
    ids=["no JSON", "NaN", "surrogate", "deep", "large", "long", "not UTF-8"],
)
def test_a_bad_line_is_reported_and_the_rest_goes_on(cli, connected, lines, bad: str, code: str) -> None:
    result = cli("send", "ws-001", "--batch", lines("1", bad, "3"))
    assert result.exit_code == 5
    assert [(a["line"], a["ok"]) for a in answers(result)] == [(1, True), (2, False), (3, True)]
    error = answers(result)[1]["error"]
    assert error["code"] == code
    assert error["message"]
    assert error["hint"]
    assert [content for _, _, content in sent(cli)] == [1, 3]
    assert "1 of 3 line(s) were not sent" in result.stderr


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('{"to":"nobody","content":1}', "not_found"),
        ('{"to":"ws-001"}', "invalid"),
        ('{"to":"ws-001","content":1,"typ":"x"}', "invalid"),
        ('{"to":7,"content":1}', "invalid"),
        ('{"to":"\\ud800","content":1}', "invalid"),
        ('{"to":"ws-001","content":1,"type":""}', "invalid"),
        ('{"to":"ws-001","content":1,"traceparent":"nonsense"}', "invalid"),
        ('{"to":"ws-001","content":1,"traceparent":7}', "invalid"),
        ("[]", "invalid"),
    ],
)
def test_a_line_that_cannot_be_addressed(cli, connected, lines, line: str, code: str) -> None:
    result = cli("send", "--batch", lines(line, '{"to":"ws-001","content":1}'))
    assert (result.exit_code, answers(result)[0]["error"]["code"]) == (5, code)
    assert sent(cli) == [("ws-001", "data", 1)]


def test_one_connection_that_is_not_there_answers_each_line(cli, connected, lines) -> None:
    cli("disconnect", "ws-001")
    result = cli("send", "ws-001", "--batch", lines("1", "2"))
    assert (result.exit_code, [a["ok"] for a in answers(result)]) == (5, [False, False])
    assert "is not active" in answers(result)[0]["error"]["message"]


def test_blank_lines_ends_of_line_and_a_byte_order_mark(cli, connected, lines) -> None:
    result = cli("send", "ws-001", "--batch", lines("\ufeff1\r", "", "  ", "2\r", ""))
    assert (result.exit_code, [a["line"] for a in answers(result)]) == (0, [1, 4])
    assert [content for _, _, content in sent(cli)] == [1, 2]


def test_an_empty_file(cli, connected, lines) -> None:
    result = cli("send", "ws-001", "--batch", lines())
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("send", "ws-001", "1", "--batch", "FILE"),
        ("send", "ws-001", "--batch", "FILE", "--wait", "5s"),
        ("broadcast", "1", "--batch", "FILE"),
        ("send", "ws-001", "--batch", "FILE", "-o", "csv"),
        ("send", "ws-001", "--batch", "FILE", "--type", ""),
        ("send", "ws-001", "--batch", "no such file"),
        ("send", "ws-001", "--batch", "/"),
    ],
)
def test_what_does_not_go_with_it_sends_nothing(cli, connected, lines, arguments: tuple[str, ...]) -> None:
    name = lines("1")
    result = cli(*(name if argument == "FILE" else argument for argument in arguments))
    assert (result.exit_code, result.stdout) == (2, "")
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["error", "hint"]
    assert sent(cli) == []


def test_a_producer_that_waits_for_its_answers_gets_them(cli, connected, database: Path) -> None:
    arguments = [*COMMAND, "--db", str(database), "send", "ws-001", "--batch", "-"]
    with running(*arguments, stdin=subprocess.PIPE) as program:
        stdin = program.process.stdin
        for number in (1, 2, 3):
            stdin.write(f"{number}\n")
            stdin.flush()
            assert json.loads(program.line())["line"] == number
            # Committed before it was answered.
            assert [content for _, _, content in sent(cli)] == list(range(1, number + 1))
        stdin.close()
        assert program.wait() == 0


def test_half_a_line_is_not_sent_before_its_end_comes(cli, connected, database: Path) -> None:
    arguments = [*COMMAND, "--db", str(database), "send", "ws-001", "--batch", "-"]
    with running(*arguments, stdin=subprocess.PIPE) as program:
        stdin = program.process.stdin
        stdin.write("1\n[2")
        stdin.flush()
        assert json.loads(program.line())["line"] == 1
        stdin.write(",3]\n")
        stdin.flush()
        assert json.loads(program.line())["ok"]
        stdin.close()
        assert program.wait() == 0
    assert [content for _, _, content in sent(cli)] == [1, [2, 3]]


def test_fifty_thousand_lines_and_a_bad_one_in_one_process(process, connected, database: Path) -> None:
    body = [b'{"n":%d}' % number for number in range(50_000)]
    body[25_000] = b"{"
    ended = process("send", "ws-001", "--batch", "-", stdin=b"\n".join(body))
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    assert (ended.returncode, len(told)) == (5, 50_000)
    assert [answer["line"] for answer in told if not answer["ok"]] == [25_001]
    db = open_sql(database)
    stored = [row[0] for row in db.rows("SELECT msg_id FROM messages ORDER BY id")]
    assert db.value("SELECT message_count FROM connections WHERE ws_id = 'ws-001'") == 49_999
    db.close()
    assert stored == [answer["msg_id"] for answer in told if answer["ok"]]


@pytest.mark.sqlite_only("an error of a damaged file")
@pytest.mark.on_the_file
def test_a_ledger_error_in_the_middle_leaves_what_was_answered(process, connected, database: Path) -> None:
    db = sqlite3.connect(database)
    db.execute(
        "CREATE TRIGGER broken BEFORE INSERT ON messages WHEN new.content = '12000'"
        " BEGIN SELECT raise(ABORT, 'database disk image is malformed'); END"
    )
    db.close()
    ended = process("send", "ws-001", "--batch", "-", stdin=b"\n".join(b"%d" % n for n in range(20_000)))
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.returncode == 1
    db = open_sql(database)
    stored = [row[0] for row in db.rows("SELECT msg_id FROM messages ORDER BY id")]
    db.close()
    assert stored == [answer["msg_id"] for answer in told]
    assert 0 < len(stored) < 12_000


def test_a_reader_that_goes_away_ends_it_quietly(connected, environment, database: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "ws_manager", "send", "ws-001", "--batch", "-"],
        input=b"1\n",
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
        timeout=PATIENCE,
        env=environment,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_broadcasts_to_many_are_several_transactions(db, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = ledger_over(db)
    for number in range(3):
        ledger.connect("octavia", f"ws-{number}")
    monkeypatch.setattr(core_batch, "MOST_ROWS", 6)
    bulk = ledger.batch
    requests = [bulk.message(number, "broadcast") for number in range(5)]
    assert [len(bulk.broadcast(requests[done:])) for done in (0, 2, 4)] == [2, 2, 1]
    assert ledger.stats()["total_messages"] == 15


def test_answers_of_several_transactions_come_in_order(
    cli, connected, lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_batch, "MOST_ROWS", 4)
    result = cli("broadcast", "--batch", lines("1", "x", "2", "y", "3", "4", "5", "z"))
    assert [(a["line"], a["ok"]) for a in answers(result)] == [
        (number, number not in (2, 4, 8)) for number in range(1, 9)
    ]


@pytest.mark.sqlite_only("the greatest size of a file")
def test_a_bulk_that_the_file_cannot_take_leaves_nothing(db) -> None:
    ledger = ledger_over(db)
    ledger.connect("octavia", "ws-001")
    db.execute("PRAGMA max_page_count = 40")
    with pytest.raises(LedgerError, match="full"):
        bulk = ledger.batch
        bulk.send([bulk.message("x" * 200_000, "data", "ws-001")] * 5)
    assert ledger.stats()["total_messages"] == 0
    assert ledger.find("ws-001").message_count == 0


def test_a_line_has_its_own_trace_or_that_of_the_command(cli, connected, lines) -> None:
    own, its = (f"00-{'a' * 32}-{digit * 16}-01" for digit in "12")
    first = json.dumps({"to": "ws-001", "content": 1, "traceparent": own})
    result = cli("send", "--traceparent", its, "--batch", lines(first, '{"to":"ws-001","content":2}'))
    assert result.exit_code == 0
    cli("send", "ws-001", "--traceparent", its, "--batch", lines("3"))
    cli("broadcast", "--agent", "cipher", "--traceparent", own, "--batch", lines("4"))
    cli("send", "--batch", lines('{"to":"ws-001","content":5,"traceparent":null}'))
    rows = json.loads(cli("history", "--json").stdout)[::-1]
    assert [(row["content"], row["traceparent"]) for row in rows] == [
        (1, own),
        (2, its),
        (3, its),
        (4, own),
        (5, None),
    ]
