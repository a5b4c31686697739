"""`listen --exec`: each message is the input of a command."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ws_manager.cli.work.command import FAILED, REJECTED, Command, Limits, not_started
from ws_manager.cli.work.job import environment, given
from ws_manager.client.handlers import AttemptFailed, MessageRejected
from ws_manager.client.receipts import AgentMessage


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
            raise AttemptFailed(not_started(error)) from None
        if outcome.verdict == FAILED:
            raise AttemptFailed(outcome.reason)
        if outcome.verdict == REJECTED:
            raise MessageRejected(outcome.reason)
