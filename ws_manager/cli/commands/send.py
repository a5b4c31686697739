"""`ws-manager send`: send a message to one connection."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from typing import TYPE_CHECKING, Optional

import typer

from ws_manager.cli.errors import not_active
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
from ws_manager.core.validation import check_name
from ws_manager.errors import NotFound
from ws_manager.settings import parse_duration

if TYPE_CHECKING:
    from ws_manager.core.ledger import Ledger
    from ws_manager.models import Message

_BATCH_HELP = BATCH_HELP + ' Without <ws_id>, a line is {"to":…,"content":…,"type":…,"traceparent":…}.'


def send(
    ctx: typer.Context,
    ws_id: Optional[str] = typer.Argument(None, metavar="<ws_id>", help="The connection."),
    message: Optional[str] = typer.Argument(None, metavar="<message>", help=MESSAGE_HELP),
    msg_type: str = typer.Option("data", "--type", metavar="NAME", help="The message's type."),
    wait: Optional[str] = typer.Option(None, "--wait", metavar="DURATION", help=WAIT_HELP),
    key: Optional[str] = typer.Option(None, "--idempotency-key", metavar="KEY", help=KEY_HELP),
    batch: Optional[str] = typer.Option(None, "--batch", metavar="FILE", help=_BATCH_HELP),
    traceparent: Optional[str] = typer.Option(None, "--traceparent", metavar="TEXT", help=TRACEPARENT_HELP),
) -> None:
    """Send a message to one connection.

    When the command returns, the message is in the ledger. It is delivered once the agent has confirmed it.
    """
    trace = traceparent_of(traceparent)
    if batch is not None:
        from ws_manager.cli.batch import BatchRun, check_batch_options
        from ws_manager.cli.process.line_reader import Lines

        check_batch_options(
            global_options(ctx), {"<message>": message, "--wait": wait, "--idempotency-key": key}
        )
        with Lines(batch) as lines, ledger_to_write(ctx) as ledger:
            BatchRun(ledger, check_name(msg_type, "message type"), trace).send(lines, ws_id)
        return
    if ws_id is None or message is None:
        raise nothing_to_send("send", "<ws_id>" if ws_id is None else "<message>")
    seconds = None if wait is None else parse_duration(wait)
    content = content_of(message)
    with ledger_to_write(ctx) as ledger:
        sent = _send(ledger, ws_id, content, msg_type, key, trace)
        line = f"Sent message {sent.msg_id} to {ws_id}"
        row = {"msg_id": sent.msg_id, "ws_id": ws_id}
        report_sent(global_options(ctx), ledger, line, row, sent.msg_id, [sent], seconds)


def _send(
    ledger: "Ledger", ws_id: str, content: str, msg_type: str, key: Optional[str], trace: Optional[str]
) -> "Message":
    """Send the message; with a key that was used, return the one that was sent then."""
    made: list[Message] = []

    def sent() -> str:
        message = ledger.send(ws_id, content, msg_type, traceparent=trace)
        if message is None:
            raise not_active(ledger, ws_id)
        made.append(message)
        return message.msg_id

    if key is None:
        sent()
        return made[0]
    from ws_manager.core.once import sending_key
    from ws_manager.core.validation import encode_content

    text = encode_content(content, ledger.sizes.content)
    msg_id, replayed = ledger.once(sending_key(EVERY_AGENT, key, ws_id, text, msg_type), sent)
    if not replayed:
        return made[0]
    note("note: it was sent before with this key")
    known = ledger.message(msg_id)
    if known is None:
        raise NotFound(f"message {msg_id} was sent with this key, and is no longer in the ledger")
    return known
