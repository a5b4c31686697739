"""`ws-manager disconnect`: mark connections as disconnected."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from typing import TYPE_CHECKING, Optional

import typer

from ws_manager.cli.confirming import YES, ask
from ws_manager.cli.errors import not_active
from ws_manager.cli.exit_codes import PartlyDone
from ws_manager.cli.filters import WHERE, conditions, note_unknown
from ws_manager.cli.ledger import ledger_to_write
from ws_manager.cli.options import global_options
from ws_manager.cli.output.results import write_results
from ws_manager.cli.output.text import Row, note
from ws_manager.core.registry import BY_AN_OPERATOR
from ws_manager.errors import InvalidInput
from ws_manager.models import ACTIVE, DISCONNECTED

if TYPE_CHECKING:
    from ws_manager.core.ledger import Ledger


_WS_IDS = typer.Argument(None, metavar="<ws_id>...", help="The connections.")


def disconnect(
    ctx: typer.Context,
    ws_ids: Optional[list[str]] = _WS_IDS,
    agent: Optional[str] = typer.Option(
        None, "--agent", metavar="NAME", help="All connections of this agent."
    ),
    where: Optional[list[str]] = WHERE,
    reason: str = typer.Option(
        BY_AN_OPERATOR, "--reason", metavar="TEXT", help="The reason that the agent gets."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Disconnect nothing: show which it would be."),
    yes: bool = YES,
) -> None:
    """Mark connections as disconnected.

    A gateway that holds their sockets closes them. Pending messages stay pending. They are chosen by their ws_ids,
    or with --agent and --where; then a terminal is asked first.
    """
    options, chosen = global_options(ctx), conditions(where)
    if bool(ws_ids) == bool(agent or where):
        raise InvalidInput(
            "disconnect takes ws_ids, or --agent and --where", hint="see ws-manager disconnect --help"
        )
    with ledger_to_write(ctx) as ledger:
        if ws_ids:
            found = [ws_id for ws_id in dict.fromkeys(ws_ids) if ledger.get(ws_id) is not None]
        else:
            note_unknown(ledger, agent=agent)
            listed = ledger.connections(agent=agent, where=chosen, count_pending=False)
            found = [connection.ws_id for connection, _ in listed]
        if dry_run:
            write_results(options, [(ws_id, {"ws_id": ws_id, "status": ACTIVE}, ws_id) for ws_id in found])
            note(f"dry run: {len(found)} connection(s) would be disconnected")
            return
        if not ws_ids and found and not yes:
            ask(f"Disconnect {len(found)} connection(s)?")
        ended = ledger.disconnect_all(found, reason)
        missing = [ws_id for ws_id in ws_ids or () if ws_id not in ended]
        if ended or not missing:
            write_results(options, [_ended(ws_id) for ws_id in ended])
        if missing:
            _report(ledger, missing, some=bool(ended))


def _ended(ws_id: str) -> tuple[str, Row, str]:
    return f"Disconnected: {ws_id}", {"ws_id": ws_id, "status": DISCONNECTED}, ws_id


def _report(ledger: "Ledger", missing: list[str], *, some: bool) -> None:
    """Say which of the named connections were not active.

    Raises:
        NotFound: it is the only one.
        PartlyDone: others were disconnected.
    """
    errors = [not_active(ledger, ws_id) for ws_id in missing]
    if len(errors) == 1 and not some:
        raise errors[0]
    for error in errors:
        note(f"error: {error.message}")
    if not some:
        raise errors[0]
    raise PartlyDone(f"{len(errors)} of the connections were not active", hint="the others are disconnected")
