"""`ws-manager export`: write the whole ledger as lines of JSON."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import typer

from ws_manager.cli.ledger import ledger_to_read
from ws_manager.cli.options import global_options
from ws_manager.cli.output.results import write_result
from ws_manager.cli.output.text import whole_line, write
from ws_manager.errors import InvalidInput
from ws_manager.settings import expanded

if TYPE_CHECKING:
    pass


def export(
    ctx: typer.Context,
    file: str = typer.Argument(
        "-", metavar="<file>", help="A new file. Without it, or with -, stdout.", show_default=False
    ),
) -> None:
    """Write the whole ledger as lines of JSON.

    The export is a consistent snapshot, and `import` restores it exactly.
    """
    lines = 0
    if file == "-":
        with ledger_to_read(ctx) as ledger:
            for line in ledger.maintenance.export_lines():
                write(line, is_json=True)
        return
    with ledger_to_read(ctx) as ledger, _new_file(file) as sink:
        for line in ledger.maintenance.export_lines():
            sink.write(whole_line(line).encode("utf-8") + b"\n")
            lines += 1
    # All lines but the first and the last are rows.
    row = {"file": file, "rows": lines - 2}
    write_result(global_options(ctx), f"Exported {lines - 2} row(s) to {file}", row, file)


@contextlib.contextmanager
def _new_file(file: str) -> Iterator[BinaryIO]:
    """Create a file of mode 0600, and delete it again if the block fails."""
    path = expanded(file)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        raise InvalidInput(f"{file} exists already", hint="give the name of a new file") from None
    except OSError as error:
        raise InvalidInput(f"cannot write {file}: {error.strerror}", hint="choose another place") from None
    try:
        with os.fdopen(descriptor, "wb") as sink:
            yield sink
            sink.flush()
            os.fsync(descriptor)
    except BaseException:
        # An incomplete export would go unnoticed until it is imported.
        path.unlink()
        raise
