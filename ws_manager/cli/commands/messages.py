"""send and broadcast."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from typing import TYPE_CHECKING, Any, Optional

import typer

from ws_manager.cli.errors import not_active
from ws_manager.cli.exit_codes import PartlyDone
from ws_manager.cli.options import GlobalOptions, global_options, open_registry
from ws_manager.cli.output.rows import (
    note,
    note_to_terminal,
    result,
)
from ws_manager.core.validation import check_name
from ws_manager.errors import InvalidInput
from ws_manager.settings import parse_duration
from ws_manager.strict_json import NotJson, checked
from ws_manager.text import read_text, without_mark

if TYPE_CHECKING:
    from ws_manager.core.registry import Registry

_MESSAGE_HELP = (
    "JSON if it parses, otherwise text; - reads it from stdin. One that begins with - needs -- before it."
)
_BATCH_HELP = "Messages from a file, or from stdin with -: JSON, one a line; each is answered by a line."
_SEND_BATCH_HELP = _BATCH_HELP + ' Without <ws_id>: {"to":…,"content":…,"type":…}.'
_WHERE = typer.Option(
    None,
    "--where",
    metavar="CONDITION",
    help="Only where this holds, such as metadata.region=us-west: = != ~ < >. Repeatable: all must hold.",
)
_WAIT_HELP = "Wait so long for the confirmation: 30, 90s, 5m. Exit 5 if it does not come."


def send(
    ctx: typer.Context,
    ws_id: Optional[str] = typer.Argument(None, metavar="<ws_id>", help="The connection."),
    message: Optional[str] = typer.Argument(None, metavar="<message>", help=_MESSAGE_HELP),
    msg_type: str = typer.Option("data", "--type", metavar="NAME", help="The message's type."),
    wait: Optional[str] = typer.Option(None, "--wait", metavar="DURATION", help=_WAIT_HELP),
    batch: Optional[str] = typer.Option(None, "--batch", metavar="FILE", help=_SEND_BATCH_HELP),
) -> None:
    """Send a message to one connection.

    It is in the ledger when the command returns, and delivered when the agent has confirmed it.
    """
    if batch is not None:
        from ws_manager.cli.batch import BatchRun, check_alone
        from ws_manager.cli.process.line_reader import Lines

        check_alone(global_options(ctx), {"<message>": message, "--wait": wait})
        with Lines(batch) as lines, open_registry(ctx) as registry:
            BatchRun(registry, check_name(msg_type, "message type")).send(lines, ws_id)
        return
    if ws_id is None or message is None:
        raise _nothing_to_send("send", "<ws_id>" if ws_id is None else "<message>")
    seconds = None if wait is None else parse_duration(wait)
    content = _content(message)
    with open_registry(ctx) as registry:
        sent = registry.send(ws_id, content, msg_type)
        if sent is None:
            raise not_active(registry, ws_id)
        line = f"Sent message {sent.msg_id} to {ws_id}"
        row = {"msg_id": sent.msg_id, "ws_id": ws_id}
        _tell(global_options(ctx), registry, line, row, sent.msg_id, (sent.db_id, sent.db_id), seconds)


def broadcast(
    ctx: typer.Context,
    message: Optional[str] = typer.Argument(None, metavar="<message>", help=_MESSAGE_HELP),
    agent: Optional[str] = typer.Option(
        None, "--agent", metavar="NAME", help="Only to the connections of this agent."
    ),
    msg_type: str = typer.Option("broadcast", "--type", metavar="NAME", help="The message's type."),
    wait: Optional[str] = typer.Option(None, "--wait", metavar="DURATION", help=_WAIT_HELP),
    batch: Optional[str] = typer.Option(None, "--batch", metavar="FILE", help=_BATCH_HELP),
    where: Optional[list[str]] = _WHERE,
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Send nothing: show who would get it, and who would not and why."
    ),
) -> None:
    """Send a message to all active connections.

    All of them are in the ledger when the command returns, or none.
    """
    if batch is not None:
        from ws_manager.cli.batch import BatchRun, check_alone
        from ws_manager.cli.process.line_reader import Lines

        others: dict[str, object] = {"<message>": message, "--wait": wait}
        others |= {"--where": where, "--dry-run": dry_run}
        check_alone(global_options(ctx), others)
        with Lines(batch) as lines, open_registry(ctx) as registry:
            BatchRun(registry, check_name(msg_type, "message type")).broadcast(lines, agent)
        return
    if message is None:
        raise _nothing_to_send("broadcast", "<message>")
    seconds = None if wait is None else parse_duration(wait)
    chosen = None
    if where:
        from ws_manager.core.read.conditions import all_of

        chosen = all_of(where)
    content = _content(message)
    if dry_run:
        from ws_manager.cli.commands.preview import preview

        if seconds is not None:
            raise InvalidInput("--dry-run and --wait exclude each other", hint="nothing is sent to wait for")
        preview(ctx, content, msg_type, agent, chosen)
        return
    with open_registry(ctx) as registry:
        sent = registry.broadcast(content, agent=agent, filter_fn=chosen, msg_type=msg_type)
        line = f"Broadcast to {len(sent.recipients)} connection(s)"
        row = {"broadcast_id": sent.broadcast_id, "recipients": sent.recipients}
        span = (sent.first_id, sent.last_id)
        if not sent.recipients:
            note("note: nobody got it: no such connection is active (ws-manager list --all shows all)")
        _tell(global_options(ctx), registry, line, row, sent.broadcast_id, span, seconds)


def _nothing_to_send(command: str, missing: str) -> InvalidInput:
    return InvalidInput(
        f"missing argument '{missing}'",
        hint=f"see ws-manager {command} --help; --batch reads messages from a file",
    )


def _content(text: str) -> str:
    """Return what a message argument stands for: `Json` if it parses, otherwise the text itself."""
    text = _stdin() if text == "-" else without_mark(text)
    try:
        return checked(text, "message")
    except NotJson as error:
        # Somebody who begins like this means JSON, as a rule.
        if text.lstrip()[:1] in ("{", "[", '"'):
            note_to_terminal(f"note: {error.message}; it is sent as text")
        return text


def _stdin() -> str:
    from ws_manager.cli.process.line_reader import LONGEST, stdin

    text = read_text(stdin(), "the message on stdin", LONGEST)
    # `echo hello | ws-manager send ws-001 -` sends what `ws-manager send ws-001 hello` sends.
    text = text[: -len("\r\n")] if text.endswith("\r\n") else text[:-1] if text.endswith("\n") else text
    if not text:
        raise InvalidInput("stdin is empty: no message", hint="to send an empty text, write '\"\"'")
    return text


def _tell(
    options: GlobalOptions,
    registry: "Registry",
    line: str,
    row: dict[str, Any],
    identifier: str,
    span: tuple[Optional[int], Optional[int]],
    seconds: Optional[float],
) -> None:
    """Write what was sent and, with `seconds`, wait for its confirmation.

    Raises:
        PartlyDone: not everything was confirmed in time.
    """
    first, last = span
    if seconds is None:
        result(options, line, row, identifier)
        return
    # The documented line says that it is committed, so it does not wait. An object holds the outcome too.
    at_once = options.output in (None, "table", "wide", "id")
    if at_once:
        result(options, line, row, identifier)
    outcome = (0, 0, 0) if first is None or last is None else registry.wait(first, last, 0)
    try:
        if first is not None and last is not None and outcome[1]:
            note_to_terminal(f"waiting at most {seconds:g} s for {outcome[1]} confirmation(s)")
            outcome = registry.wait(first, last, seconds)
    finally:
        # Also when it is interrupted: the message is on its way, and nothing else tells its id.
        if not at_once:
            confirmed, pending, set_aside = outcome
            row |= {"confirmed": confirmed, "pending": pending, "set_aside": set_aside}
            result(options, line, row, identifier)
    _judge(outcome)


def _judge(outcome: tuple[int, int, int]) -> None:
    confirmed, pending, set_aside = outcome
    told = f"confirmed {confirmed} of {sum(outcome)}"
    if not pending and not set_aside:
        note(told)
        return
    missing = [f"{pending} pending"] * bool(pending) + [f"{set_aside} set aside"] * bool(set_aside)
    raise PartlyDone(
        f"{told}: {', '.join(missing)}", hint="ws-manager history shows each; what is pending is kept"
    )
