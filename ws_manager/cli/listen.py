"""`ws-manager listen`: be an agent, print what arrives, and confirm it once it is printed."""

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

import typer

from ws_manager.cli.gateways import gateway_url
from ws_manager.cli.options import GlobalOptions, global_options
from ws_manager.cli.output import message_line, note, stream_format
from ws_manager.cli.signals import stop_on_signals
from ws_manager.errors import InvalidInput

_BATCH = 100
_SCOPE = typer.Option(
    None,
    "--scope",
    metavar="SCOPES",
    help="What the token allows that it makes for itself on the gateway's machine: of connect, send, broadcast, "
    "admin; separated by spaces, or repeated. [default: connect]",
)
Result = TypeVar("Result")


def listen(
    ctx: typer.Context,
    agent: str = typer.Argument(..., metavar="<agent>", help="The agent's name, such as octavia."),
    ws_id: Optional[str] = typer.Option(
        None, "--ws-id", metavar="ID", help="Be this connection, or resume it. Made up if left out."
    ),
    metadata: Optional[str] = typer.Option(
        None, "--metadata", metavar="JSON", help="A JSON object for the registration, at most 4 KiB."
    ),
    count: Optional[int] = typer.Option(
        None, "--count", metavar="N", help="End after so many messages; the rest stays pending."
    ),
    token_file: Optional[str] = typer.Option(
        None,
        "--token-file",
        metavar="FILE",
        help="The token, read again at each connection. Not needed on the gateway's machine. "
        "[env: BLACKROAD_WS_TOKEN, the token itself]",
    ),
    scope: Optional[list[str]] = _SCOPE,
    ca: Optional[str] = typer.Option(
        None, "--ca", metavar="FILE", help="PEM certificates to check an https gateway's with."
    ),
) -> None:
    """Connect to the gateway as an agent and print what arrives.

    Each message is confirmed once it has been written: one JSON object a line in a pipe, a readable line on a
    terminal. It comes back when the connection is lost, and ends on SIGTERM and SIGINT. Without --url it
    uses the gateway of the database on this machine.
    """
    from ws_manager.client.agent import AgentClient
    from ws_manager.core.values import check_name

    options = global_options(ctx)
    form = stream_format(options)
    if count is not None and count < 1:
        raise InvalidInput(f"not a number of messages: {count}", hint="give --count 1 or more")

    client = AgentClient(
        check_name(agent, "agent"),
        url=options.url or (lambda: gateway_url(options.database)),
        ws_id=None if ws_id is None else check_name(ws_id, "ws_id"),
        metadata=_details(metadata),
        on_connected=lambda greeting: _tell_connected(greeting, ws_id),
        on_lost=lambda cause, delay: note(f"Disconnected: {cause}. Trying again in {delay:.1f} s."),
        token=_token_source(options, agent, ws_id, token_file, scope),
        ca=None if ca is None else Path(ca).expanduser(),
    )
    asyncio.run(_listen(client, count, form))


def _tell_connected(greeting: Any, ws_id: Optional[str]) -> None:  # noqa: ANN401 - loaded late, as is aiohttp
    what = "resumed" if greeting.resumed else "connected"
    note(f"Ready: {what} {greeting.ws_id} (agent={greeting.agent}), {greeting.pending} pending")
    if ws_id is None and not greeting.resumed:
        note(f"Without --ws-id, {greeting.ws_id} cannot be resumed after this command has ended.")


def _details(metadata: Optional[str]) -> Optional[dict[str, Any]]:
    from ws_manager.core.values import decode_json

    details = None if metadata is None else decode_json(metadata, "metadata")
    if details is not None and not isinstance(details, dict):
        raise InvalidInput("metadata must be a JSON object", hint='for example {"region":"us-west"}')
    return details


def _token_source(
    options: GlobalOptions,
    agent: str,
    ws_id: Optional[str],
    file: Optional[str],
    scope: Optional[list[str]],
) -> Callable[[], Optional[str]]:
    """Return a function that gives the token for the next attempt."""
    from ws_manager.client.credentials import own_token, token_file
    from ws_manager.tokens import check_scopes

    if file is not None:
        if scope:
            raise InvalidInput(
                "--scope is for the token that it makes for itself, and --token-file gives one",
                hint="give one of the two; ws-manager token <agent> --scope makes a token with other scopes",
            )
        return token_file(Path(file).expanduser())
    # It prints and confirms: for that a token need not allow to send.
    scopes = check_scopes(" ".join(scope).split() if scope else ("connect",))
    # An address that comes out of the database is its own gateway's, whatever the address is.
    ours = options.url is None
    return lambda: own_token(options.database, agent, ws_id, options.url or "", ours=ours, scopes=scopes)


async def _listen(client: Any, count: Optional[int], form: str) -> None:  # noqa: ANN401 - an AgentClient
    stop = asyncio.Event()
    stop_on_signals(lambda _number: stop.set())
    if await _unless(stop, client.__aenter__()) is None:
        return
    try:
        left = count
        while left != 0:
            messages = await _unless(stop, client.batch(_BATCH if left is None else min(left, _BATCH)))
            if messages is None:
                return
            # Not on the event loop: whoever reads the pipe may be slow, and Pings have to be answered.
            await asyncio.get_running_loop().run_in_executor(None, _print, messages, form)
            await client.ack(messages[-1])
            left = None if left is None else left - len(messages)
    finally:
        await client.__aexit__(None, None, None)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, Result]) -> Optional[Result]:
    """Return what `work` returns, or None if `stop` is set first."""
    working, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        stopped.cancel()
        await asyncio.gather(working, stopped, return_exceptions=True)


def _print(messages: list[Any], form: str) -> None:
    sys.stdout.write("".join(message_line(message.as_dict(), form) + "\n" for message in messages))
    sys.stdout.flush()
