"""`ws-manager broadcasts`: the latest broadcasts, and how far their delivery is."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from collections.abc import Sequence
from typing import Optional

import typer

from ws_manager.cli.ledger import ledger_if_any
from ws_manager.cli.options import global_options
from ws_manager.cli.output.format_options import EXCEL, FIELDS, NO_HEADERS, TIME, parse_format_options
from ws_manager.cli.output.rows import write_rows
from ws_manager.cli.output.text import Row, note_to_terminal
from ws_manager.forms import BROADCAST_FIELDS, broadcast_form

COLUMNS = tuple(name for name in BROADCAST_FIELDS if name != "traceparent")
"""The columns in csv and tsv."""


def broadcasts(
    ctx: typer.Context,
    limit: int = typer.Option(50, "--limit", metavar="N", help="At most N, the newest."),
    names: Optional[str] = FIELDS,
    no_headers: bool = NO_HEADERS,
    time: Optional[str] = TIME,
    excel: bool = EXCEL,
) -> None:
    """List the broadcasts, and how many have confirmed them.

    The newest comes first. Outside a terminal there is one tab-separated line per broadcast: broadcast_id, sent_at,
    msg_type, sender_id, recipients, confirmed, pending, set_aside.
    """
    options = global_options(ctx)
    formatting = parse_format_options(options, BROADCAST_FIELDS, names, no_headers, time, excel)
    found: list[Row] = []
    with ledger_if_any(ctx) as ledger:
        if ledger is not None:
            found = [broadcast_form(state) for state in ledger.broadcasts(limit)]
    if not found:
        note_to_terminal("no broadcasts")

    def table(rows_of_it: Sequence[Row]) -> None:
        from ws_manager.cli.output.tables import show_broadcasts

        show_broadcasts(rows_of_it, formatting)

    write_rows(options, found, COLUMNS, "broadcast_id", table, formatting)
