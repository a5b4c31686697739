"""`ws-manager retry`: send messages again that were set aside."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from typing import Optional

import typer

from ws_manager.cli.ledger import ledger_to_write
from ws_manager.cli.options import global_options
from ws_manager.cli.output.results import write_result
from ws_manager.cli.output.text import note
from ws_manager.core.moments import parse_moment
from ws_manager.errors import InvalidInput


def retry(
    ctx: typer.Context,
    msg_id: Optional[str] = typer.Argument(None, metavar="<msg_id>", help="The message."),
    everything: bool = typer.Option(False, "--all", help="All messages that are set aside, oldest first."),
    since: Optional[str] = typer.Option(
        None,
        "--since",
        metavar="WHEN",
        help="With --all: only messages set aside since then: 2h (ago), an RFC 3339 time, or seconds since 1970.",
    ),
) -> None:
    """Send messages again that were set aside.

    Each is sent as a new message, after all pending ones. The old message stays set aside, and cannot be
    retried again.
    """
    if (msg_id is None) != everything:
        raise InvalidInput("retry takes a message or --all", hint="ws-manager history --set-aside lists them")
    if since is not None and not everything:
        raise InvalidInput("--since needs --all", hint="leave one of them out")
    start = "" if since is None else parse_moment(since)
    with ledger_to_write(ctx) as ledger:
        if msg_id is None:
            sent, beyond_limits = ledger.retry_all(start)
        else:
            sent, beyond_limits = [ledger.retry(msg_id)], 0
    rows = [again._asdict() for again in sent]
    write_result(
        global_options(ctx),
        f"Retried {len(sent)} message(s)",
        {"retried": rows},
        "\n".join(again.msg_id for again in sent),
    )
    if beyond_limits:
        note(f"note: {beyond_limits} message(s) stay set aside: they exceed today's limits")
