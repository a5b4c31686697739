"""`ws-manager replay`: send the content of a message again, to any connection."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
import typer

from ws_manager.cli.errors import not_active
from ws_manager.cli.ledger import ledger_to_write
from ws_manager.cli.options import global_options
from ws_manager.cli.output.results import write_result
from ws_manager.errors import NotFound
from ws_manager.models import Message
from ws_manager.remedies import LIST_ALL


def replay(
    ctx: typer.Context,
    msg_id: str = typer.Argument(..., metavar="<msg_id>", help="The message, or a part of its msg_id."),
    to: str = typer.Option(..., "--to", metavar="<ws_id>", help="The connection that gets it."),
) -> None:
    """Send a message again, to any connection.

    Its content goes out as a new message, whose `retry_of` names the old one. That stays as it is.
    """
    with ledger_to_write(ctx) as ledger:
        found = ledger.look_up(msg_id)
        if not isinstance(found, Message):
            raise NotFound(f"{msg_id} is not a message", remedy=LIST_ALL)
        sent = ledger.replay(found, to)
        if sent is None:
            raise not_active(ledger, to)
    row = {"msg_id": sent.msg_id, "ws_id": to, "retry_of": found.msg_id}
    write_result(global_options(ctx), f"Sent message {sent.msg_id} to {to}", row, sent.msg_id)
