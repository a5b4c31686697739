"""`ws-manager broadcast`: send a message to all active connections."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from typing import TYPE_CHECKING, NamedTuple, Optional

import typer

from ws_manager.cli.filters import WHERE, conditions, note_unknown
from ws_manager.cli.ledger import ledger_to_write
from ws_manager.cli.options import global_options
from ws_manager.cli.output.text import note
from ws_manager.cli.sending import (
    BATCH_HELP,
    EVERY_AGENT,
    KEY_HELP,
    MESSAGE_HELP,
    TRACEPARENT_HELP,
    WAIT_HELP,
    content_of,
    nothing_to_send,
    report_sent,
    traceparent_of,
)
from ws_manager.core.validation import check_name, encode_content
from ws_manager.errors import InvalidInput
from ws_manager.models import Broadcast
from ws_manager.settings import parse_duration

if TYPE_CHECKING:
    from ws_manager.core.ledger import Ledger
    from ws_manager.core.read.conditions import Conditions


def broadcast(
    ctx: typer.Context,
    message: Optional[str] = typer.Argument(None, metavar="<message>", help=MESSAGE_HELP),
    agent: Optional[str] = typer.Option(
        None, "--agent", metavar="NAME", help="Only to the connections of this agent."
    ),
    msg_type: str = typer.Option("broadcast", "--type", metavar="NAME", help="The message's type."),
    wait: Optional[str] = typer.Option(None, "--wait", metavar="DURATION", help=WAIT_HELP),
    batch: Optional[str] = typer.Option(None, "--batch", metavar="FILE", help=BATCH_HELP),
    key: Optional[str] = typer.Option(None, "--idempotency-key", metavar="KEY", help=KEY_HELP),
    where: Optional[list[str]] = WHERE,
    dry_run: bool = typer.Option(
        False,
        "--dry-run",
        help="Send nothing: show which connections would get it, and why the others would not.",
    ),
    traceparent: Optional[str] = typer.Option(None, "--traceparent", metavar="TEXT", help=TRACEPARENT_HELP),
) -> None:
    """Send a message to all active connections.

    When the command returns, the messages to all recipients are in the ledger, or none is.
    """
    trace = traceparent_of(traceparent)
    if batch is not None:
        from ws_manager.cli.batch import BatchRun, check_batch_options
        from ws_manager.cli.process.line_reader import Lines

        others: dict[str, object] = {"<message>": message, "--wait": wait}
        others |= {"--where": where, "--dry-run": dry_run, "--idempotency-key": key}
        check_batch_options(global_options(ctx), others)
        with Lines(batch) as lines, ledger_to_write(ctx) as ledger:
            BatchRun(ledger, check_name(msg_type, "message type"), trace).broadcast(lines, agent)
        return
    if message is None:
        raise nothing_to_send("broadcast", "<message>")
    seconds = None if wait is None else parse_duration(wait)
    chosen = conditions(where)
    content = content_of(message)
    if dry_run:
        from ws_manager.cli.preview import preview

        if seconds is not None:
            raise InvalidInput("--dry-run and --wait exclude each other", hint="nothing is sent to wait for")
        preview(ctx, content, msg_type, agent, chosen)
        return
    with ledger_to_write(ctx) as ledger:
        request = _Request(content, agent, where, msg_type, trace)
        sent = _broadcast(ledger, request, chosen, key)
        line = f"Broadcast to {len(sent.recipients)} connection(s)"
        row = {"broadcast_id": sent.broadcast_id, "recipients": sent.recipients}
        note_unknown(ledger, agent=agent)
        if not sent.recipients:
            note("note: nobody got it: no such connection is active (ws-manager list --all shows all)")
        more = [f"broadcast_id: {sent.broadcast_id}"]
        report_sent(global_options(ctx), ledger, line, row, sent.broadcast_id, sent, seconds, more)


class _Request(NamedTuple):
    """What is to be broadcast, and to whom."""

    content: str
    agent: Optional[str]
    where: Optional[list[str]]
    msg_type: str
    traceparent: Optional[str]


def _broadcast(
    ledger: "Ledger", request: _Request, chosen: Optional["Conditions"], key: Optional[str]
) -> Broadcast:
    """Send the broadcast; with a key that was used, return the one that was sent then."""
    made: list[Broadcast] = []

    def sent() -> str:
        made.append(
            ledger.broadcast(
                request.content,
                agent=request.agent,
                filter_fn=chosen,
                msg_type=request.msg_type,
                traceparent=request.traceparent,
            )
        )
        return made[0].broadcast_id

    if key is None:
        sent()
        return made[0]
    from ws_manager.core.once import broadcasting_key

    text = encode_content(request.content, ledger.sizes.content)
    once = broadcasting_key(EVERY_AGENT, key, request.agent, request.where, text, request.msg_type)
    broadcast_id, replayed = ledger.once(once, sent)
    if not replayed:
        return made[0]
    note("note: it was sent before with this key")
    return Broadcast(broadcast_id, ledger.addressed(broadcast_id))
