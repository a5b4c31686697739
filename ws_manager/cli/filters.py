"""What commands that choose connections have in common: their options, and what is said of unknown names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

import typer

from ws_manager.cli.output.text import note

if TYPE_CHECKING:
    from ws_manager.core.ledger import Ledger
    from ws_manager.core.read.conditions import Conditions

WHERE = typer.Option(
    None,
    "--where",
    metavar="CONDITION",
    help="Only where this condition holds, such as metadata.region=us-west; = != ~ < > compare. "
    "Repeatable: all must hold.",
)


def conditions(where: Optional[Sequence[str]]) -> Optional[Conditions]:
    """Return the conditions of a command line; None for none.

    Raises:
        InvalidInput: one of them is not a condition.
    """
    if not where:
        return None
    from ws_manager.core.read.conditions import all_of

    return all_of(where)


def note_unknown(ledger: Ledger, *, agent: Optional[str] = None, ws_id: Optional[str] = None) -> None:
    """Say on stderr that a filter names something that the ledger has never seen: it may be misspelt."""
    if agent is not None and not ledger.knows_agent(agent):
        note(f"note: no agent {agent} has ever connected")
    if ws_id is not None and ledger.find(ws_id) is None:
        note(f"note: there is no connection {ws_id}")
