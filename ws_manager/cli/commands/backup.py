"""`ws-manager backup`: copy the database, even while others write."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from typing import TYPE_CHECKING

import typer

from ws_manager.cli.ledger import ledger_to_read
from ws_manager.cli.options import global_options
from ws_manager.cli.output.results import write_result
from ws_manager.settings import expanded

if TYPE_CHECKING:
    pass


def backup(
    ctx: typer.Context,
    file: str = typer.Argument(..., metavar="<file>", help="The copy; it must not exist yet."),
) -> None:
    """Copy the database to a new file, even while others write.

    The copy is complete. A copy made with `cp` would lack what is in the -wal file.
    """
    with ledger_to_read(ctx) as ledger:
        target = expanded(file)
        ledger.maintenance.backup(target)
        size = target.stat().st_size
    write_result(global_options(ctx), f"Backed up to {file}", {"file": file, "bytes": size}, file)
