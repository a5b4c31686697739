"""Commands that go on until they are told to stop: signals, and readers that are slow or have gone.

Real processes and pipes. Nothing reads a command's output here unless the test does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.processes import COMMAND, PATIENCE, gateway
from tests.stripe_support import event
from tests.support import open_sql, sql_of
from ws_manager.core.ledger import Ledger, ledger_over
from ws_manager.core.webhooks import IncomingEvent

pytestmark = pytest.mark.over_http

MANY = 3000
"""Messages: several times what the pipe, a batch of the command and a page of the ledger hold."""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and poll() of POSIX")


@pytest.fixture
def ledger(database: Path) -> Iterator[Ledger]:
    """A ledger in which ws-001 is octavia's."""
    db = open_sql(database)
    ledger = ledger_over(db)
    ledger.connect("octavia", "ws-001")
    yield ledger
    db.close()


@contextmanager
def started(database: Path, *arguments: str, before: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Run a command, whose output nobody reads, for the length of a block.

    Args:
        database: that it works on.
        arguments: of the command.
        before: what the shell that starts it does first.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        ["sh", "-c", f'{before or ":"}; exec "$@"', "-", *COMMAND, "--db", str(database), *arguments],
        # Nothing is read ahead of the test.
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until_it_says(process: subprocess.Popen[bytes], text: bytes) -> None:
    """Wait for a line on stderr."""
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"it ended without {text!r}")


def waiting_events(ledger: Ledger, count: int) -> None:
    """Store events of Stripe that nobody is connected for."""
    webhooks = ledger.webhooks
    payload = event("invoice.paid", "evt").decode()
    with sql_of(ledger).transaction():
        for number in range(count):
            webhooks.take(
                IncomingEvent(f"evt_{number:04}", "invoice.paid", payload, "1", "billing", "stripe_x")
            )


def many_messages(ledger: Ledger) -> None:
    bulk = ledger.batch
    bulk.send([bulk.message({"n": n, "filler": "x" * 100}, "data", "ws-001") for n in range(MANY)])


def confirmed(ledger: Ledger) -> int:
    return int(sql_of(ledger).value("SELECT count(*) FROM messages WHERE delivered = 1"))


class TestAReaderThatHasGone:
    """It is noticed although nothing comes that could be written."""

    def gone(self, process: subprocess.Popen[bytes]) -> None:
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert b"rror" not in process.stderr.read()

    def test_ends_an_idle_listen(self, database: Path, ledger: Ledger) -> None:
        with gateway(database), started(database, "listen", "octavia", "--ws-id", "ws-001") as process:
            until_it_says(process, b"Ready: ")
            self.gone(process)
            # It has said goodbye: nobody goes on sending to it.
            assert ledger.get("ws-001") is None

    def test_ends_a_listen_whose_gateway_is_away(self, database: Path, ledger: Ledger) -> None:
        with (
            gateway(database) as (server, _),
            started(database, "listen", "octavia", "--ws-id", "ws-001") as process,
        ):
            until_it_says(process, b"Ready: ")
            server.end(signal.SIGKILL)
            until_it_says(process, b"Disconnected: ")
            self.gone(process)

    def test_ends_an_idle_receive(self, database: Path, ledger: Ledger) -> None:
        with started(database, "receive", "ws-001", "--follow") as process:
            until_it_says(process, b"Ready: ")
            self.gone(process)
        sent = ledger.send("ws-001", "later")
        assert sent is not None
        assert ledger.wait([sent], 0) == (0, 1, 0)

    def test_ends_an_idle_history(self, database: Path, ledger: Ledger) -> None:
        ledger.send("ws-001", 1)
        with started(database, "history", "--follow", "--since", "1h") as process:
            assert process.stdout.readline()
            self.gone(process)

    def test_ends_a_top_long_before_its_next_frame(self, database: Path, ledger: Ledger) -> None:
        with started(database, "top", "--interval", "3650d") as process:
            assert json.loads(process.stdout.readline())["active_connections"] == 1
            self.gone(process)

    def test_ends_an_idle_replay(self, database: Path, ledger: Ledger) -> None:
        with started(database, "stripe", "replay", "--watch") as process:
            until_it_says(process, b"Watching: ")
            self.gone(process)

    def test_ends_an_idle_batch(self, database: Path, ledger: Ledger) -> None:
        with started(database, "send", "ws-001", "--batch", "-") as process:
            process.stdin.write(b"1\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["ok"]
            self.gone(process)


class TestASignalWhileMessagesKeepComing:
    """The message in hand is written whole and confirmed; nothing after it is either."""

    def lines(self, process: subprocess.Popen[bytes], number: signal.Signals, code: int) -> list[bytes]:
        """Stop a command that is held up in the middle of its output, and return every line of it."""
        first = process.stdout.readline()
        process.send_signal(number)
        rest, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, b"rror" in errors) == (code, False), errors
        lines = (first + rest).splitlines(keepends=True)
        assert lines[-1].endswith(b"\n")
        return lines

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_ends_listen(self, database: Path, ledger: Ledger, number: signal.Signals) -> None:
        many_messages(ledger)
        with gateway(database), started(database, "listen", "octavia", "--ws-id", "ws-001") as process:
            lines = self.lines(process, number, 0)
            while ledger.find("ws-001").close_code is None:
                pass
            assert [json.loads(line)["seq"] for line in lines] == list(range(1, confirmed(ledger) + 1))
        assert len(lines) < MANY

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize("follow", [True, False])
    def test_ends_receive(self, database: Path, ledger: Ledger, number: signal.Signals, follow: bool) -> None:
        many_messages(ledger)
        with started(database, "receive", "ws-001", *["--follow"] * follow) as process:
            lines = self.lines(process, number, 0 if follow else 128 + number)
        assert [json.loads(line)["seq"] for line in lines] == list(range(1, confirmed(ledger) + 1))
        assert len(lines) < MANY

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_ends_history(self, database: Path, ledger: Ledger, number: signal.Signals) -> None:
        many_messages(ledger)
        with started(database, "history", "--follow", "--since", "1h") as process:
            lines = self.lines(process, number, 128 + number)
        assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1))
        assert len(lines) < MANY

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize("options", [["--watch"], ["--since", "1h"]], ids=["watch", "once"])
    def test_ends_replay(
        self, database: Path, ledger: Ledger, number: signal.Signals, options: list[str]
    ) -> None:
        waiting_events(ledger, MANY)
        ledger.connect("billing", "ws-002")
        with started(database, "stripe", "replay", *options, "-o", "ndjson") as process:
            lines = self.lines(process, number, 128 + number)
        assert [json.loads(line)["event_id"] for line in lines] == [f"evt_{n:04}" for n in range(len(lines))]
        assert sql_of(ledger).value("SELECT count(*) FROM messages") == len(lines) < MANY

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize("command", [["send", "ws-001"], ["broadcast"]], ids=["send", "broadcast"])
    def test_ends_a_batch_when_what_is_committed_is_answered(
        self, database: Path, ledger: Ledger, tmp_path: Path, number: signal.Signals, command: list[str]
    ) -> None:
        total = 40_000
        source = tmp_path / "lines.ndjson"
        source.write_text("".join(f"{number}\n" for number in range(total)))
        with started(database, *command, "--batch", str(source)) as process:
            lines = self.lines(process, number, 128 + number)
        assert [json.loads(line)["line"] for line in lines] == list(range(1, len(lines) + 1))
        assert sql_of(ledger).value("SELECT count(*) FROM messages") == len(lines) < total

    def test_ends_a_batch_that_waits_for_a_line(self, database: Path, ledger: Ledger) -> None:
        with started(database, "send", "ws-001", "--batch", "-") as process:
            process.stdin.write(b'"whole"\n"half of a li')
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["ok"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 143
            assert process.stdout.read() == b""
        assert sql_of(ledger).rows("SELECT content FROM messages") == [('"whole"',)]

    def test_ends_a_top_between_two_frames(self, database: Path, ledger: Ledger) -> None:
        with started(database, "top", "--interval", "3650d") as process:
            lines = self.lines(process, signal.SIGTERM, 143)
        assert [json.loads(line)["active_connections"] for line in lines] == [1]


class TestAReaderThatTakesNothing:
    """A command that is asked to end does not wait for it for ever."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize("arguments", [["history", "--limit", str(MANY)], ["export"]])
    def test_does_not_hold_up_a_command_that_ends(
        self, database: Path, ledger: Ledger, number: signal.Signals, arguments: list[str]
    ) -> None:
        many_messages(ledger)
        with started(database, *arguments) as process:
            assert process.stdout.read(1)
            process.send_signal(number)
            assert process.wait(PATIENCE) == 128 + number

    def test_does_not_hold_up_listen(self, database: Path, ledger: Ledger) -> None:
        ledger.send("ws-001", "x" * 200_000)
        with gateway(database), started(database, "listen", "octavia", "--ws-id", "ws-001") as process:
            assert process.stdout.read(1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
            while ledger.find("ws-001").close_code is None:
                pass
        assert confirmed(ledger) == 0


def test_listen_confirms_only_what_is_printed(database: Path, ledger: Ledger) -> None:
    ledger.send("ws-001", "small")
    ledger.send("ws-001", "x" * 200_000)
    with gateway(database), started(database, "listen", "octavia", "--ws-id", "ws-001") as process:
        assert json.loads(process.stdout.readline())["content"] == "small"
        # More than the pipe holds: it is being printed, and cannot be printed to its end.
        assert process.stdout.read(1)
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        # What it has confirmed comes before its goodbye.
        while ledger.find("ws-001").close_code is None:
            pass
    assert sql_of(ledger).rows("SELECT delivered FROM messages ORDER BY id") == [(1,), (0,)]


def test_every_line_is_flushed(database: Path, ledger: Ledger) -> None:
    waiting_events(ledger, 1)
    with started(database, "stripe", "replay", "--watch") as process:
        until_it_says(process, b"Watching: ")
        ledger.connect("billing", "ws-002")
        assert process.stdout.readline() == b"Sent evt_0000 (invoice.paid) to 1 connection(s)\n"


class TestSignalsThatAreIgnoredAtTheStart:
    IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to look into")
    @pytest.mark.parametrize(
        ("arguments", "ready"),
        [
            (["serve", "--port", "0", "--no-auth"], b"Ready"),
            (["receive", "ws-001", "--follow"], b"Ready: "),
            (["stripe", "replay", "--watch"], b"Watching: "),
            (["history", "--follow", "--since", "1h"], None),
            (["top", "--interval", "3650d"], None),
            (["send", "ws-001", "1", "--wait", "1h"], None),
            (["send", "ws-001", "--batch", "-"], None),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_stay_ignored(self, database: Path, ledger: Ledger, arguments: list[str], ready: bytes) -> None:
        ledger.send("ws-001", 1)
        with started(database, *arguments, before='trap "" INT TERM HUP') as process:
            if arguments[-1] == "-":
                process.stdin.write(b"1\n")
                process.stdin.flush()
            if ready is None:
                assert process.stdout.readline()
            else:
                until_it_says(process, ready)
            assert set(self.IGNORED) <= self.ignored_by(process.pid)

    @pytest.mark.parametrize("number", IGNORED)
    def test_do_not_end_listen_and_serve(
        self, database: Path, ledger: Ledger, number: signal.Signals
    ) -> None:
        ignoring = f'trap "" {number.name[3:]}'
        with started(database, "serve", "--port", "0", "--no-auth", before=ignoring) as server:
            until_it_says(server, b"Ready")
            with started(database, "listen", "octavia", "--ws-id", "ws-001", before=ignoring) as agent:
                until_it_says(agent, b"Ready: ")
                for process in (server, agent):
                    process.send_signal(number)
                ledger.send("ws-001", "still there")
                assert json.loads(agent.stdout.readline())["content"] == "still there"
                other = signal.SIGTERM if number != signal.SIGTERM else signal.SIGINT
                agent.send_signal(other)
                assert agent.wait(PATIENCE) == 0
            server.send_signal(other)
            assert server.wait(PATIENCE) == 0

    @staticmethod
    def ignored_by(pid: int) -> set[signal.Signals]:
        status = Path(f"/proc/{pid}/status").read_text()
        mask = int(status.split("SigIgn:", 1)[1].split()[0], 16)
        return {number for number in signal.Signals if mask & 1 << number - 1}
