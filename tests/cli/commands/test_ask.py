"""`ask`."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from tests.support import LIMIT
from ws_manager.cli.exit_codes import INTERRUPTED
from ws_manager.core.ledger import open_ledger
from ws_manager.forms import ASK_FIELDS
from ws_manager.repository.findings import MessageFilter
from ws_manager.strict_json import Json

pytestmark = pytest.mark.over_http


@contextlib.contextmanager
def answering(
    database: Path, content: object, ws_id: str = "ws-001", *, reject: bool = False
) -> Iterator[None]:
    """Answer the next ask of a connection, while the block runs."""

    def answer() -> None:
        deadline = time.monotonic() + LIMIT
        with open_ledger(database) as ledger, ledger.delivery.holding(ws_id) as connection:
            changes = ledger.changes()
            while time.monotonic() < deadline:
                for message in ledger.delivery.pending_held(connection, 0, 1):
                    if reject:
                        ledger.delivery.reject_held(connection, message.seq, "no such task")
                    else:
                        ledger.delivery.reply_held(connection, message.seq, content)
                    changes.close()
                    return
                changes.wait()

    thread = threading.Thread(target=answer)
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize(
    ("content", "line"),
    [({"up": True, "n": Json("1.10")}, '{"up":true,"n":1.10}'), ("fine ü", '"fine ü"'), (None, "null")],
)
def test_prints_the_answer_as_a_line_of_json(
    cli, connected, database: Path, content: object, line: str
) -> None:
    text: object = Json(line)
    with answering(database, text):
        done = cli("ask", "ws-001", '{"task":"status"}', "--timeout", "1m")
    assert (done.exit_code, done.stdout, done.stderr) == (0, line + "\n", "")


def test_asks_an_agent(cli, connected, database: Path) -> None:
    cli("heartbeat", "ws-002")
    with answering(database, "fine", "ws-002"):
        done = cli("ask", "octavia", "status?", "--type", "query", "--timeout", "1m", "-o", "json")
    told = json.loads(done.stdout)
    assert tuple(told) == ASK_FIELDS
    assert (told["recipient_id"], told["state"], told["answer"]) == ("ws-002", "answered", "fine")
    shown = json.loads(cli("show", told["msg_id"], "--json").stdout)
    assert shown["verdict"].endswith(f"answered by {told['answer_id']}")
    assert (shown["facts"]["msg_type"], shown["facts"]["answer_id"]) == ("query", told["answer_id"])


def test_history_tells_what_wants_an_answer(cli, connected, database: Path) -> None:
    with answering(database, "fine"):
        cli("ask", "ws-001", "status?", "--timeout", "1m")
    (row,) = json.loads(cli("history", "--json").stdout)
    assert (row["wants_reply"], row["reply_to"], row["content"]) == (True, None, "status?")


def test_without_an_answer_it_says_how_far_the_message_is(cli, connected, database: Path) -> None:
    late = cli("ask", "ws-003", "status?", "--timeout", "0")
    assert (late.exit_code, late.stdout) == (5, "")
    msg_id = json.loads(cli("history", "--json").stdout)[0]["msg_id"]
    assert (
        late.stderr.splitlines()[0] == f"error: no answer within 0 s: message {msg_id} to ws-003 is pending"
    )
    assert f"ws-manager show {msg_id}" in late.stderr


def test_of_one_that_is_confirmed_show_tells_that_it_is_not_answered(cli, connected, database: Path) -> None:
    with open_ledger(database) as ledger:
        sent = ledger.ask("ws-001", 1)
    assert sent is not None
    cli("receive", "ws-001")
    assert "not answered yet" in cli("show", sent.msg_id).stdout


def test_of_one_that_is_set_aside_ends_at_once(cli, connected, database: Path) -> None:
    with answering(database, None, reject=True):
        late = cli("ask", "ws-001", "status?", "--timeout", "1m", "-o", "json")
    told = json.loads(late.stderr)["error"]
    assert (late.exit_code, told["code"]) == (5, "no_answer")
    assert told["message"].endswith("to ws-001 was set aside: no such task")


@pytest.mark.parametrize(
    ("to", "disconnected", "said"),
    [
        ("nobody", None, "no connection and no agent nobody"),
        ("cipher", "ws-003", "the agent cipher has no active connection"),
        ("ws-003", "ws-003", "ws-003 is not active: disconnected"),
    ],
)
def test_nobody_is_there(cli, connected, to: str, disconnected: Optional[str], said: str) -> None:
    if disconnected:
        cli("disconnect", disconnected)
    nobody = cli("ask", to, "status?")
    assert nobody.exit_code == 3
    assert said in nobody.stderr
    assert json.loads(cli("history", "--json").stdout) == []


def test_on_a_terminal_it_says_what_it_waits_for(terminal, cli, connected, database: Path) -> None:
    with answering(database, "\u202efine"):
        code, seen = terminal("ask", "ws-001", "status?", "--timeout", "1m")
    assert code == 0
    first, answer = seen.splitlines()[-2:]
    assert first.startswith("asked ws-001 with message ")
    assert answer == '"\\u202efine"'


def test_ctrl_c_ends_it(environment: dict[str, str], connected, database: Path) -> None:
    with (
        open_ledger(database) as ledger,
        subprocess.Popen(
            [sys.executable, "-m", "ws_manager", "ask", "ws-001", "status?", "--timeout", "1m"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        ) as asking,
    ):
        changes = ledger.changes()
        while not ledger.messages(MessageFilter()):
            changes.wait()
        changes.close()
        asking.send_signal(signal.SIGINT)
        out, errors = asking.communicate()
    assert (asking.returncode, out, errors) == (INTERRUPTED, b"", b"")
