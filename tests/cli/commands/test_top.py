"""`top`: in a pipe, and on a real terminal, where keys, signals and a new size reach it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import PATIENCE
from tests.support import open_sql, sql_of
from ws_manager.core.ledger import Ledger, ledger_over
from ws_manager.core.locations import exists
from ws_manager.models import seconds_before, utc_now

pytestmark = pytest.mark.over_http

ALTERNATE, MAIN, CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"
FOR_EVER = ("--interval", "1d")
"""Nothing is drawn again but for a key, a signal or a new size."""

HOSTILE = "esc \x1b[31m, csi \x9b31m, rlo \u202e, [bold] [/x] 日本 🙂"
SEEN = r"esc \u001b[31m, csi \u009b31m, rlo \u202e, [bold] [/x] 日本 🙂"


@pytest.fixture
def ledger(database: Path) -> Iterator[Ledger]:
    db = open_sql(database)
    yield ledger_over(db)
    db.close()


class Screen:
    """A `top` on a terminal of its own."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str], columns: int) -> None:
        self._ours, theirs = pty.openpty()
        self._theirs = theirs
        self.resize(columns, wake=False)
        self.before = termios.tcgetattr(theirs)
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ws_manager", "top", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={"TERM": "xterm-256color", **environment},
        )

    def resize(self, columns: int, *, wake: bool = True) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        if wake:
            self.process.send_signal(signal.SIGWINCH)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def until(self, text: str) -> str:
        """Wait until a text has appeared, and return what came up to there."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            assert self._read(deadline - time.monotonic()), (text, self.seen[-3000:])
        position = self.seen.index(text) + len(text)
        came, self.seen = self.seen[:position], self.seen[position:]
        return came

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(0, seconds))
        if ready:
            self.seen += os.read(self._ours, 65536).decode(errors="replace")
        return bool(ready)

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and what came that was not taken yet."""
        code = self.process.wait(PATIENCE)
        while self._read(0):
            pass
        return code, self.seen

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self._theirs) == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@pytest.fixture
def top(environment: dict[str, str]):
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, columns: int = 100) -> Screen:
            screen = Screen(arguments, environment, columns)
            stack.callback(screen.close)
            return screen

        yield start


def columns_in(shown: str) -> list[str]:
    """Return the words of the line that begins with ws_id, without what colours them."""
    plain = re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", shown)
    return next(line.split() for line in plain.splitlines() if line.startswith("ws_id"))


def check_restored(screen: Screen, after: str) -> None:
    assert MAIN in after
    assert CURSOR in after
    assert ALTERNATE not in after
    assert screen.is_as_before()


def test_q_quits_and_the_screen_is_as_before(ledger: Ledger, top) -> None:
    ledger.connect("octavia", "ws-001")
    screen = top(*FOR_EVER)
    assert ALTERNATE in screen.until("q quit")
    screen.press("q")
    code, after = screen.end()
    assert code == 0
    check_restored(screen, after)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)]
)
def test_a_signal_restores_the_screen(ledger: Ledger, top, number: signal.Signals, code: int) -> None:
    screen = top(*FOR_EVER)
    screen.until("q quit")
    screen.process.send_signal(number)
    ended, after = screen.end()
    assert ended == code
    check_restored(screen, after)
    assert "Traceback" not in after


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTSTP])
def test_a_signal_that_is_ignored_at_the_start_stays_ignored(
    ledger: Ledger, top, number: signal.Signals
) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        screen = top(*FOR_EVER)
    finally:
        signal.signal(number, before)
    screen.until("order: pending")
    screen.process.send_signal(number)
    screen.press("s")
    screen.until("order: idle")
    screen.press("q")
    code, after = screen.end()
    assert code == 0
    check_restored(screen, after)


@pytest.mark.sqlite_only("a file that is renamed")
@pytest.mark.on_the_file
def test_an_error_restores_the_screen_and_is_told(ledger: Ledger, database: Path, top) -> None:
    screen = top(*FOR_EVER)
    screen.until("q quit")
    database.rename(database.with_suffix(".old"))
    screen.press("s")
    ended, after = screen.end()
    assert ended == 1
    check_restored(screen, after)
    assert "was moved, deleted or replaced" in after.split(MAIN)[1]


def test_ctrl_z_gives_the_screen_back_until_it_goes_on(ledger: Ledger, top) -> None:
    screen = top(*FOR_EVER)
    screen.until("q quit")
    screen.process.send_signal(signal.SIGTSTP)
    _, status = os.waitpid(screen.process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    assert screen.is_as_before()
    screen.process.send_signal(signal.SIGCONT)
    assert ALTERNATE in screen.until("q quit").split(MAIN)[1]
    screen.press("q")
    assert screen.end()[0] == 0


def test_follows_a_new_size(ledger: Ledger, top) -> None:
    ledger.connect("octavia", "a-rather-long-identifier-of-a-connection")
    screen = top(*FOR_EVER, columns=60)
    assert "age" not in columns_in(screen.until("q quit"))
    screen.resize(200)
    assert "age" in columns_in(screen.until("q quit"))


def test_keys_sort_filter_and_pause(ledger: Ledger, top) -> None:
    ledger.connect("octavia", "ws-001", {"region": "us-west"})
    ledger.connect("cipher", "ws-002")
    screen = top(*FOR_EVER)
    screen.until("q quit")
    screen.press("s")
    screen.until("s order: idle")
    screen.press("/WEST\r")
    screen.until("1 match")
    assert "ws-002" not in screen.until("text: WEST")
    screen.press("\x1b")
    screen.until("text: any")
    screen.press("acipher\r")
    assert "ws-001" not in screen.until("agent: cipher").rsplit("1 match", 1)[1]
    screen.press("p")
    screen.until("PAUSED")


def test_data_does_not_steer_the_terminal(ledger: Ledger, top) -> None:
    ledger.connect("octavia", "ws-001")
    sql_of(ledger).execute("UPDATE connections SET agent = ?", (HOSTILE,))
    ledger.send("ws-001", "\x9b31m\u202e")
    screen = top(*FOR_EVER, columns=200)
    shown = screen.until("q quit")
    screen.press("/\u202e[red]")
    shown += screen.until("text: [red]")
    assert SEEN in shown
    assert not re.search("[\x80-\x9f\u202a-\u202e\u2066-\u2069]", shown)


def test_without_a_keyboard_it_says_how_to_end_it(ledger: Ledger, environment, database: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "ws_manager", "top", *FOR_EVER],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={"TERM": "xterm", **environment},
    ) as process:
        seen = b""
        while b"Ctrl-C quit" not in seen:
            seen += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    os.close(ours)
    os.close(theirs)


def test_in_a_pipe_each_frame_is_an_object(ledger: Ledger, process) -> None:
    ledger.connect("octavia", "ws-001")
    ledger.send("ws-001", {"a": 1})
    ledger.connect("cipher", "ws-002")
    ledger.disconnect("ws-002", "moved house")
    ended = process("top", "--count", "2", "--interval", "100ms")
    assert ended.returncode == 0
    first, second = map(json.loads, ended.stdout.splitlines())
    assert (first["active_connections"], first["total_ever_connected"], first["total_messages"]) == (1, 2, 1)
    assert (first["sent_per_second"], second["sent_per_second"]) == (None, 0)
    (connection,) = first["connections"]
    assert (connection["ws_id"], connection["pending"], connection["slow"]) == ("ws-001", 1, [])
    (message,) = first["messages"]
    assert (message["recipient_id"], message["delivered"], message["content_start"]) == (
        "ws-001",
        False,
        '{"a":1}',
    )
    (ending,) = first["endings"]
    assert (ending["reason"], ending["count"], ending["last_ws_id"]) == ("moved house", 1, "ws-002")


def test_in_a_pipe_the_limit_and_the_filter_hold(ledger: Ledger, cli) -> None:
    for number in range(3):
        ledger.connect("octavia", f"ws-{number}")
    frame = json.loads(cli("top", "--once", "--limit", "1", "--text", "WS-", "--json").stdout)
    assert (len(frame["connections"]), frame["matching_connections"]) == (1, 3)
    assert json.loads(cli("top", "--once", "--agent", "nobody").stdout)["connections"] == []


def test_a_reader_that_has_enough_ends_it(ledger: Ledger, environment) -> None:
    ended = subprocess.run(
        [
            "bash",
            "-c",
            f"{sys.executable} -m ws_manager top --interval 100ms | head -n 1; echo ${{PIPESTATUS[0]}}",
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    line, code = ended.stdout.splitlines()
    assert json.loads(line)["active_connections"] == 0
    assert (code, ended.stderr) == ("141", "")


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (
            80,
            """\
ws_id                       agent    idle   trip  pending  sent  slow
ws-001                      octavia    1m  12 ms        1     1  silent, waiting
ws-a-rather-long-identifi…  cipher     1m               0     0  silent""",
        ),
        (
            200,
            """\
ws_id                                        agent    age  idle   trip  pending  waits  sent  slow
ws-001                                       octavia   1m    1m  12 ms        1     1m     1  silent, waiting
ws-a-rather-long-identifier-of-a-connection  cipher    1m    1m               0            0  silent""",
        ),
    ],
)
def test_the_table_of_a_frame(ledger: Ledger, terminal, columns: int, shown: str) -> None:
    ledger.connect("cipher", "ws-a-rather-long-identifier-of-a-connection")
    ledger.connect("octavia", "ws-001")
    ledger.heartbeat("ws-001", 12)
    ledger.send("ws-001", "hello")
    minute_ago = seconds_before(utc_now(), 90)
    sql_of(ledger).execute(
        "UPDATE connections SET connected_at = ?, last_heartbeat = ?", (minute_ago, minute_ago)
    )
    sql_of(ledger).execute("UPDATE messages SET sent_at = ?", (minute_ago,))
    _, frame = terminal("top", "--once", columns=columns, NO_COLOR="1")
    plain = re.sub("\x1b\\[[0-9;]*m", "", frame)
    assert [line.rstrip() for line in plain.splitlines()[4:7]] == shown.splitlines()


def test_does_not_load_rich_in_a_pipe(ledger: Ledger, modules_of) -> None:
    assert not {name for name in modules_of("top", "--once") if name.split(".")[0] == "rich"}


@pytest.mark.no_ledger
@pytest.mark.on_the_file
def test_does_not_make_a_database(cli, database: Path) -> None:
    ended = cli("top", "--once")
    assert ended.exit_code == 1
    assert re.search("there is no (database|ledger)", ended.stderr)
    assert not exists(database)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--sort", "colour"),
        ("--count", "0"),
        ("--count", "2", "--once"),
        ("--interval", "1ms"),
        ("--interval", "soon"),
        ("--limit", "-1"),
        ("--agent", ""),
        ("-o", "csv"),
        ("-o", "table"),
    ],
)
def test_refuses_what_it_cannot_do(ledger: Ledger, cli, arguments: tuple[str, ...]) -> None:
    ended = cli("top", *arguments)
    assert ended.exit_code == 2
    assert ended.stderr.startswith("error: ")
    assert ended.stdout == ""


def test_a_frame_on_a_dumb_terminal_is_plain_text(ledger: Ledger, terminal) -> None:
    ledger.connect("octavia", "ws-001")
    code, shown = terminal("top", "--once", TERM="dumb")
    assert code == 0
    assert "ws-001" in shown
    assert "\x1b" not in shown
