"""`ws-manager import`: fill an empty ledger from an export."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import typer

from ws_manager.cli.ledger import ledger_to_write
from ws_manager.cli.options import global_options
from ws_manager.cli.output.results import write_result
from ws_manager.errors import InvalidInput
from ws_manager.settings import expanded, given_url

if TYPE_CHECKING:
    pass


_LONGEST = 256 * 1024 * 1024
"""The longest line of an export, in bytes. Messages of earlier versions may have any size."""


def import_ledger(
    ctx: typer.Context,
    file: str = typer.Argument(..., metavar="<file>", help="An export; - is stdin."),
) -> None:
    """Fill an empty ledger from an export.

    It is one transaction: everything is imported, or nothing.
    """
    from ws_manager.cli.process.line_reader import read_lines

    if given_url() and global_options(ctx).db is None:
        raise InvalidInput(
            "BLACKROAD_WS_URL is set, and import works on the database itself", hint="name it with --db"
        )
    with _source(file) as source, ledger_to_write(ctx, create=True) as ledger:
        lines = read_lines(source, "stdin" if file == "-" else file, _LONGEST)
        counts = ledger.maintenance.import_lines(lines)
    line = f"Imported: {counts['connections']} connection(s), {counts['messages']} message(s)"
    write_result(global_options(ctx), line, counts, "")


@contextlib.contextmanager
def _source(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        from ws_manager.cli.process.line_reader import stdin

        yield stdin()
        return
    try:
        source = expanded(file).open("rb")
    except OSError as error:
        raise InvalidInput(
            f"cannot read {file}: {error.strerror}", hint="give the name of an export"
        ) from None
    with source:
        yield source
