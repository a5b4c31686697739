"""`ws-manager heartbeat`: record a heartbeat."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from typing import Optional

import typer

from ws_manager.cli.errors import not_active
from ws_manager.cli.ledger import ledger_to_write
from ws_manager.cli.options import global_options
from ws_manager.cli.output.results import write_result


def heartbeat(
    ctx: typer.Context,
    ws_id: str = typer.Argument(..., metavar="<ws_id>", help="The connection."),
    latency: Optional[float] = typer.Option(
        None, "--latency", metavar="MS", help="The measured round trip in milliseconds."
    ),
) -> None:
    """Record a heartbeat of a connection."""
    with ledger_to_write(ctx) as ledger:
        if not ledger.heartbeat(ws_id, latency):
            raise not_active(ledger, ws_id)
    row = {"ws_id": ws_id, "latency_ms": None if latency is None else round(latency)}
    write_result(global_options(ctx), f"Heartbeat updated for {ws_id}", row, ws_id)
