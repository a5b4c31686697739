"""Real commands: what they get, what is kept of what they write, and how they are ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Optional

import pytest

from ws_manager.cli.work.command import KEPT_BYTES, Command, Limits, Outcome

NO_LIMITS = Limits(None, 10.0)
DESCRIPTORS = Path("/proc/self/fd")


def ran(
    program: str, given: bytes = b"", limits: Limits = NO_LIMITS, most_output: Optional[int] = None
) -> Outcome:
    """Run a Python program."""
    return Command([sys.executable, "-c", program], os.environ, given, limits, most_output).run()


def test_gets_its_input_and_its_output_is_captured() -> None:
    outcome = ran("import sys; print(sys.stdin.read().upper(), end='')", b"hello", most_output=100)
    assert (outcome.code, outcome.output, outcome.truncated) == (0, b"HELLO", False)


def test_input_and_output_larger_than_a_pipe_are_moved_at_the_same_time() -> None:
    given = os.urandom(3 * 1024 * 1024)
    outcome = ran(
        "import sys\nfor _ in range(48): sys.stdout.buffer.write(sys.stdin.buffer.read(65536))",
        given,
        most_output=len(given),
    )
    assert (outcome.code, outcome.output) == (0, given)


def test_more_output_than_is_wanted_is_read_and_told() -> None:
    outcome = ran("print('x' * 1_000_000)", most_output=1000)
    assert (outcome.code, outcome.output, outcome.truncated) == (0, b"x" * 1000, True)


def test_command_that_does_not_read_its_input_ends_as_it_likes() -> None:
    assert ran("raise SystemExit(7)", b"x" * 1_000_000).code == 7


def test_end_of_stderr_is_kept_and_all_of_it_is_handed_on(capfd: pytest.CaptureFixture[str]) -> None:
    outcome = ran("import sys; sys.stderr.write('a' * 100_000 + 'the end'); sys.exit(3)")
    assert outcome.errors == "a" * (KEPT_BYTES - 7) + "the end"
    assert outcome.reason.startswith("exit code 3: aaa")
    assert capfd.readouterr().err == "a" * 100_000 + "the end"


def test_reason_names_the_signal() -> None:
    assert ran("import os; os.kill(os.getpid(), 9)").reason == "ended by SIGKILL"


def test_late_command_gets_sigterm_with_its_whole_group() -> None:
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    outcome = ran(program, limits=Limits(0.5, 60.0))
    assert outcome.late
    assert outcome.reason.startswith("time is over, ended by SIGTERM")


def test_command_that_ignores_sigterm_gets_sigkill() -> None:
    outcome = ran(
        "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)", limits=Limits(0.5, 0.1)
    )
    assert outcome.reason == "time is over, ended by SIGKILL"


def test_command_that_cleans_up_at_sigterm_is_late_all_the_same() -> None:
    outcome = ran(
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0)); time.sleep(60)",
        limits=Limits(0.5, 60.0),
    )
    assert (outcome.code, outcome.late) == (0, True)


def test_it_is_ended_from_another_thread() -> None:
    command = Command([sys.executable, "-c", "import time; time.sleep(60)"], os.environ, b"", NO_LIMITS)
    threading.Timer(0.2, command.end).start()
    assert command.run().code == -signal.SIGTERM
    command.end()


def test_what_it_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    # The grandchild has the same stderr, and would keep a reader waiting for its end.
    program = (
        "import subprocess, sys; sys.stderr.write('before'); sys.stderr.flush();"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))"
    )
    outcome = ran(program, most_output=100)
    left = int((tmp_path / "pid").read_text())
    os.kill(left, signal.SIGKILL)
    assert (outcome.code, outcome.errors) == (0, "before")


def test_program_that_is_not_there_cannot_be_started() -> None:
    with pytest.raises(FileNotFoundError):
        Command(["/nowhere/program"], os.environ, b"", NO_LIMITS).run()


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="the system does not list a process's open files")
def test_no_descriptor_is_left_open() -> None:
    before = len(list(DESCRIPTORS.iterdir()))
    for _ in range(20):
        ran("pass", b"x", most_output=10)
    assert len(list(DESCRIPTORS.iterdir())) == before
