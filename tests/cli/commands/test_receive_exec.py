"""`receive --exec`: real commands, on the file and over HTTP."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.processes import COMMAND, PATIENCE, Program, running
from tests.support import open_sql, run, sql_of, until
from ws_manager.cli.process import signals
from ws_manager.client import worker
from ws_manager.core.ledger import Ledger, ledger_over
from ws_manager.models import Message

pytestmark = [
    pytest.mark.over_http,
    pytest.mark.skipif(sys.platform == "win32", reason="--exec needs process groups"),
]

# Appends what it gets to a file.
KEEP = ("bash", "-c", 'cat >> "$0"')


@pytest.fixture
def ledger(database: Path) -> Iterator[Ledger]:
    """A ledger in which ws-001 is octavia's."""
    db = open_sql(database)
    ledger = ledger_over(db)
    ledger.connect("octavia", "ws-001")
    yield ledger
    db.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between attempts; for commands that run in this process."""
    monkeypatch.setattr(worker, "FIRST_PAUSE", 0.001)


@pytest.fixture
def following(environment: dict[str, str]) -> Callable[..., Any]:
    """Run `receive ws-001 --follow --exec`, and give it once it is ready."""

    @contextmanager
    def start(*arguments: str, **variables: str) -> Iterator[Program]:
        with running(
            *COMMAND,
            *("receive", "ws-001", "--follow", "--exec", *arguments),
            environment={**environment, **variables},
        ) as program:
            program.error_line("Ready: ")
            yield program

    return start


def send(ledger: Ledger, *contents: object) -> list[str]:
    """Send to ws-001, and return the ids."""
    sent = [ledger.send("ws-001", content) for content in contents]
    return [message.msg_id for message in sent if message is not None]


def states(ledger: Ledger) -> list[str]:
    """What has become of each message, in order."""
    rows = sql_of(ledger).rows("SELECT delivered, rejected_at FROM messages ORDER BY id")
    return ["done" if row[0] else "set aside" if row[1] else "pending" for row in rows]


def found(ledger: Ledger, msg_id: str) -> Message:
    message = ledger.message(msg_id)
    assert message is not None
    return message


def attempts(ledger: Ledger, msg_id: str) -> list[str]:
    """What `show` tells of the attempts at a message."""
    return [
        f"{entry.what}: {entry.detail}"
        for entry in ledger.explain(msg_id).timeline
        if entry.what in ("started", "failed")
    ]


def wait_for(condition: Callable[[], object]) -> None:
    """Look until something is so."""
    run(until(condition))


class TestInput:
    def test_each_message_is_the_input_of_a_command_and_is_confirmed(
        self, cli, ledger: Ledger, tmp_path: Path
    ) -> None:
        send(ledger, *range(10), {"text": "wést", "n": 1.5})
        out = tmp_path / "out"
        result = cli("receive", "ws-001", "--exec", "--", *KEEP, str(out))
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
        lines = out.read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == [*range(10), {"text": "wést", "n": 1.5}]
        assert states(ledger) == ["done"] * 11
        again = cli("receive", "ws-001", "--exec", "--", *KEEP, str(out))
        assert (again.exit_code, out.read_text(encoding="utf-8").splitlines()) == (0, lines)

    @pytest.mark.parametrize(
        ("form", "expected"), [((), '"two words"\n3\n'), (("--raw",), "two words3\n")], ids=["json", "raw"]
    )
    def test_forms_of_the_content(
        self, cli, ledger: Ledger, tmp_path: Path, form: tuple[str, ...], expected: str
    ) -> None:
        send(ledger, "two words", 3)
        cli("receive", "ws-001", "--exec", *form, "--", *KEEP, str(tmp_path / "out"))
        assert (tmp_path / "out").read_text() == expected

    def test_the_envelope_is_what_receive_prints(self, cli, ledger: Ledger, tmp_path: Path) -> None:
        send(ledger, {"a": 1}, {"a": 1})
        printed = cli("receive", "ws-001", "--count", "1").stdout
        cli("receive", "ws-001", "--exec", "--envelope", "--", *KEEP, str(tmp_path / "out"))
        first, second = json.loads(printed), json.loads((tmp_path / "out").read_text())
        own = {"seq", "msg_id", "sent_at"}
        assert list(first) == list(second)
        assert {name: first[name] for name in set(first) - own} == {
            name: second[name] for name in set(second) - own
        }

    def test_256_kib_reach_the_command(self, cli, ledger: Ledger, tmp_path: Path) -> None:
        content = "x" * (256 * 1024 - 2)
        send(ledger, content)
        cli("receive", "ws-001", "--exec", "--raw", "--", *KEEP, str(tmp_path / "out"))
        assert (tmp_path / "out").read_text() == content

    def test_the_environment_tells_of_the_message_and_has_no_secrets(
        self, process, ledger: Ledger, tmp_path: Path
    ) -> None:
        (msg_id,) = send(ledger, 1)
        secrets = {
            "BLACKROAD_WS_SECRET": "hidden",
            "STRIPE_SECRET_KEY": "hidden",
            "STRIPE_WEBHOOK_SECRET": "hidden",
            "PGPASSWORD": "hidden",
        }
        out = tmp_path / "out"
        ended = process(
            "receive", "ws-001", "--exec", "--", "bash", "-c", f"env > {out}", OWN="kept", **secrets
        )
        assert ended.returncode == 0, ended.stderr
        given = dict(line.split("=", 1) for line in out.read_text().splitlines() if "=" in line)
        assert {name: value for name, value in given.items() if name.startswith("WS_")} == {
            "WS_MSG_ID": msg_id,
            "WS_MSG_TYPE": "data",
            "WS_SENT_AT": found(ledger, msg_id).sent_at,
            "WS_SEQ": "1",
            "WS_ID": "ws-001",
            "WS_AGENT": "octavia",
            "WS_ATTEMPT": "1",
        }
        assert given["OWN"] == "kept"
        assert not {*secrets, "BLACKROAD_WS_TOKEN"} & set(given)

    def test_count_leaves_the_rest_pending(self, cli, quick, ledger: Ledger) -> None:
        send(ledger, *range(5))
        code = 'case "$WS_SEQ" in 1) exit 65;; 2) exit 1;; esac'
        cli("receive", "ws-001", "--exec", "--count", "3", "--max-attempts", "2", "--", "bash", "-c", code)
        assert states(ledger) == ["set aside", "set aside", "done", "pending", "pending"]


class TestOutcome:
    def test_65_sets_aside_at_once_with_the_reason(self, cli, ledger: Ledger) -> None:
        bad, _ = send(ledger, 1, 2)
        code = 'if [ "$WS_SEQ" = 1 ]; then echo "not mine" >&2; exit 65; fi'
        result = cli("receive", "ws-001", "--exec", "--", "bash", "-c", code)
        assert (result.exit_code, states(ledger)) == (0, ["set aside", "done"])
        assert found(ledger, bad).reject_reason == "exit code 65: not mine"
        assert attempts(ledger, bad) == ["started: attempt 1 of 5"]

    def test_one_that_always_fails_is_set_aside_and_those_behind_it_are_done(
        self, cli, quick, ledger: Ledger, tmp_path: Path
    ) -> None:
        bad, _ = send(ledger, 1, 2)
        code = f"""
            echo "$WS_SEQ $WS_ATTEMPT" >> {tmp_path}/seen
            if [ "$WS_SEQ" = 1 ]; then
                head -c 100000 /dev/zero | tr '\\0' x >&2
                printf '\\n%s' "the end" >&2
                exit 3
            fi
        """
        result = cli("receive", "ws-001", "--exec", "--max-attempts", "3", "--", "bash", "-c", code)
        assert result.exit_code == 0
        assert (tmp_path / "seen").read_text().splitlines() == ["1 1", "1 2", "1 3", "2 1"]
        assert states(ledger) == ["set aside", "done"]
        reason = found(ledger, bad).reject_reason
        assert reason is not None
        start = "attempt 3 of 3 failed: exit code 3: "
        assert reason.startswith(start)
        assert reason.endswith("xxx\nthe end")
        assert len(reason) == len(start) + 4096
        assert f"message {bad}: attempt 2 of 3 failed: exit code 3: xxx" in result.stderr
        assert [line[:32] for line in attempts(ledger, bad)] == [
            *("started: attempt 1 of 3", "failed: attempt 1 of 3: exit cod"),
            *("started: attempt 2 of 3", "failed: attempt 2 of 3: exit cod"),
            *("started: attempt 3 of 3", "failed: attempt 3 of 3: exit cod"),
        ]

    def test_five_attempts_are_usual(self, cli, quick, ledger: Ledger) -> None:
        (msg_id,) = send(ledger, 1)
        cli("receive", "ws-001", "--exec", "--", "false")
        assert found(ledger, msg_id).reject_reason == "attempt 5 of 5 failed: exit code 1"

    def test_one_that_works_the_second_time_is_done(self, cli, quick, ledger: Ledger) -> None:
        send(ledger, 1)
        cli("receive", "ws-001", "--exec", "--", "bash", "-c", '[ "$WS_ATTEMPT" = 2 ]')
        assert states(ledger) == ["done"]

    def test_time_is_over(self, cli, ledger: Ledger) -> None:
        (msg_id,) = send(ledger, 1)
        options = ("--timeout", "100ms", "--max-attempts", "1")
        cli("receive", "ws-001", "--exec", *options, "--", "sleep", "3600")
        assert found(ledger, msg_id).reject_reason == "attempt 1 of 1 failed: time is over, ended by SIGTERM"

    def test_one_that_ignores_sigterm_is_killed(self, cli, ledger: Ledger, tmp_path: Path) -> None:
        (msg_id,) = send(ledger, 1)
        code = f"trap '' TERM; touch {tmp_path}/begun; while :; do sleep 1; done"
        options = ("--timeout", "2s", "--kill-after", "50ms", "--max-attempts", "1")
        cli("receive", "ws-001", "--exec", *options, "--", "bash", "-c", code)
        assert (tmp_path / "begun").exists()
        assert found(ledger, msg_id).reject_reason == "attempt 1 of 1 failed: time is over, ended by SIGKILL"

    def test_what_cannot_be_started_has_failed(self, cli, ledger: Ledger, tmp_path: Path) -> None:
        (msg_id,) = send(ledger, 1)
        program = tmp_path / "program"
        program.write_bytes(b"\x7fELF neither a program nor a script")
        program.chmod(0o700)
        cli("receive", "ws-001", "--exec", "--max-attempts", "1", "--", str(program))
        assert (
            found(ledger, msg_id).reject_reason == "attempt 1 of 1 failed: cannot start it: Exec format error"
        )

    def test_a_grandchild_that_is_left_behind_is_not_waited_for(
        self, process, ledger: Ledger, tmp_path: Path
    ) -> None:
        send(ledger, 1, 2)
        code = f"sleep 3600 & echo $! >> {tmp_path}/left"
        try:
            ended = process("receive", "ws-001", "--exec", "--", "bash", "-c", f"exec > /dev/null; {code}")
            assert (ended.returncode, states(ledger)) == (0, ["done", "done"])
        finally:
            for pid in (tmp_path / "left").read_text().split():
                os.kill(int(pid), signal.SIGKILL)


class TestOptions:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--exec",), "--exec without a command"),
            (("--", "cat"), "there is a command, and no --exec"),
            (("--exec", "--raw", "--envelope", "--", "cat"), "--raw and --envelope exclude each other"),
            (("--raw",), "--raw is for --exec"),
            (("--timeout", "1s"), "--timeout is for --exec"),
            (("--max-attempts", "2"), "--max-attempts is for --exec"),
            (("--grace", "2s"), "--grace is for --exec"),
            (("--idle-timeout", "2s"), "--idle-timeout is for --follow"),
            (("--exec", "--", "no-such-program"), "there is no program no-such-program to run"),
        ],
    )
    def test_what_means_nothing_is_refused(
        self, cli, ledger: Ledger, arguments: tuple[str, ...], message: str
    ) -> None:
        send(ledger, 1)
        result = cli("receive", "ws-001", *arguments)
        assert (result.exit_code, result.stdout, states(ledger)) == (2, "", ["pending"])
        assert message in result.stderr

    @pytest.mark.sqlite_only("psycopg loads asyncio")
    @pytest.mark.on_the_file
    def test_nothing_asynchronous_is_loaded(self, modules_of, ledger: Ledger) -> None:
        send(ledger, 1)
        loaded = modules_of("receive", "ws-001", "--exec", "--", "cat")
        assert not loaded & {"aiohttp", "asyncio"}
        assert states(ledger) == ["done"]


def until_heard_again(ledger: Ledger) -> None:
    """Wait for the next two heartbeats of ws-001: one may be under way."""
    query = "SELECT last_heartbeat FROM connections"
    for _ in range(2):
        before = sql_of(ledger).value(query)
        wait_for(functools.partial(lambda before: sql_of(ledger).value(query) != before, before))


def slow(tmp_path: Path, code: int = 0) -> tuple[str, ...]:
    """A command that says when it has begun, and ends when the test lets it, or when its receiver was killed."""
    waits = f"until [ -e {tmp_path}/end ] || ! kill -0 $PPID; do sleep 0.02; done"
    return ("bash", "-c", f"touch {tmp_path}/begun; {waits}; exit {code}")


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_the_first_lets_the_running_command_finish(
        self, following, ledger: Ledger, tmp_path: Path, number: signal.Signals
    ) -> None:
        send(ledger, 1, 2)
        with following("--", *slow(tmp_path)) as program:
            wait_for((tmp_path / "begun").exists)
            program.send(number)
            assert states(ledger) == ["pending", "pending"]
            (tmp_path / "end").touch()
            assert program.wait() == 0
        assert states(ledger) == ["done", "pending"]

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
    def test_without_follow_the_exit_code_is_that_of_the_signal(
        self, environment, ledger: Ledger, tmp_path: Path, number: signal.Signals, code: int
    ) -> None:
        send(ledger, 1, 2)
        arguments = (*COMMAND, "receive", "ws-001", "--exec", "--", *slow(tmp_path))
        with running(*arguments, environment=environment) as program:
            wait_for((tmp_path / "begun").exists)
            program.send(number)
            (tmp_path / "end").touch()
            assert program.wait() == code
        assert states(ledger) == ["done", "pending"]

    def test_the_second_ends_the_command_and_the_message_stays(
        self, cli, following, ledger: Ledger, tmp_path: Path
    ) -> None:
        (msg_id, _) = send(ledger, 1, 2)
        with following("--grace", "1h", "--", *slow(tmp_path)) as program:
            wait_for((tmp_path / "begun").exists)
            program.send(signal.SIGTERM)
            # Two that come at once are taken for one.
            with pytest.raises(subprocess.TimeoutExpired):
                program.process.wait(2 * signals._SAME_SECONDS)
            program.send(signal.SIGTERM)
            assert program.wait() == 0
        assert states(ledger) == ["pending", "pending"]
        cli("receive", "ws-001", "--exec", "--", "true")
        assert attempts(ledger, msg_id) == [
            "started: attempt 1 of 5",
            "failed: attempt 1 of 5: the worker ended",
            "started: attempt 2 of 5",
        ]

    @pytest.mark.on_the_file
    def test_the_third_ends_it_at_once(self, following, ledger: Ledger, tmp_path: Path) -> None:
        send(ledger, 1)
        code = f"trap '' TERM; echo $$ > {tmp_path}/pid; touch {tmp_path}/begun; while :; do sleep 1; done"
        with following("--kill-after", "1h", "--grace", "1h", "--", "bash", "-c", code) as program:
            wait_for((tmp_path / "begun").exists)
            for _ in range(2):
                program.send(signal.SIGTERM)
                with pytest.raises(subprocess.TimeoutExpired):
                    program.process.wait(2 * signals._SAME_SECONDS)
            program.send(signal.SIGTERM)
            assert program.process.wait(PATIENCE) == -signal.SIGTERM
            os.killpg(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        assert states(ledger) == ["pending"]

    def test_grace_has_an_end(self, following, ledger: Ledger, tmp_path: Path) -> None:
        send(ledger, 1)
        with following("--grace", "50ms", "--", *slow(tmp_path)) as program:
            wait_for((tmp_path / "begun").exists)
            program.send(signal.SIGTERM)
            assert program.wait() == 0
        assert states(ledger) == ["pending"]

    def test_a_failure_is_written_before_the_end(self, following, ledger: Ledger, tmp_path: Path) -> None:
        (msg_id,) = send(ledger, 1)
        with following("--", *slow(tmp_path, 7)) as program:
            wait_for((tmp_path / "begun").exists)
            program.send(signal.SIGTERM)
            (tmp_path / "end").touch()
            assert program.wait() == 0
        assert attempts(ledger, msg_id)[-1] == "failed: attempt 1 of 5: exit code 7"

    def test_a_pause_between_attempts_ends_at_once(
        self, cli, ledger: Ledger, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker, "FIRST_PAUSE", 3600.0)
        monkeypatch.setattr(worker, "LONGEST_PAUSE", 3600.0)
        send(ledger, 1)

        def end_it_once_it_has_failed() -> None:
            other = ledger_over(open_sql(database))
            wait_for(lambda: sql_of(other).value("SELECT count(*) FROM events WHERE kind = 'failed'"))
            sql_of(other).close()
            os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=end_it_once_it_has_failed)
        thread.start()
        result = cli("receive", "ws-001", "--exec", "--", "false")
        thread.join()
        assert (result.exit_code, states(ledger)) == (143, ["pending"])


class TestFollow:
    def test_it_goes_on_with_what_comes(self, following, ledger: Ledger, tmp_path: Path) -> None:
        send(ledger, "before")
        with following("--", *KEEP, str(tmp_path / "out")) as program:
            sent = ledger.send("ws-001", "after")
            assert sent is not None
            assert ledger.wait([sent], PATIENCE).confirmed == 1
            assert (tmp_path / "out").read_text() == '"before"\n"after"\n'
            assert program.end() == 0

    def test_it_keeps_the_connection_alive_while_a_command_runs(
        self, following, ledger: Ledger, tmp_path: Path
    ) -> None:
        send(ledger, 1)
        with following("--", *slow(tmp_path), BLACKROAD_HB_TIMEOUT="600ms") as program:
            wait_for((tmp_path / "begun").exists)
            until_heard_again(ledger)
            program.send(signal.SIGTERM)
            until_heard_again(ledger)
            (tmp_path / "end").touch()
            assert program.wait() == 0
        assert states(ledger) == ["done"]

    def test_a_registration_meanwhile_is_a_conflict_and_the_message_stays(
        self, following, ledger: Ledger, tmp_path: Path
    ) -> None:
        send(ledger, 1)
        with following("--", *slow(tmp_path)) as program:
            wait_for((tmp_path / "begun").exists)
            ledger.connect("octavia", "ws-001")
            (tmp_path / "end").touch()
            assert program.wait() == 6
            assert "registered again" in "\n".join(program.rest_of_errors())
        assert states(ledger) == ["pending"]

    def test_a_disconnection_ends_it_between_two_attempts(
        self, following, ledger: Ledger, tmp_path: Path
    ) -> None:
        send(ledger, 1)
        with following("--max-attempts", "100", "--", *slow(tmp_path, 1)) as program:
            wait_for((tmp_path / "begun").exists)
            ledger.disconnect("ws-001", "by hand")
            (tmp_path / "end").touch()
            assert program.wait() == 3
        assert states(ledger) == ["pending"]

    def test_it_ends_when_there_is_nothing_to_do(self, cli, ledger: Ledger, tmp_path: Path) -> None:
        send(ledger, 1, 2)
        result = cli("receive", "ws-001", "--follow", "--idle-timeout", "100ms", "--exec", "--", "true")
        assert (result.exit_code, states(ledger)) == (0, ["done", "done"])
        send(ledger, 3)
        printed = cli("receive", "ws-001", "--follow", "--idle-timeout", "100ms")
        assert (printed.exit_code, json.loads(printed.stdout)["content"]) == (0, 3)

    def test_another_receiver_is_kept_out_while_a_command_runs(
        self, cli, following, ledger: Ledger, tmp_path: Path
    ) -> None:
        send(ledger, 1)
        with following("--", *slow(tmp_path)) as program:
            wait_for((tmp_path / "begun").exists)
            for others in (("receive", "ws-001"), ("receive", "ws-001", "--exec", "--", "true")):
                assert cli(*others).exit_code == 6
            (tmp_path / "end").touch()
            wait_for(lambda: states(ledger) == ["done"])
            assert program.end() == 0
