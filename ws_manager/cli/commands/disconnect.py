"""`ws-manager disconnect`: mark a connection as disconnected."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
import typer

from ws_manager.cli.errors import not_active
from ws_manager.cli.ledger import ledger_to_write
from ws_manager.cli.options import global_options
from ws_manager.cli.output.results import write_result
from ws_manager.models import DISCONNECTED


def disconnect(
    ctx: typer.Context,
    ws_id: str = typer.Argument(..., metavar="<ws_id>", help="The connection."),
) -> None:
    """Mark a connection as disconnected.

    A gateway that holds its socket closes it. Pending messages stay pending.
    """
    with ledger_to_write(ctx) as ledger:
        if not ledger.disconnect(ws_id):
            raise not_active(ledger, ws_id)
    write_result(
        global_options(ctx), f"Disconnected: {ws_id}", {"ws_id": ws_id, "status": DISCONNECTED}, ws_id
    )
