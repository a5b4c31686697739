"""`listen --exec`: each message is the input of a command."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from ws_manager.cli.work.command import FAILED, REJECTED, Command, Limits, Outcome, not_started
from ws_manager.cli.work.job import RAW, environment, given
from ws_manager.cli.work.options import Work
from ws_manager.client.handlers import AttemptFailed, MessageRejected
from ws_manager.client.receipts import AgentMessage
from ws_manager.errors import Conflict, InvalidInput
from ws_manager.strict_json import compact, decode_json

MOST_ANSWER = 60 * 1024
"""Bytes of an answer: a frame of an agent has at most 64 KiB, unless its gateway takes more."""


class Executor:
    """Runs a command for each message: a handler of `AgentClient`.

    Args:
        work: the command, and how it is run.
        agent: the name of the agent.
    """

    def __init__(self, work: Work, agent: str) -> None:
        self._work = work
        self._agent = agent
        self._limits = Limits(work.timeout, work.kill_after)
        self._threads = ThreadPoolExecutor(work.concurrency, "command")

    async def __call__(self, message: AgentMessage) -> None:
        """Run the command, and wait for its end. If that is cancelled, the command is ended."""
        fields = message.form()
        replies = self._work.replies and message.wants_reply
        command = Command(
            self._work.command,
            environment(fields, self._agent, message.attempt),
            given(fields, self._work.form),
            self._limits,
            MOST_ANSWER if replies else None,
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
        if replies:
            await self._reply(message, outcome)

    async def _reply(self, message: AgentMessage, outcome: Outcome) -> None:
        """Answer, and so confirm, a message with what its command wrote to stdout."""
        if outcome.truncated:
            raise AttemptFailed(f"its answer has more than {MOST_ANSWER} bytes")
        try:
            await message.reply(_answer(outcome.output, raw=self._work.form == RAW))
        except (Conflict, InvalidInput) as error:
            raise AttemptFailed(f"its answer is refused: {error.message}") from None


def _answer(output: bytes, *, raw: bool) -> object:
    """Return an answer: JSON if it is, otherwise text without its last line feed; with `raw`, text as it is."""
    text = output.decode("utf-8", "replace")
    if raw:
        return text
    try:
        decode_json(text, "answer")
        return compact(text.strip(), "answer")
    except InvalidInput:
        return text[:-1] if text.endswith("\n") else text
