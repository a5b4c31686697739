"""`ws-manager prune`: delete old finished rows."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from typing import TYPE_CHECKING

import typer

from ws_manager.cli.ledger import ledger_to_read, ledger_to_write
from ws_manager.cli.options import global_options, parse_age
from ws_manager.cli.output.results import write_result
from ws_manager.errors import InvalidInput

if TYPE_CHECKING:
    pass


def prune(
    ctx: typer.Context,
    older_than: str = typer.Option(
        ..., "--older-than", metavar="DURATION", help="Delete what is older than this: 24h, 30d."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Delete nothing: show how much would be deleted."),
    vacuum: bool = typer.Option(
        False, "--vacuum", help="Shrink the file afterwards; nobody can write meanwhile."
    ),
) -> None:
    """Delete old messages, logs and connections that are done with.

    Deletes confirmed messages, logged heartbeats, events, broadcasts without messages, and disconnected
    connections without messages. Messages that are pending or set aside are kept. Other processes can read and
    write meanwhile.
    """
    seconds = parse_age(older_than, "--older-than")
    if dry_run and vacuum:
        raise InvalidInput("--dry-run and --vacuum exclude each other", hint="leave one of them out")
    with ledger_to_read(ctx) if dry_run else ledger_to_write(ctx) as ledger:
        counts = vars(ledger.maintenance.prune(seconds, dry_run=dry_run, vacuum=vacuum))
    counted = ", ".join(f"{counts[table]} {word}" for table, word in _WORDS.items())
    row = {**counts, "dry_run": dry_run}
    write_result(global_options(ctx), f"{'Would delete' if dry_run else 'Deleted'}: {counted}", row, "")


_WORDS = {
    "messages": "message(s)",
    "heartbeat_log": "heartbeat(s)",
    "events": "event(s)",
    "broadcasts": "broadcast(s)",
    "webhook_events": "webhook event(s)",
    "connections": "connection(s)",
    "receipts": "receipt journal row(s)",
}
