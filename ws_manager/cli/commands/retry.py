"""`ws-manager retry`: send messages again that were set aside."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from typing import Optional

import typer

from ws_manager.cli.filters import note_unknown
from ws_manager.cli.ledger import ledger_to_write
from ws_manager.cli.options import global_options
from ws_manager.cli.output.results import write_result
from ws_manager.cli.output.text import note
from ws_manager.core.moments import parse_moment
from ws_manager.core.retry import Retried
from ws_manager.errors import InvalidInput
from ws_manager.models import Message

_MSG_IDS = typer.Argument(None, metavar="<msg_id>...", help="The messages, or parts of their msg_ids.")


def retry(
    ctx: typer.Context,
    msg_ids: Optional[list[str]] = _MSG_IDS,
    everything: bool = typer.Option(False, "--all", help="All messages that are set aside, oldest first."),
    agent: Optional[str] = typer.Option(
        None, "--agent", metavar="NAME", help="All that are set aside of this agent's connections."
    ),
    since: Optional[str] = typer.Option(
        None,
        "--since",
        metavar="WHEN",
        help="With --all or --agent: only messages set aside since then: 2h (ago), an RFC 3339 time, or seconds "
        "since 1970.",
    ),
) -> None:
    """Send messages again that were set aside.

    Each is sent as a new message, after all pending ones; its new msg_id is printed. The old message stays set
    aside, and cannot be retried again.
    """
    many = everything or agent is not None
    if bool(msg_ids) == many:
        raise InvalidInput(
            "retry takes messages, --all or --agent", hint="ws-manager history --set-aside lists them"
        )
    if since is not None and not many:
        raise InvalidInput("--since needs --all or --agent", hint="leave one of them out")
    start = "" if since is None else parse_moment(since)
    sent: list[Retried] = []
    beyond_limits = 0
    with ledger_to_write(ctx) as ledger:
        if many:
            note_unknown(ledger, agent=agent)
            sent, beyond_limits = ledger.retry_all(start, agent)
        for msg_id in dict.fromkeys(msg_ids or ()):
            found = ledger.look_up(msg_id)
            sent.append(ledger.retry(found.msg_id if isinstance(found, Message) else msg_id))
    options = global_options(ctx)
    write_result(
        options,
        f"Retried {len(sent)} message(s)",
        {"retried": [again._asdict() for again in sent]},
        [again.msg_id for again in sent],
        [f"{again.retry_of} as {again.msg_id}" for again in sent],
    )
    if beyond_limits:
        note(f"note: {beyond_limits} message(s) stay set aside: they exceed today's limits")
