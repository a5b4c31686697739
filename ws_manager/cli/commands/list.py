"""`ws-manager list`: list the active connections, or all."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
import sys
from collections.abc import Sequence
from typing import Optional

import typer

from ws_manager.cli.filters import WHERE, conditions, note_unknown
from ws_manager.cli.ledger import ledger_if_any
from ws_manager.cli.options import global_options
from ws_manager.cli.output.format_options import EXCEL, FIELDS, NO_HEADERS, TIME, parse_format_options
from ws_manager.cli.output.results import write_result
from ws_manager.cli.output.rows import write_rows
from ws_manager.cli.output.standing import backlog_text, gateways_text
from ws_manager.cli.output.text import Row, note_to_terminal
from ws_manager.core.read.listings import check_order
from ws_manager.forms import CONNECTION_FIELDS, connection_form
from ws_manager.settings import heartbeat_timeout

COLUMNS = (
    "ws_id",
    "agent",
    "status",
    "connected_at",
    "last_heartbeat",
    "message_count",
    "pending",
    "metadata",
)
"""The columns in csv and tsv."""


ENDING = ("disconnected_at", "close_code", "close_reason")
"""The further columns of `list --all`."""


def list_connections(
    ctx: typer.Context,
    all_of_them: bool = typer.Option(
        False, "--all", help="Also disconnected ones, with when and why they ended."
    ),
    agent: Optional[str] = typer.Option(
        None, "--agent", metavar="NAME", help="Only the connections of this agent."
    ),
    stale: bool = typer.Option(
        False,
        "--stale",
        help="Only those whose last heartbeat is older than the timeout. [env: BLACKROAD_HB_TIMEOUT]",
    ),
    where: Optional[list[str]] = WHERE,
    sort: str = typer.Option(
        "age", "--sort", metavar="KEY", help="The order: age, pending, idle, sent or agent."
    ),
    count: bool = typer.Option(False, "--count", help="Print only how many there are."),
    limit: Optional[int] = typer.Option(
        None, "--limit", metavar="N", help="At most N, the first in the order."
    ),
    names: Optional[str] = FIELDS,
    no_headers: bool = NO_HEADERS,
    time: Optional[str] = TIME,
    excel: bool = EXCEL,
) -> None:
    """List the active connections.

    The oldest comes first, unless --sort says otherwise. A terminal shows a table. Elsewhere there is one
    tab-separated line per connection: ws_id, agent, status, connected_at, last_heartbeat, message_count, pending,
    metadata; with --all also disconnected_at, close_code and close_reason, before metadata.
    """
    options = global_options(ctx)
    formatting = parse_format_options(options, CONNECTION_FIELDS, names, no_headers, time, excel)
    timeout = heartbeat_timeout()
    chosen, order = conditions(where), check_order(sort)
    found: list[Row] = []
    standing = None
    with ledger_if_any(ctx) as ledger:
        if ledger is not None:
            listed = ledger.connections(
                include_disconnected=all_of_them,
                agent=agent,
                silent_for=timeout if stale else None,
                where=chosen,
                order=order,
                limit=limit,
                count_pending=not count
                and options.output != "id"
                and "pending" in (formatting.fields or CONNECTION_FIELDS),
            )
            found = [connection_form(connection, pending) for connection, pending in listed]
            note_unknown(ledger, agent=agent)
            if not count and sys.stdout.isatty() and options.output in (None, "table", "wide"):
                standing = f"{backlog_text(ledger.backlog())}; {gateways_text(ledger.running_gateways())}"
    if count:
        write_result(options, str(len(found)), {"count": len(found)}, str(len(found)))
        return
    if not found:
        filtered = bool(agent or where) or stale or limit == 0
        note_to_terminal(
            "no such connections"
            if filtered
            else "no connections"
            if all_of_them
            else "no active connections"
        )
    columns = (*COLUMNS[:-1], *ENDING, COLUMNS[-1]) if all_of_them else COLUMNS

    def table(rows_of_it: Sequence[Row]) -> None:
        from ws_manager.cli.output.tables import show_connections

        show_connections(rows_of_it, timeout, formatting)

    write_rows(options, found, columns, "ws_id", table, formatting)
    if standing is not None:
        note_to_terminal(standing)
