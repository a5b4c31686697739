"""`ws-manager wait`: wait for the confirmations of a message or of a broadcast."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
import typer

from ws_manager.cli.ledger import ledger_to_read
from ws_manager.cli.options import global_options
from ws_manager.cli.output.results import write_result
from ws_manager.cli.sending import judge, outcome, wait_for
from ws_manager.errors import InvalidInput
from ws_manager.models import Connection, Message
from ws_manager.settings import parse_duration


def wait(
    ctx: typer.Context,
    identifier: str = typer.Argument(
        ..., metavar="<id>", help="A msg_id or a broadcast_id, or a part of one."
    ),
    timeout: str = typer.Option("30s", "--timeout", metavar="DURATION", help="Wait at most this long."),
) -> None:
    """Wait until a message or a broadcast is confirmed.

    The exit code is 5 if a confirmation is missing at the end. Then the output names who has not confirmed, and why.
    """
    options, seconds = global_options(ctx), parse_duration(timeout)
    with ledger_to_read(ctx) as ledger:
        found = ledger.look_up(identifier)
        if isinstance(found, Connection):
            raise InvalidInput(f"{found.ws_id} is a connection", hint="wait takes a msg_id or a broadcast_id")
        if isinstance(found, Message):
            row, named = {"msg_id": found.msg_id}, found.msg_id
            counts, missing = wait_for(ledger, [found], seconds)
        else:
            row, named = {"broadcast_id": found.broadcast_id}, found.broadcast_id
            counts, missing = wait_for(ledger, found, seconds)
    if options.output not in (None, "table", "wide"):
        write_result(options, named, row | outcome(counts, missing), named)
    judge(counts, missing, named=not options.json)
