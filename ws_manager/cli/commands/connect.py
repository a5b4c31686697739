"""`ws-manager connect`: register a connection for an agent."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from typing import Optional

import typer

from ws_manager.cli.ledger import ledger_to_write
from ws_manager.cli.options import SHARED_HELP, global_options
from ws_manager.cli.output.results import write_result
from ws_manager.cli.output.text import note
from ws_manager.forms import connection_form
from ws_manager.strict_json import checked_object
from ws_manager.text import without_mark


def connect(
    ctx: typer.Context,
    agent: str = typer.Argument(..., metavar="<agent>", help="The agent's name, such as octavia."),
    ws_id: Optional[str] = typer.Option(
        None, "--ws-id", metavar="ID", help="Its WebSocket identifier; a UUID is made without it."
    ),
    metadata: Optional[str] = typer.Option(
        None, "--metadata", metavar="JSON", help="A JSON object. Without it, the stored metadata is kept."
    ),
    shared: bool = typer.Option(False, "--shared", help=SHARED_HELP),
) -> None:
    """Register a connection for an agent.

    A known id is registered again: it keeps its row, its message count and its pending messages.
    """
    options = global_options(ctx)
    given = None if metadata is None else checked_object(without_mark(metadata), "metadata")
    with ledger_to_write(ctx, create=True, shared=shared) as ledger:
        known = None if ws_id is None else ledger.find(ws_id)
        moves = known is not None and known.agent != agent
        aside = ledger.count_pending(known) if known is not None and moves else 0
        connection = ledger.connect(agent, ws_id, given)
        row = connection_form(connection, ledger.count_pending(connection)) if options.output else {}
    line = f"Connected: {connection.ws_id} (agent={connection.agent})"
    write_result(options, line, row, connection.ws_id)
    if known is not None and moves:
        note(
            f"note: {connection.ws_id} belonged to {known.agent}; {aside} pending message(s) are set aside, "
            "and a socket is closed"
        )
