"""`broadcast --dry-run`: which connections would get a message, and why the others would not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import typer

from ws_manager.cli.ledger import ledger_if_any
from ws_manager.cli.options import global_options
from ws_manager.cli.output.rows import write_rows
from ws_manager.cli.output.text import Row, note_to_terminal
from ws_manager.core.read.conditions import Conditions
from ws_manager.core.validation import check_name, encode_content
from ws_manager.settings import sizes

COLUMNS = ("ws_id", "agent", "status", "gets_it", "why_not")


def preview(
    ctx: typer.Context, content: object, msg_type: str, agent: Optional[str], conditions: Optional[Conditions]
) -> None:
    """Write a row for each connection, active or not; with `-o id`, only the ws_ids of the recipients.

    Args:
        ctx: the command's context.
        content: the message; it is checked as if it were sent.
        msg_type: its type; it is checked too.
        agent: only to this agent's connections; None for all.
        conditions: only connections that meet them; None for all.

    Raises:
        InvalidInput: the message could not be sent.
    """
    options = global_options(ctx)
    encode_content(content, sizes().content)
    check_name(msg_type, "message type")
    found: list[Row] = []
    with ledger_if_any(ctx) as ledger:
        if ledger is not None:
            found = [
                {
                    "ws_id": connection.ws_id,
                    "agent": connection.agent,
                    "status": connection.status,
                    "gets_it": refusal is None,
                    "why_not": refusal,
                }
                for connection, refusal in ledger.recipients(agent, conditions)
            ]
    chosen = [row for row in found if row["gets_it"]]
    write_rows(options, chosen if options.output == "id" else found, COLUMNS, "ws_id", _table)
    note_to_terminal(
        f"dry run: nothing was sent; {len(chosen)} of {len(found)} known connection(s) would get it"
    )


def _table(found: Sequence[Row]) -> None:
    from ws_manager.cli.output.tables import show_recipients

    show_recipients(found)
