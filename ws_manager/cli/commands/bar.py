"""`ws-manager bar` and `ws-manager unbar`: let an agent in no more, and let it in again."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from collections.abc import Sequence
from typing import Optional

import typer

from ws_manager.cli.confirming import YES, ask
from ws_manager.cli.filters import note_unknown
from ws_manager.cli.ledger import ledger_if_any, ledger_to_write
from ws_manager.cli.options import global_options
from ws_manager.cli.output.results import write_result
from ws_manager.cli.output.rows import write_rows
from ws_manager.cli.output.text import Row, note, note_to_terminal
from ws_manager.errors import NotFound
from ws_manager.remedies import LIST_BARRED

_COLUMNS = ("agent", "at")


def bar(
    ctx: typer.Context,
    agent: Optional[str] = typer.Argument(
        None, metavar="<agent>", help="The agent. Without it, list the barred ones."
    ),
    yes: bool = YES,
) -> None:
    """Stop an agent from connecting, or list who is barred.

    Whatever token it has, a gateway closes its sockets within a second and refuses its handshakes. Its connections
    end, what is pending for them stays pending, and their receipts no longer count.
    """
    options = global_options(ctx)
    if agent is None:
        found: list[Row] = []
        with ledger_if_any(ctx) as ledger:
            if ledger is not None:
                found = [dict(zip(_COLUMNS, barred)) for barred in ledger.barred()]
        if not found:
            note_to_terminal("nobody is barred")
        write_rows(options, found, _COLUMNS, "agent", _table)
        return
    with ledger_to_write(ctx) as ledger:
        note_unknown(ledger, agent=agent)
        count = len(ledger.active(agent))
        if count and not yes:
            ask(f"Bar {agent}, and end its {count} connection(s)?")
        new, ended = ledger.bar(agent)
    if not new:
        note(f"note: {agent} was barred already")
    row = {"agent": agent, "barred": True, "disconnected": ended}
    write_result(options, f"Barred: {agent} ({len(ended)} connection(s) ended)", row, agent)


def unbar(
    ctx: typer.Context,
    agent: str = typer.Argument(..., metavar="<agent>", help="The agent."),
) -> None:
    """Let a barred agent in again."""
    with ledger_to_write(ctx) as ledger:
        if not ledger.unbar(agent):
            raise NotFound(f"{agent} is not barred", remedy=LIST_BARRED)
    write_result(global_options(ctx), f"Unbarred: {agent}", {"agent": agent, "barred": False}, agent)


def _table(found: Sequence[Row]) -> None:
    from ws_manager.cli.output.tables import show_barred

    show_barred(found)
