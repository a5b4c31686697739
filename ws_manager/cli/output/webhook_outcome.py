"""The line that `stripe replay` and `stripe trigger` write about an event."""

from __future__ import annotations

from ws_manager.cli.options import GlobalOptions
from ws_manager.cli.output.format_options import FormatOptions
from ws_manager.cli.output.rows import row_line
from ws_manager.cli.output.text import Row
from ws_manager.core.webhooks import WebhookOutcome
from ws_manager.forms import WEBHOOK_OUTCOME_FIELDS
from ws_manager.models import ROUTED

HEADER = ",".join(WEBHOOK_OUTCOME_FIELDS) + "\n"
"""The first line of csv."""


def outcome_line(options: GlobalOptions, outcome: WebhookOutcome, *, dry_run: bool = False) -> str:
    """Return the line with the outcome of an event, ready for stdout."""

    def readable(_row: Row) -> str:
        if outcome.status == ROUTED:
            verb = "Would send" if dry_run else "Sent"
            return f"{verb} {outcome.event_id} ({outcome.event_type}) to {outcome.recipients} connection(s)"
        if outcome.reason is not None:
            return f"{outcome.event_id} ({outcome.event_type}) cannot become messages: {outcome.reason}"
        whom = outcome.agent or "everyone"
        return f"{outcome.event_id} ({outcome.event_type}) waits: nobody is connected as {whom}"

    row: Row = outcome.form()
    return (
        row_line(
            row, options.output or "table", WEBHOOK_OUTCOME_FIELDS, "event_id", readable, FormatOptions()
        )
        + "\n"
    )
