"""`ws-manager listen`: run an agent that prints messages and confirms them."""

import asyncio
from pathlib import Path
from typing import Any, Callable, Optional

import typer

from ws_manager.cli.gateways import gateway_url
from ws_manager.cli.options import KEY_FILE, GlobalOptions, global_options
from ws_manager.cli.output.messages import stream_format
from ws_manager.cli.output.text import note
from ws_manager.cli.work import options as work_options
from ws_manager.cli.work.options import Work, parse_work
from ws_manager.cli.work.ready_file import ReadyFile
from ws_manager.errors import InvalidInput
from ws_manager.settings import expanded, parse_duration
from ws_manager.strict_json import checked_object
from ws_manager.text import without_mark

_SCOPE = typer.Option(
    None,
    "--scope",
    metavar="SCOPES",
    help="The scopes of the token that the command makes on the gateway's machine: connect, send, broadcast, admin; "
    "separated by spaces, or repeated. [default: connect]",
)


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
    command: Optional[list[str]] = work_options.COMMAND,
    execute: bool = work_options.EXEC,
    forward_to: Optional[str] = work_options.FORWARD_TO,
    confirm_from_stdin: bool = work_options.CONFIRM_FROM_STDIN,
    raw: bool = work_options.RAW_FORM,
    envelope: bool = work_options.ENVELOPE_FORM,
    reply: bool = work_options.REPLY,
    concurrency: int = work_options.CONCURRENCY,
    max_attempts: Optional[int] = work_options.MAX_ATTEMPTS,
    timeout: Optional[str] = work_options.TIMEOUT,
    kill_after: Optional[str] = work_options.KILL_AFTER,
    secret_file: Optional[Path] = work_options.SECRET_FILE,
    header_file: Optional[Path] = work_options.HEADER_FILE,
    grace: str = work_options.GRACE,
    key_file: Optional[str] = KEY_FILE,
    idle_timeout: Optional[str] = work_options.IDLE_TIMEOUT,
    until_empty: bool = work_options.UNTIL_EMPTY,
    ready_file: Optional[Path] = work_options.READY_FILE,
    wait_for_gateway: bool = work_options.WAIT_FOR_GATEWAY,
) -> None:
    """Be an agent that prints messages, or works on them.

    A terminal shows readable lines; elsewhere there is one JSON object per line. Each message is confirmed once
    it has been written; with --exec or --forward-to, once the work is done. A lost connection is resumed. SIGTERM and
    SIGINT end the command. Without --url it connects to the gateway that serves the database on this machine.
    """
    from ws_manager.client.agent import AgentClient
    from ws_manager.client.ends import Ends
    from ws_manager.core.validation import check_name

    options = global_options(ctx)
    work = parse_work(
        "ws-manager listen <agent>",
        work_options.LISTENS,
        execute=execute,
        command=command,
        url=forward_to,
        confirms=confirm_from_stdin,
        raw=raw,
        envelope=envelope,
        replies=reply,
        concurrency=concurrency,
        max_attempts=max_attempts,
        timeout=timeout,
        kill_after=kill_after,
        secrets=secret_file,
        headers=header_file,
    )
    form = "" if work is not None else stream_format(options)
    if count is not None and count < 1:
        raise InvalidInput(f"not a number of messages: {count}", hint="give --count 1 or more")
    seconds, idle = parse_duration(grace), None if idle_timeout is None else parse_duration(idle_timeout)
    ready = ReadyFile(None if ready_file is None else expanded(ready_file))

    client = AgentClient(
        # A connection of an earlier version may have names that are invalid now: the gateway decides.
        check_name(agent, "agent", known=ws_id is not None),
        url=options.url or (lambda: gateway_url(options.database)),
        ws_id=None if ws_id is None else check_name(ws_id, "ws_id", known=True),
        metadata=None if metadata is None else checked_object(without_mark(metadata), "metadata"),
        on_connected=lambda greeting: _tell_connected(greeting, ws_id, ready),
        on_lost=lambda cause, delay: note(f"Disconnected: {cause}. Trying again in {delay:.1f} s."),
        token=_token_source(options, agent, ws_id, scope, key_file),
        ca=options.ca,
        # The database's own gateway runs on this machine, so no proxy is used.
        direct=options.url is None,
        stay=stay,
        wait_for_gateway=wait_for_gateway,
        max_attempts=None if work is None else work.max_attempts,
    )
    ends = Ends(count, idle, client.pending if until_empty else None)
    with ready:
        asyncio.run(_serve(client, agent, work, form, ends, seconds, confirms=confirm_from_stdin))


async def _serve(
    client: Any,  # noqa: ANN401 - an AgentClient, loaded late, as is aiohttp
    agent: str,
    what: Optional[Work],
    form: str,
    ends: Any,  # noqa: ANN401 - as above
    grace: float,
    *,
    confirms: bool,
) -> None:
    if what is not None:
        from ws_manager.cli.work.working import work

        await work(client, what, agent, ends, grace)
        return
    from ws_manager.cli.work.printing import print_messages

    await print_messages(client, form, ends, grace, confirms_from_stdin=confirms)


def _tell_connected(greeting: Any, ws_id: Optional[str], ready: ReadyFile) -> None:  # noqa: ANN401 - as above
    ready.write(greeting.ws_id)
    what = "resumed" if greeting.resumed else "connected"
    note(f"Ready: {what} {greeting.ws_id} (agent={greeting.agent}), {greeting.pending} pending")
    if ws_id is None and not greeting.resumed:
        note(f"Without --ws-id, {greeting.ws_id} cannot be resumed after this command has ended.")


def _token_source(
    options: GlobalOptions,
    agent: str,
    ws_id: Optional[str],
    scope: Optional[list[str]],
    key_file: Optional[str],
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
    key = None if key_file is None else expanded(key_file)
    return lambda: own_token(
        database, agent, ws_id, options.url or "", ours=ours, scopes=scopes, key_file=key
    )
