"""Runs one command for one message: its input, the end of what it writes to stderr, its time."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

from ws_manager.errors import InvalidInput

KEPT_BYTES = 4096
"""The bytes of stderr that are kept: its end."""

DONE, REJECTED, FAILED = "done", "rejected", "failed"
"""What a command has done with its message: worked on it, refused it for good, or neither."""

_CANNOT_TAKE_IT = 65
"""The exit code of a command that cannot take its message: `EX_DATAERR` of sysexits.h."""

_CHUNK = 65_536
_MOST_CHUNKS = 16
"""A pipe holds at most 1 MiB (Linux, `fs.pipe-max-size`)."""
_EXITED, _END = b"x", b"e"


class Limits(NamedTuple):
    """How long a command may run.

    Attributes:
        timeout: seconds after which its process group gets SIGTERM; None for never.
        kill_after: seconds from SIGTERM to SIGKILL.
    """

    timeout: Optional[float]
    kill_after: float


class Outcome(NamedTuple):
    """How a command has ended.

    Attributes:
        code: its exit code; that of a signal is negative.
        late: whether its time was over, or it was ended.
        errors: the end of what it wrote to stderr.
        output: what it wrote to stdout, if that was captured.
        truncated: whether it wrote more to stdout than was asked for.
    """

    code: int
    late: bool
    errors: str
    output: bytes
    truncated: bool

    @property
    def verdict(self) -> str:
        """`DONE`, `REJECTED` or `FAILED`."""
        if self.late:
            return FAILED
        return {0: DONE, _CANNOT_TAKE_IT: REJECTED}.get(self.code, FAILED)

    @property
    def reason(self) -> str:
        """Why it has failed, in words."""
        how = f"exit code {self.code}" if self.code >= 0 else f"ended by {_signal_name(-self.code)}"
        why = f"time is over, {how}" if self.late else how
        return f"{why}: {self.errors.strip()}" if self.errors.strip() else why


def check_command(arguments: Sequence[str]) -> None:
    """Refuse what cannot be run.

    Raises:
        InvalidInput: there is no such program, or this system has no process groups.
    """
    if not hasattr(os, "killpg"):
        raise InvalidInput(
            "--exec needs a POSIX system",
            hint="on Windows, read what listen prints, with --confirm-from-stdin",
        )
    if shutil.which(arguments[0]) is None:
        raise InvalidInput(
            f"there is no program {arguments[0]} to run", hint="give its path, or check PATH and its mode"
        )


def not_started(error: OSError) -> str:
    """Return why a command could not be started, in words."""
    return f"cannot start it: {os.strerror(error.errno or 0)}"


class Command:
    """A command in a process group of its own. `run` is called once, in any thread; `end` in any other.

    It has ended when its first process has: what that leaves behind may go on, and is not waited for.

    Args:
        arguments: the program and its arguments; no shell reads them.
        environment: the variables.
        given: what it gets on stdin.
        limits: how long it may run.
        most_output: the bytes of stdout to capture; None to hand on our own stdout.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        given: bytes,
        limits: Limits,
        most_output: Optional[int] = None,
    ) -> None:
        self._arguments = arguments
        self._environment = environment
        self._given = memoryview(given)
        self._limits = limits
        self._most_output = most_output
        self._errors = bytearray()
        self._output = bytearray()
        self._late = False
        self._waking, self._wake = os.pipe()
        # A closed descriptor's number may be another file's at once.
        self._open = threading.Lock()

    def end(self) -> None:
        """Ask the command to end now, as if its time were over. Nothing happens after it has ended."""
        with self._open:
            if self._wake >= 0:
                os.write(self._wake, _END)

    def run(self) -> Outcome:
        """Run it, and return how it ended.

        Raises:
            OSError: it cannot be started.
        """
        try:
            process = subprocess.Popen(  # noqa: S603 - no shell, and the operator's own command
                self._arguments,
                stdin=subprocess.PIPE,
                stdout=None if self._most_output is None else subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,
                bufsize=0,
            )
            waiting = threading.Thread(target=self._wait, args=(process,), daemon=True)
            waiting.start()
            with selectors.DefaultSelector() as ready:
                self._talk(process, ready)
            waiting.join()
        finally:
            with self._open:
                os.close(self._waking)
                os.close(self._wake)
                self._wake = -1
        most = self._most_output or 0
        errors = bytes(self._errors).decode("utf-8", "replace")
        return Outcome(
            process.returncode, self._late, errors, bytes(self._output[:most]), len(self._output) > most
        )

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        os.write(self._wake, _EXITED)

    def _talk(self, process: subprocess.Popen[bytes], ready: selectors.BaseSelector) -> None:
        """Write its input and read what it writes until it has exited."""
        ready.register(self._waking, selectors.EVENT_READ)
        for pipe, event in (
            (process.stdin, selectors.EVENT_WRITE),
            (process.stdout, selectors.EVENT_READ),
            (process.stderr, selectors.EVENT_READ),
        ):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                ready.register(pipe, event)
        deadline = None if self._limits.timeout is None else time.monotonic() + self._limits.timeout
        exited = False
        while not exited:
            events = ready.select(None if deadline is None else max(0.0, deadline - time.monotonic()))
            woken = b""
            for key, _ in events:
                if key.fileobj == self._waking:
                    woken = os.read(self._waking, 16)
                else:
                    self._move(process, key.fileobj, ready)
            exited = _EXITED in woken
            if not exited and (_END in woken or (deadline is not None and time.monotonic() >= deadline)):
                deadline = self._signal(process)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                self._read_rest(process, pipe)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()

    def _read_rest(self, process: subprocess.Popen[bytes], pipe: object) -> None:
        """Read what it had written when it ended. What it left behind may hold the pipe open, and go on writing."""
        for _ in range(_MOST_CHUNKS):
            if not self._read(process, pipe):
                return

    def _signal(self, process: subprocess.Popen[bytes]) -> Optional[float]:
        """Send SIGTERM to the process group, or SIGKILL the second time, and return the time for the next."""
        number = signal.SIGKILL if self._late else signal.SIGTERM
        deadline = None if self._late else time.monotonic() + self._limits.kill_after
        self._late = True
        # It may have ended this moment.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        return deadline

    def _move(self, process: subprocess.Popen[bytes], pipe: object, ready: selectors.BaseSelector) -> None:
        assert process.stdin is not None
        if pipe is process.stdin:
            try:
                self._given = self._given[os.write(process.stdin.fileno(), self._given[:_CHUNK]) :]
            except BrokenPipeError:
                # It need not read its input.
                self._given = self._given[:0]
            if not self._given:
                ready.unregister(process.stdin)
                process.stdin.close()
        elif not self._read(process, pipe):
            ready.unregister(pipe)  # type: ignore[arg-type]

    def _read(self, process: subprocess.Popen[bytes], pipe: object) -> int:
        """Read what is there, and return how many bytes; 0 at the end, or if nothing is there at present."""
        try:
            read = os.read(pipe.fileno(), _CHUNK)  # type: ignore[attr-defined]
        except BlockingIOError:
            return 0
        if pipe is process.stderr:
            # Whether anybody reads our stderr makes no difference to the message.
            with contextlib.suppress(OSError):
                sys.stderr.buffer.write(read)
                sys.stderr.buffer.flush()
            self._errors += read
            del self._errors[:-KEPT_BYTES]
        elif self._most_output is not None and len(self._output) <= self._most_output:
            self._output += read
        return len(read)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
