"""`listen` as a worker: real commands, real gateways that are killed, real signals."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.processes import COMMAND, command, gateway, gateway_with_tokens, running

WORK = ("listen", "octavia", "--ws-id", "ws-001", "--stay")


def saved(folder: Path, text: str) -> list[str]:
    """A command that runs a Python program, which finds its message's content in `content`."""
    file = folder / "work.py"
    file.write_text(f"import json, os, sys\ncontent = json.load(sys.stdin)\n{text}\n")
    return [sys.executable, str(file)]


def sent(database: Path, *contents: Any) -> None:
    """Send to the agent that is not there yet."""
    lines = "".join(json.dumps({"to": "ws-001", "content": content}) + "\n" for content in contents)
    command(database, "connect", "octavia", "--ws-id", "ws-001")
    assert command(database, "send", "--batch", "-", stdin=lines).returncode == 0


def rows(database: Path) -> list[tuple[Any, bool, Any]]:
    """Content, whether it is delivered, and why it is set aside: of each message, in order."""
    found = json.loads(command(database, "history", "--json", "--limit", "1000").stdout)
    return [(each["content"], each["delivered"], each["reject_reason"]) for each in reversed(found)]


def worked(
    database: Path, *options: str, work: list[str], stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a worker to its end."""
    return command(database, *WORK, "--exec", *options, "--", *work, stdin=stdin)


class TestOutcome:
    def test_work_is_done_in_order_and_confirmed(self, database: Path, tmp_path: Path) -> None:
        sent(database, *range(5))
        work = saved(tmp_path, "print(content, os.environ['WS_ATTEMPT'], os.environ['WS_AGENT'])")
        with gateway(database):
            done = worked(database, "--until-empty", work=work)
        assert (done.returncode, done.stdout.splitlines()) == (0, [f"{n} 1 octavia" for n in range(5)])
        assert [delivered for _, delivered, _ in rows(database)] == [True] * 5

    def test_one_that_always_fails_is_set_aside_with_exit_code_and_stderr(
        self, database: Path, tmp_path: Path
    ) -> None:
        sent(database, "bad", "good")
        work = saved(tmp_path, "if content == 'bad': sys.stderr.write('no such task\\n'); sys.exit(9)")
        with gateway(database):
            done = worked(database, "--until-empty", "--max-attempts", "2", work=work)
            message = json.loads(command(database, "history", "--json", "--limit", "2").stdout)[1]
            shown = command(database, "show", message["msg_id"]).stdout
        reason = "attempt 2 of 2 failed: exit code 9: no such task"
        assert (done.returncode, rows(database)) == (0, [("bad", False, reason), ("good", True, None)])
        assert "attempt 1 of 2: exit code 9: no such task" in shown
        assert reason in shown

    def test_65_rejects_at_once(self, database: Path, tmp_path: Path) -> None:
        sent(database, 1)
        with gateway(database):
            worked(database, "--until-empty", work=saved(tmp_path, "sys.exit('no' and 65)"))
        assert rows(database) == [(1, False, "exit code 65")]

    def test_killed_by_its_own_message_it_is_set_aside_after_five_starts(
        self, database: Path, tmp_path: Path
    ) -> None:
        sent(database, "before", "killer", "behind", "last")
        log = tmp_path / "log"
        work = saved(
            tmp_path,
            f"open({str(log)!r}, 'a').write(content + '\\n')\nif content == 'killer': os.kill(os.getppid(), 9)",
        )
        codes = []
        with gateway(database):
            while 0 not in codes:
                codes.append(worked(database, "--until-empty", work=work).returncode)
        assert codes == [-signal.SIGKILL] * 5 + [0]
        assert log.read_text().split() == ["before", *["killer"] * 5, "behind", "last"]
        assert rows(database) == [
            ("before", True, None),
            ("killer", False, "attempt 5 of 5 failed: the worker ended"),
            ("behind", True, None),
            ("last", True, None),
        ]

    def test_sigterm_in_the_middle_finishes_confirms_and_takes_nothing_new(
        self, database: Path, tmp_path: Path
    ) -> None:
        sent(database, 1, 2)
        go = tmp_path / "go"
        os.mkfifo(go)
        work = saved(tmp_path, f"print('begun', flush=True); open({str(go)!r}).read(); print('done')")
        with (
            gateway(database),
            running(*COMMAND, "--db", str(database), *WORK, "--exec", "--", *work) as worker,
        ):
            assert worker.line() == "begun"
            worker.send(signal.SIGTERM)
            go.write_text("on")
            assert worker.line() == "done"
            assert worker.wait() == 0
        assert rows(database) == [(1, True, None), (2, False, None)]

    def test_second_signal_ends_the_command(self, database: Path, tmp_path: Path) -> None:
        sent(database, 1)
        work = saved(tmp_path, "import time; print(os.getpid(), flush=True); time.sleep(600)")
        with (
            gateway(database),
            running(*COMMAND, "--db", str(database), *WORK, "--exec", "--", *work) as worker,
        ):
            pid = int(worker.line())
            worker.send(signal.SIGINT)
            # Signals within 0.3 s of each other count once.
            worker.send_until_it_ends(signal.SIGINT)
            assert worker.wait() == 0
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        assert rows(database) == [(1, False, None)]

    def test_command_that_is_late_is_a_failure(self, database: Path, tmp_path: Path) -> None:
        sent(database, 1)
        work = saved(tmp_path, "import time; time.sleep(600)")
        with gateway(database):
            worked(database, "--until-empty", "--timeout", "500ms", "--max-attempts", "1", work=work)
        assert rows(database) == [(1, False, "attempt 1 of 1 failed: time is over, ended by SIGTERM")]

    def test_grandchild_that_stays_does_not_hang_the_worker(self, database: Path, tmp_path: Path) -> None:
        sent(database, 1, 2)
        pids = tmp_path / "pids"
        work = ["sh", "-c", f"sleep 600 & echo $! >>{shlex.quote(str(pids))}"]
        with (
            gateway(database),
            running(*COMMAND, "--db", str(database), *WORK, "--exec", "--until-empty", "--", *work) as worker,
        ):
            assert worker.process.wait(60) == 0
            for pid in pids.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        assert [delivered for _, delivered, _ in rows(database)] == [True, True]


class TestInput:
    def test_256_kib_reach_the_command(self, database: Path, tmp_path: Path) -> None:
        content = "x" * (256 * 1024 - 2)
        sent(database, content)
        work = saved(
            tmp_path, "import hashlib; print(len(content), hashlib.sha256(content.encode()).hexdigest())"
        )
        with gateway(database):
            done = worked(database, "--until-empty", work=work)
        assert done.stdout == f"{len(content)} {hashlib.sha256(content.encode()).hexdigest()}\n"

    @pytest.mark.parametrize(
        ("option", "wanted"),
        [("--raw", "a line"), ("--envelope", '"msg_type":"data"'), ("--json", '"a line"')],
    )
    def test_forms(self, database: Path, option: str, wanted: str) -> None:
        sent(database, "a line")
        with gateway(database):
            done = worked(database, "--until-empty", option, work=["cat"])
        assert wanted in done.stdout

    def test_arguments_behind_the_hyphens_are_the_commands_own(self, database: Path) -> None:
        sent(database, 1)
        with gateway(database):
            done = worked(
                database, "--until-empty", work=["echo", "--json", "--db", "x", "--", "-o", "$HOME"]
            )
        assert (done.returncode, done.stdout) == (0, "--json --db x -- -o $HOME\n")

    def test_secrets_are_not_in_its_environment(self, database: Path, tmp_path: Path) -> None:
        sent(database, 1)
        token = command(database, "token", "octavia").stdout.strip()
        secrets = {
            "BLACKROAD_WS_TOKEN": token,
            "BLACKROAD_WS_SECRET": "s" * 43,
            "STRIPE_WEBHOOK_SECRET": "whsec_1",
            "STRIPE_API_KEY": "sk_1",
            "PGPASSWORD": "p",
        }
        with gateway_with_tokens(database) as (_, url):
            options = [
                "listen",
                "octavia",
                "--url",
                url,
                "--ws-id",
                "ws-001",
                "--exec",
                "--until-empty",
                "--",
                "env",
            ]
            done = subprocess.run(
                [*COMMAND, *options],
                env={**os.environ, **secrets},
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
        names = {line.partition("=")[0] for line in done.stdout.splitlines()}
        assert {"WS_MSG_ID", "WS_SEQ", "PATH"} <= names
        assert not secrets.keys() & names
        assert token not in done.stdout


class TestLostGateways:
    @pytest.mark.long
    def test_six_kills_while_it_runs_start_the_command_once_and_set_nothing_aside(
        self, database: Path, tmp_path: Path
    ) -> None:
        sent(database, 1, 2)
        log, go = tmp_path / "log", tmp_path / "go"
        os.mkfifo(go)
        work = saved(
            tmp_path,
            f"open({str(log)!r}, 'a').write(f'{{content}}\\n'); print('begun', flush=True)\n"
            f"if content == 1: open({str(go)!r}).read()",
        )
        options = ("--exec", "--until-empty", "--max-attempts", "1", "--wait-for-gateway", "--", *work)
        with running(*COMMAND, "--db", str(database), *WORK, *options) as worker:
            for kill in range(6):
                with gateway(database) as (server, _):
                    worker.error_line("Ready: ")
                    if kill == 0:
                        assert worker.line() == "begun"
                    server.end(signal.SIGKILL)
            with gateway(database):
                worker.error_line("Ready: ")
                go.write_text("on")
                assert worker.wait() == 0
        assert log.read_text().split() == ["1", "2"]
        assert rows(database) == [(1, True, None), (2, True, None)]


class TestEnds:
    def test_count(self, database: Path) -> None:
        sent(database, 1, 2, 3)
        with gateway(database):
            done = worked(database, "--count", "2", work=["cat"])
        assert (done.returncode, done.stdout) == (0, "1\n2\n")
        assert [delivered for _, delivered, _ in rows(database)] == [True, True, False]

    @pytest.mark.parametrize("mode", [["--exec", "--", "cat"], []])
    def test_idle_timeout(self, database: Path, mode: list[str]) -> None:
        sent(database, 1)
        with gateway(database):
            done = command(database, *WORK, "--idle-timeout", "300ms", *mode)
        assert done.returncode == 0
        assert rows(database) == [(1, True, None)]

    def test_until_empty_for_what_is_printed(self, database: Path) -> None:
        sent(database, *range(250))
        with gateway(database):
            done = command(database, *WORK, "--until-empty")
        assert done.returncode == 0
        assert [json.loads(line)["content"] for line in done.stdout.splitlines()] == list(range(250))

    def test_ready_file_is_there_while_it_is_connected(self, database: Path, tmp_path: Path) -> None:
        ready = tmp_path / "ready"
        ready.write_text("of an earlier run")
        arguments = [*COMMAND, "--db", str(database), *WORK, "--ready-file", str(ready), "--wait-for-gateway"]
        with running(*arguments) as worker:
            worker.error_line("Disconnected")
            assert not ready.exists()
            with gateway(database):
                worker.error_line("Ready: ")
                assert ready.read_text() == "ws-001\n"
                assert worker.end() == 0
        assert not ready.exists()

    def test_without_a_gateway_it_ends_with_7(self, database: Path) -> None:
        sent(database, 1)
        assert worked(database, work=["cat"]).returncode == 7

    def test_concurrency_works_on_several_at_a_time(self, database: Path, tmp_path: Path) -> None:
        sent(database, *range(8))
        # Each waits until all eight have begun.
        work = saved(
            tmp_path,
            f"folder = {str(tmp_path)!r}\nopen(f'{{folder}}/begun-{{content}}', 'w').close()\n"
            "import time\nwhile len([n for n in os.listdir(folder) if n.startswith('begun-')]) < 8: time.sleep(0.01)",
        )
        with gateway(database):
            done = worked(database, "--concurrency", "8", "--until-empty", work=work)
        assert done.returncode == 0
        assert all(delivered for _, delivered, _ in rows(database))


class TestReply:
    @pytest.mark.parametrize(
        ("program", "options", "answer"),
        [
            ("print(json.dumps({'twice': content * 2}, indent=2))", [], '{"twice":42}'),
            ("print('no JSON, ünïcode')", [], '"no JSON, ünïcode"'),
            ("print(1.50)", [], "1.5"),
            ("print(1.50)", ["--raw"], '"1.5\\n"'),
            ("pass", [], '""'),
        ],
    )
    def test_answers_with_stdout(
        self, database: Path, tmp_path: Path, program: str, options: list[str], answer: str
    ) -> None:
        work = ["--exec", "--reply", *options, "--", *saved(tmp_path, program)]
        with gateway(database), running(*COMMAND, "--db", str(database), *WORK, *work) as worker:
            worker.error_line("Ready: ")
            asked = command(database, "ask", "octavia", "21", "--timeout", "30s")
            assert (asked.returncode, asked.stdout) == (0, f"{answer}\n")
            # Who wants no answer gets none, and stdout is the worker's own.
            command(database, "send", "ws-001", "4", "--wait", "30s")
            assert worker.end() == 0
        # The answer is in the ledger too, beside the two messages.
        assert [delivered for _, delivered, _ in rows(database)] == [True, True]

    def test_failure_is_no_answer_and_what_follows_is(self, database: Path, tmp_path: Path) -> None:
        program = "sys.exit(1) if os.environ['WS_ATTEMPT'] == '1' else print('done')"
        work = ["--exec", "--reply", "--", *saved(tmp_path, program)]
        with gateway(database), running(*COMMAND, "--db", str(database), *WORK, *work) as worker:
            worker.error_line("Ready: ")
            assert command(database, "ask", "ws-001", "1", "--timeout", "30s").stdout == '"done"\n'

    @pytest.mark.parametrize(
        ("program", "reason"),
        [
            ("print('x' * 100_000)", "its answer has more than 61440 bytes"),
            ("sys.exit(65)", "exit code 65"),
        ],
    )
    def test_what_cannot_be_answered_is_set_aside(
        self, database: Path, tmp_path: Path, program: str, reason: str
    ) -> None:
        work = ["--exec", "--reply", "--max-attempts", "1", "--", *saved(tmp_path, program)]
        with gateway(database), running(*COMMAND, "--db", str(database), *WORK, *work) as worker:
            worker.error_line("Ready: ")
            asked = command(database, "ask", "ws-001", "1", "--timeout", "30s")
        assert asked.returncode == 5
        assert "set aside" in asked.stderr
        ((_, _, told),) = rows(database)
        assert told.endswith(reason)


class TestConfirmFromStdin:
    def test_confirms_what_stdin_names(self, database: Path) -> None:
        sent(database, 1, 2, 3)
        with (
            gateway(database),
            running(
                *COMMAND, "--db", str(database), *WORK, "--confirm-from-stdin", stdin=subprocess.PIPE
            ) as agent,
        ):
            seqs = [json.loads(agent.line())["seq"] for _ in range(3)]
            assert agent.process.stdin is not None
            agent.process.stdin.write(json.dumps({"reject": seqs[0], "reason": "no"}) + "\n")
            agent.process.stdin.write(json.dumps({"ack": seqs[1]}) + "\n")
            agent.process.stdin.close()
            assert agent.wait() == 5
            assert "1 printed message(s) are not confirmed" in "\n".join(agent.rest_of_errors())
        assert rows(database) == [(1, False, "no"), (2, True, None), (3, False, None)]

    def test_count_waits_for_the_confirmations(self, database: Path) -> None:
        sent(database, 1, 2)
        with (
            gateway(database),
            running(
                *COMMAND,
                "--db",
                str(database),
                *WORK,
                "--confirm-from-stdin",
                "--count",
                "1",
                stdin=subprocess.PIPE,
            ) as agent,
        ):
            seq = json.loads(agent.line())["seq"]
            assert agent.process.stdin is not None
            agent.process.stdin.write(json.dumps({"ack": seq}) + "\n")
            agent.process.stdin.flush()
            assert agent.wait() == 0
        assert rows(database) == [(1, True, None), (2, False, None)]

    @pytest.mark.parametrize(
        "line",
        ["no JSON", "[]", '{"ack":true}', '{"ack":1,"reject":1}', '{"ack":99}', '{"reject":1,"reason":7}'],
    )
    def test_line_that_is_no_confirmation_ends_it(self, database: Path, line: str) -> None:
        sent(database, 1)
        with (
            gateway(database),
            running(
                *COMMAND, "--db", str(database), *WORK, "--confirm-from-stdin", stdin=subprocess.PIPE
            ) as agent,
        ):
            agent.line()
            assert agent.process.stdin is not None
            agent.process.stdin.write(line + "\n")
            agent.process.stdin.flush()
            assert agent.wait() == 2
        assert rows(database) == [(1, False, None)]


class TestUsage:
    @pytest.mark.parametrize(
        ("options", "why"),
        [
            (["--exec"], "--exec without a command"),
            (["--", "cat"], "there is a command, and no --exec"),
            (["--exec", "--forward-to", "http://127.0.0.1:1", "--", "cat"], "exclude each other"),
            (["--exec", "--confirm-from-stdin", "--", "cat"], "exclude each other"),
            (["--exec", "--raw", "--envelope", "--", "cat"], "--raw and --envelope exclude each other"),
            (["--raw"], "--raw is for --exec or --forward-to"),
            (["--concurrency", "2"], "--concurrency is for --exec or --forward-to"),
            (["--forward-to", "http://127.0.0.1:1", "--timeout", "1s"], "--timeout is for --exec"),
            (["--exec", "--secret-file", "x", "--", "cat"], "--secret-file is for --forward-to"),
            (["--exec", "--", "no-such-program"], "there is no program no-such-program"),
            (["--reply"], "--reply is for --exec"),
            (["--exec", "--timeout", "soon", "--", "cat"], "not a duration"),
            (["--forward-to", "example.com"], "not an address to forward to"),
        ],
    )
    def test_options_that_make_no_sense(self, database: Path, options: list[str], why: str) -> None:
        refused = command(database, *WORK, *options)
        assert refused.returncode == 2
        assert why in refused.stderr
        assert "Traceback" not in refused.stderr
