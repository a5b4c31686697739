"""`ws-manager listen`: run an agent that prints messages and confirms them."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Callable, Optional, TypeVar

import typer

from ws_manager.cli.gateways import gateway_url
from ws_manager.cli.options import GlobalOptions, global_options
from ws_manager.cli.output.messages import message_line, stream_format
from ws_manager.cli.output.text import note
from ws_manager.cli.process.signals import stop_on_signals
from ws_manager.cli.process.stream import Stop, Stream
from ws_manager.errors import InvalidInput
from ws_manager.strict_json import checked_object
from ws_manager.text import without_mark

_BATCH = 100
_SCOPE = typer.Option(
    None,
    "--scope",
    metavar="SCOPES",
    help="The scopes of the token that the command makes on the gateway's machine: connect, send, broadcast, admin; "
    "separated by spaces, or repeated. [default: connect]",
)
Result = TypeVar("Result")


def listen(
    ctx: typer.Context,
    agent: str = typer.Argument(..., metavar="<agent>", help="The agent's name, such as octavia."),
    ws_id: Optional[str] = typer.Option(
        None, "--ws-id", metavar="ID", help="The connection to make or to resume. [default: a new id]"
    ),
    metadata: Optional[str] = typer.Option(
        None, "--metadata", metavar="JSON", help="The connection's metadata, a JSON object of at most 4 KiB."
    ),
    count: Optional[int] = typer.Option(
        None, "--count", metavar="N", help="End after N messages; the others stay pending."
    ),
    scope: Optional[list[str]] = _SCOPE,
    stay: bool = typer.Option(
        False,
        "--stay",
        help="At the end, do not say goodbye: the connection stays active until its heartbeat times out, so that "
        "what is sent meanwhile waits for it.",
    ),
) -> None:
    """Connect to the gateway as an agent and print what arrives.

    A terminal shows readable lines; elsewhere there is one JSON object per line. Each message is confirmed once
    it has been written. A lost connection is resumed. SIGTERM and SIGINT end the command. Without --url it
    connects to the gateway that serves the database on this machine.
    """
    from ws_manager.client.agent import AgentClient
    from ws_manager.core.validation import check_name

    options = global_options(ctx)
    form = stream_format(options)
    if count is not None and count < 1:
        raise InvalidInput(f"not a number of messages: {count}", hint="give --count 1 or more")

    client = AgentClient(
        # A connection of an earlier version may have names that are invalid now: the gateway decides.
        check_name(agent, "agent", known=ws_id is not None),
        url=options.url or (lambda: gateway_url(options.database)),
        ws_id=None if ws_id is None else check_name(ws_id, "ws_id", known=True),
        metadata=None if metadata is None else checked_object(without_mark(metadata), "metadata"),
        on_connected=lambda greeting: _tell_connected(greeting, ws_id),
        on_lost=lambda cause, delay: note(f"Disconnected: {cause}. Trying again in {delay:.1f} s."),
        token=_token_source(options, agent, ws_id, scope),
        ca=options.ca,
        # The database's own gateway runs on this machine, so no proxy is used.
        direct=options.url is None,
        stay=stay,
    )
    asyncio.run(_listen(client, count, form))


def _tell_connected(greeting: Any, ws_id: Optional[str]) -> None:  # noqa: ANN401 - loaded late, as is aiohttp
    what = "resumed" if greeting.resumed else "connected"
    note(f"Ready: {what} {greeting.ws_id} (agent={greeting.agent}), {greeting.pending} pending")
    if ws_id is None and not greeting.resumed:
        note(f"Without --ws-id, {greeting.ws_id} cannot be resumed after this command has ended.")


def _token_source(
    options: GlobalOptions,
    agent: str,
    ws_id: Optional[str],
    scope: Optional[list[str]],
) -> Callable[[], Optional[str]]:
    """Return a function that returns the token for the next connection attempt."""
    from ws_manager.client.credentials import own_token, token_file
    from ws_manager.tokens import check_scopes

    if options.token_file is not None:
        if scope:
            raise InvalidInput(
                "--scope is for the token that listen makes, and --token-file gives one",
                hint="leave out one of them; ws-manager token <agent> --scope makes a token with other scopes",
            )
        return token_file(options.token_file)
    # Printing and confirming needs no other scope.
    scopes = check_scopes(" ".join(scope).split() if scope else ("connect",))
    # Without --url, the address comes from the database, so the gateway is its own.
    ours = options.url is None
    database = options.database if ours else None
    return lambda: own_token(database, agent, ws_id, options.url or "", ours=ours, scopes=scopes)


async def _listen(client: Any, count: Optional[int], form: str) -> None:  # noqa: ANN401 - an AgentClient
    """Print and confirm messages until enough have come, a signal comes, or the reader closes the pipe.

    Raises:
        BrokenPipeError: the reader of the output has closed the pipe.
    """
    loop = asyncio.get_running_loop()
    with contextlib.closing(Stop()) as stop:
        stop_on_signals(stop.set)
        stream = Stream(stop)
        # A thread waits for the end, so that an idle agent uses no CPU.
        ended = loop.run_in_executor(None, stream.wait, None)
        try:
            if await _unless(ended, client.__aenter__()) is not None:
                await _print_all(client, count, form, stream, ended)
        finally:
            # Also while it was connecting: the connection may have been made in the last moment.
            await client.__aexit__(None, None, None)
            stop.set()
            await asyncio.gather(ended, return_exceptions=True)


async def _print_all(
    client: Any,  # noqa: ANN401 - an AgentClient
    count: Optional[int],
    form: str,
    stream: Stream,
    ended: "asyncio.Future[None]",
) -> None:
    left = count
    while left != 0:
        messages = await _unless(ended, client.batch(_BATCH if left is None else min(left, _BATCH)))
        if messages is None:
            return
        printing = _Printing(stream, form)
        try:
            # In a thread: the reader of the pipe may be slow, and the event loop has to answer Pings.
            await asyncio.get_running_loop().run_in_executor(None, printing.print, messages)
        finally:
            if printing.last is not None:
                await client.ack(printing.last)
        if stream.stopped:
            return
        left = None if left is None else left - len(messages)


class _Printing:
    """Prints messages. Each is flushed before it counts as printed.

    Attributes:
        last: the last printed message; None for none.
    """

    def __init__(self, stream: Stream, form: str) -> None:
        self.last: Any = None
        self._stream = stream
        self._form = form

    def print(self, messages: list[Any]) -> None:
        """Print messages until a signal comes."""
        for message in messages:
            fields = {**message.as_dict(), "content": message.content_json}
            line = message_line(fields, self._form) + "\n"
            if self._stream.stopped or not self._stream.write(line):
                return
            self.last = message


async def _unless(ended: "asyncio.Future[None]", work: Coroutine[Any, Any, Result]) -> Optional[Result]:
    """Return the result of `work`, or None if `ended` is done first; raise the exception of either."""
    working = asyncio.ensure_future(work)
    both: set[asyncio.Future[Any]] = {working, ended}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()
            return None
        return working.result()
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
