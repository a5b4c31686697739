"""`listen` as a worker: it gives messages to a command or to an address until it is to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Callable, Optional

from ws_manager.cli.output.text import note
from ws_manager.cli.process.signals import call_on_signals
from ws_manager.cli.work.command import check_command
from ws_manager.cli.work.executing import Executor
from ws_manager.cli.work.forwarding import Forwarder
from ws_manager.cli.work.options import Work
from ws_manager.client.agent import AgentClient
from ws_manager.client.ends import Ends
from ws_manager.client.handlers import HandlerFunction
from ws_manager.errors import Conflict


async def work(client: AgentClient, what: Work, agent: str, ends: Ends, grace: float) -> None:
    """Work on an agent's messages. The first signal lets what has begun finish, the second ends it.

    Args:
        client: of the agent, not entered yet.
        what: what to do with each message.
        agent: the agent's name.
        ends: when to end without a signal.
        grace: seconds in which what has begun may finish.

    Raises:
        WsManagerError: the gateway has closed, and the agent must not come back; or the address that messages are
            posted to is gone.
    """
    gone: list[Conflict] = []
    working: asyncio.Future[None]

    def stop(error: Optional[Conflict] = None) -> None:
        gone.extend([error] if error is not None and not gone else [])
        working.cancel()

    async def all_of_it() -> None:
        async with _handler(what, agent, stop) as handler:
            client.on(concurrency=what.concurrency)(handler)
            try:
                await client.__aenter__()
                await client.run(
                    grace=grace,
                    count=ends.most,
                    idle_timeout=ends.idle_timeout,
                    until_empty=ends.pending is not None,
                )
            finally:
                # Also after a cancellation while it was connecting: the connection may have been made by then.
                await client.__aexit__(None, None, None)

    with _told_as_notes():
        working = asyncio.ensure_future(all_of_it())
        call_on_signals(lambda number: stop())
        with contextlib.suppress(asyncio.CancelledError):
            await working
    if gone:
        raise gone[0]


@contextlib.asynccontextmanager
async def _handler(
    what: Work, agent: str, on_gone: Callable[[Conflict], None]
) -> AsyncIterator[HandlerFunction]:
    if what.url is None:
        check_command(what.command)
        yield Executor(what, agent)
        return
    async with Forwarder(what.url, what.form, what.secrets, what.headers, on_gone) as forwarder:
        yield forwarder


class _Notes(logging.Handler):
    """Writes log records as notes: escaped, because a reason may hold what a stranger wrote."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        note(record.getMessage())


@contextlib.contextmanager
def _told_as_notes() -> Iterator[None]:
    log, notes = logging.getLogger("ws_manager.client"), _Notes()
    log.addHandler(notes)
    before, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.propagate = before
        log.removeHandler(notes)
