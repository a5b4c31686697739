"""`listen --exec`: each message is the input of a command."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ws_manager.cli.work.command import Command, Limits, Outcome
from ws_manager.cli.work.job import environment, given
from ws_manager.client.handlers import AttemptFailed, MessageRejected
from ws_manager.client.receipts import AgentMessage
from ws_manager.errors import InvalidInput

REJECTED = 65
"""The exit code of a command that cannot take the message: `EX_DATAERR` of sysexits.h."""


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


class Executor:
    """Runs a command for each message: a handler of `AgentClient`.

    Args:
        arguments: the program and its arguments.
        agent: the name of the agent.
        form: the form in which it gets a message: see `job.given`.
        limits: how long it may run.
        concurrency: how many run at the same time.
    """

    def __init__(
        self, arguments: Sequence[str], agent: str, form: str, limits: Limits, concurrency: int
    ) -> None:
        self._arguments = arguments
        self._agent = agent
        self._form = form
        self._limits = limits
        self._threads = ThreadPoolExecutor(concurrency, "command")

    async def __call__(self, message: AgentMessage) -> None:
        """Run the command, and wait for its end. If that is cancelled, the command is ended."""
        fields = {**message.as_dict(), "content": message.content_json}
        command = Command(
            self._arguments,
            environment(fields, self._agent, message.attempt),
            given(fields, self._form),
            self._limits,
        )
        running = asyncio.get_running_loop().run_in_executor(self._threads, command.run)
        try:
            outcome = await asyncio.shield(running)
        except asyncio.CancelledError:
            command.end()
            await asyncio.wait({running})
            raise
        except OSError as error:
            raise AttemptFailed(f"cannot start it: {os.strerror(error.errno or 0)}") from None
        _judge(outcome)


def _judge(outcome: Outcome) -> None:
    if outcome.late or outcome.code not in (0, REJECTED):
        raise AttemptFailed(outcome.reason)
    if outcome.code == REJECTED:
        raise MessageRejected(outcome.reason)
