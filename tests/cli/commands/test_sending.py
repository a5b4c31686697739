"""What `send` and `broadcast` have in common: the message, and waiting."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import open_sql
from ws_manager import ConnectionPool
from ws_manager.core.ledger import Ledger

pytestmark = pytest.mark.over_http


def contents(cli) -> list[object]:
    return [row["content"] for row in json.loads(cli("history", "--json").stdout)]


@contextmanager
def receiving(database: Path, *ws_ids: str) -> Iterator[None]:
    """Be another process's agent: confirm what arrives for these, until the block ends."""
    ended = threading.Event()

    def run() -> None:
        db = open_sql(database)
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


def test_wait_until_everybody_has_confirmed(cli, connected, database: Path) -> None:
    with receiving(database, "ws-001", "ws-002", "ws-003"):
        result = cli("broadcast", "1", "--wait", "1m")
        assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "Broadcast to 3 connection(s)")
        assert result.stderr.splitlines()[-1] == "confirmed 3 of 3"
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
    assert "\nerror: confirmed 0 of 1: 1 pending\nhint: " in result.stderr
    result = cli("broadcast", "1", "--wait", "1ms", "--json")
    assert result.exit_code == 5
    assert json.loads(result.stdout)["pending"] == 3
    assert json.loads(result.stderr.splitlines()[-1])["error"]["code"] == "partly_done"


@pytest.mark.on_the_file
def test_wait_for_a_message_that_is_set_aside(cli, connected, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Ledger.send

    def send_and_move(self: Ledger, *arguments: Any, **options: Any):
        sent = plain(self, *arguments, **options)
        self.connect("cipher", "ws-001")  # another agent's now: what was pending is set aside
        return sent

    monkeypatch.setattr(Ledger, "send", send_and_move)
    result = cli("send", "ws-001", "1", "--wait", "1h")
    assert result.exit_code == 5
    assert "confirmed 0 of 1: 1 set aside" in result.stderr


def test_wait_for_nobody(cli, db) -> None:
    result = cli("broadcast", "1", "--wait", "1h")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "Broadcast to 0 connection(s)")


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
