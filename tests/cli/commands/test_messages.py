"""send, broadcast, receive, history."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ws_manager import ConnectionPool, get_db, get_message_history
from ws_manager.core.ledger import Ledger, ledger_over

UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.fixture
def connected(cli) -> None:
    """ws-001 and ws-002 are octavia's, ws-003 is cipher's."""
    for ws_id, agent in (("ws-001", "octavia"), ("ws-002", "octavia"), ("ws-003", "cipher")):
        cli("connect", agent, "--ws-id", ws_id)


def contents(cli) -> list[object]:
    return [row["content"] for row in json.loads(cli("history", "--json").stdout)]


@contextmanager
def receiving(database: Path, *ws_ids: str) -> Iterator[None]:
    """Be another process's agent: confirm what arrives for these, until the block ends."""
    ended = threading.Event()

    def run() -> None:
        db = get_db(database)
        pool = ConnectionPool(db)
        for ws_id in ws_ids:
            pool.attach(ws_id, lambda _message: None)
        while not ended.wait(0.01):
            pool.deliver_pending()
        for ws_id in ws_ids:
            pool.detach(ws_id)
        db.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_send(cli, connected) -> None:
    result = cli("send", "ws-001", '{"ping":true}')
    assert re.fullmatch(f"Sent message {UUID4} to ws-001\n", result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    row = json.loads(cli("history", "--json").stdout)[0]
    assert (row["content"], row["msg_type"], row["delivered"]) == ({"ping": True}, "data", False)
    cli("send", "ws-001", "1", "--type", "note")
    assert json.loads(cli("history", "--json").stdout)[0]["msg_type"] == "note"


def test_send_in_other_formats(cli, connected) -> None:
    sent = json.loads(cli("send", "ws-001", "1", "--json").stdout)
    assert list(sent) == ["msg_id", "ws_id"]
    assert sent["ws_id"] == "ws-001"
    assert re.fullmatch(f"{UUID4}\n", cli("send", "ws-001", "1", "-o", "id").stdout)
    assert re.fullmatch(f"{UUID4}\tws-001\n", cli("send", "ws-001", "1", "-o", "tsv").stdout)
    assert cli("send", "ws-001", "1", "-o", "csv").stdout.startswith("msg_id,ws_id\n")


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ('{"a": [1, null]}', {"a": [1, None]}),
        ("null", None),
        ('"text"', "text"),
        ("hello [bold] [/x]", "hello [bold] [/x]"),
        ("", ""),
        ("{'a': 1}", "{'a': 1}"),
        ("héllo \u202e", "héllo \u202e"),
    ],
)
def test_a_message_is_json_if_it_parses(cli, connected, text: str, content: object) -> None:
    assert cli("send", "ws-001", text).exit_code == 0
    assert contents(cli) == [content]


@pytest.mark.parametrize("text", ["[" * 100_000, "1e999", "NaN", '{"a":NaN}', '"' + "x" * 262_143 + '"'])
def test_json_that_cannot_be_kept_is_refused(cli, connected, text: str) -> None:
    result = cli("send", "ws-001", "-", stdin=text.encode())
    assert (result.exit_code, result.stdout) == (2, "")
    assert contents(cli) == []


def test_a_message_that_begins_with_a_dash(cli, connected) -> None:
    assert cli("send", "ws-001", "--", "-5").exit_code == 0
    assert cli("broadcast", "--agent", "cipher", "--", "--help").exit_code == 0
    assert contents(cli) == ["--help", -5]


@pytest.mark.parametrize(
    ("given", "content"),
    [
        (b'{"a":\n1}\n', {"a": 1}),
        (b"hello\n", "hello"),
        (b"hello\r\n", "hello"),
        (b"two\n\n", "two\n"),
        ("wést".encode(), "wést"),
    ],
)
def test_a_message_from_stdin(cli, connected, given: bytes, content: object) -> None:
    assert cli("send", "ws-001", "-", stdin=given).exit_code == 0
    assert contents(cli) == [content]


@pytest.mark.parametrize(("given", "told"), [(b"\xff", "UTF-8"), (b"", "empty"), (b"\n", "empty")])
def test_what_stdin_must_not_be(cli, connected, given: bytes, told: str) -> None:
    for arguments in (["send", "ws-001", "-"], ["broadcast", "-"]):
        result = cli(*arguments, stdin=given)
        assert (result.exit_code, result.stdout) == (2, "")
        assert told in result.stderr.splitlines()[0]
    assert contents(cli) == []


def test_send_says_which_of_the_two_is_wrong(cli, connected) -> None:
    cli("disconnect", "ws-002")
    inactive, unknown = cli("send", "ws-002", "1"), cli("send", "nobody", "1")
    assert (inactive.exit_code, unknown.exit_code) == (3, 3)
    assert "ws-002 is not active: disconnected" in inactive.stderr
    assert "no connection nobody" in unknown.stderr


def test_broadcast(cli, connected) -> None:
    result = cli("broadcast", '{"event":"deploy"}')
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Broadcast to 3 connection(s)\n", "")
    assert cli("broadcast", "1", "--agent", "octavia").stdout == "Broadcast to 2 connection(s)\n"
    nobody = cli("broadcast", "1", "--agent", "nobody")
    assert (nobody.exit_code, nobody.stdout) == (0, "Broadcast to 0 connection(s)\n")
    sent = json.loads(cli("broadcast", "1", "--agent", "cipher", "--type", "note", "--json").stdout)
    assert list(sent) == ["broadcast_id", "recipients"]
    assert sent["recipients"] == ["ws-003"]
    assert json.loads(cli("history", "--json").stdout)[0]["msg_type"] == "note"


def test_wait_until_everybody_has_confirmed(cli, connected, database: Path) -> None:
    with receiving(database, "ws-001", "ws-002", "ws-003"):
        result = cli("broadcast", "1", "--wait", "1m")
        assert (result.exit_code, result.stdout) == (0, "Broadcast to 3 connection(s)\n")
        assert result.stderr == "confirmed 3 of 3\n"
        sent = json.loads(cli("send", "ws-001", "1", "--wait", "1m", "--json").stdout)
    assert {name: sent[name] for name in ("confirmed", "pending", "set_aside")} == {
        "confirmed": 1,
        "pending": 0,
        "set_aside": 0,
    }


def test_wait_that_runs_out(cli, connected, database: Path) -> None:
    result = cli("send", "ws-001", "1", "--wait", "0")
    assert result.exit_code == 5
    assert result.stdout.startswith("Sent message ")
    assert result.stderr.startswith("error: confirmed 0 of 1: 1 pending\nhint: ")
    result = cli("broadcast", "1", "--wait", "1ms", "--json")
    assert result.exit_code == 5
    assert json.loads(result.stdout)["pending"] == 3
    assert json.loads(result.stderr)["error"]["code"] == "partly_done"


def test_wait_for_a_message_that_is_set_aside(cli, connected, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Ledger.send

    def send_and_move(self: Ledger, *arguments: Any):
        sent = plain(self, *arguments)
        self.connect("cipher", "ws-001")  # another agent's now: what was pending is set aside
        return sent

    monkeypatch.setattr(Ledger, "send", send_and_move)
    result = cli("send", "ws-001", "1", "--wait", "1h")
    assert result.exit_code == 5
    assert "confirmed 0 of 1: 1 set aside" in result.stderr


def test_wait_for_nobody(cli, db) -> None:
    result = cli("broadcast", "1", "--wait", "1h")
    assert (result.exit_code, result.stdout) == (0, "Broadcast to 0 connection(s)\n")


def test_a_duration_that_is_none_sends_nothing(cli, connected) -> None:
    assert cli("send", "ws-001", "1", "--wait", "soon").exit_code == 2
    assert contents(cli) == []


def test_receive(cli, connected) -> None:
    cli("send", "ws-001", '{"n": 1, "text": "wést"}')
    cli("broadcast", "2")
    result = cli("receive", "ws-001")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.exit_code, result.stderr) == (0, "")
    assert [list(line) for line in lines] == [["seq", "id", "msg_type", "sender", "sent_at", "content"]] * 2
    assert [line["content"] for line in lines] == [{"n": 1, "text": "wést"}, 2]
    assert lines[0]["seq"] < lines[1]["seq"]
    assert "wést" in result.stdout
    again = cli("receive", "ws-001")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "")
    rows = json.loads(cli("history", "--json").stdout)
    assert [row["recipient_id"] for row in rows if row["delivered"]] == ["ws-001", "ws-001"]


def test_receive_more_than_a_batch_in_order(cli, connected, database: Path) -> None:
    db = get_db(database)
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
    db = get_db(database)
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
    assert header == "seq,id,msg_type,sender,sent_at,content"
    assert row.endswith(',"{""a"":1}"')
    cli("send", "ws-001", '{"a":1}')
    assert cli("receive", "ws-001", "-o", "tsv").stdout.rstrip("\n").split("\t")[5] == '{"a":1}'


def test_what_a_closed_pipe_did_not_take_stays_pending(process, environment, database: Path) -> None:
    process("connect", "octavia", "--ws-id", "ws-001")
    db = get_db(database)
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


def test_a_broadcast_to_nobody_says_so(cli) -> None:
    cli("connect", "octavia")
    result = cli("broadcast", "1", "--agent", "octvia")
    assert (result.exit_code, result.stdout) == (0, "Broadcast to 0 connection(s)\n")
    assert "nobody got it" in result.stderr


def test_a_broadcast_to_an_agent_without_a_name_is_refused(cli, db) -> None:
    assert cli("broadcast", "1", "--agent", "").exit_code == 2


@pytest.mark.parametrize("message", ['{"event":"deploy",}', "[1,2", '"half'])
def test_what_begins_like_json_and_is_not_is_noted_on_a_terminal(terminal, cli, message: str) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    code, shown = terminal("send", "ws-001", message)
    assert code == 0
    assert "note: the message is not JSON" in shown
    assert "it is sent as text" in shown.replace("\n", " ")


@pytest.mark.parametrize("message", ["hello", '{"event":"deploy"}', "3 apples"])
def test_other_messages_are_sent_without_a_note(terminal, cli, message: str) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    assert "note" not in terminal("send", "ws-001", message)[1]


def test_off_a_terminal_nothing_is_noted(process, cli) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    assert process("send", "ws-001", '{"event":"deploy",}').stderr == b""
