"""`ws-manager stripe events`: the webhook events that Stripe has sent."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from collections.abc import Sequence
from typing import Optional

import typer

from ws_manager.cli.ledger import ledger_if_any
from ws_manager.cli.options import global_options
from ws_manager.cli.output.format_options import EXCEL, FIELDS, NO_HEADERS, TIME, parse_format_options
from ws_manager.cli.output.rows import write_rows
from ws_manager.cli.output.text import Row, note_to_terminal
from ws_manager.core.moments import parse_moment
from ws_manager.forms import WEBHOOK_EVENT_FIELDS, webhook_event_form

COLUMNS = WEBHOOK_EVENT_FIELDS[:7]
"""The columns in csv and tsv."""


def events(
    ctx: typer.Context,
    status: Optional[str] = typer.Option(
        None, "--status", metavar="STATUS", help="Only the events with this status: routed or unrouted."
    ),
    event: Optional[str] = typer.Option(
        None, "--event", metavar="PATTERN", help="Only events of these types: invoice.paid, or invoice.*"
    ),
    since: Optional[str] = typer.Option(
        None,
        "--since",
        metavar="WHEN",
        help="Only events received since then: 2h (ago), an RFC 3339 time, or seconds since 1970.",
    ),
    limit: int = typer.Option(50, "--limit", metavar="N", help="At most N events, the newest."),
    names: Optional[str] = FIELDS,
    no_headers: bool = NO_HEADERS,
    time: Optional[str] = TIME,
    excel: bool = EXCEL,
) -> None:
    """List the received events, newest first.

    An unrouted event waits until one of its recipients is connected. If it has a reason, it cannot be sent as a
    message, and the reason says why.
    """
    options = global_options(ctx)
    formatting = parse_format_options(options, WEBHOOK_EVENT_FIELDS, names, no_headers, time, excel)
    start = "" if since is None else parse_moment(since)
    found: list[Row] = []
    with ledger_if_any(ctx) as ledger:
        if ledger is not None:
            listed = ledger.webhooks.events(status=status, since=start, pattern=event, limit=limit)
            found = [webhook_event_form(each) for each in listed]
    if not found:
        note_to_terminal("no such events" if status or event or since else "no events")

    def table(rows_of_it: Sequence[Row]) -> None:
        from ws_manager.cli.output.tables import show_webhook_events

        show_webhook_events(rows_of_it, formatting)

    write_rows(options, found, COLUMNS, "event_id", table, formatting)
