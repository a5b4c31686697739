"""`ws-manager export`: write the whole ledger as lines of JSON."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import typer

from ws_manager.cli.ledger import ledger_to_read
from ws_manager.cli.options import global_options
from ws_manager.cli.output.results import result
from ws_manager.cli.output.text import whole_line, write
from ws_manager.errors import InvalidInput
from ws_manager.settings import expanded

if TYPE_CHECKING:
    pass


def export(
    ctx: typer.Context,
    file: str = typer.Argument(
        "-", metavar="<file>", help="A new file; - or nothing is stdout.", show_default=False
    ),
) -> None:
    """Write the whole ledger as lines of JSON.

    It is the ledger of one moment, and `import` makes exactly that one of it again.
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
    # All but the first and the last line are rows.
    row = {"file": file, "rows": lines - 2}
    result(global_options(ctx), f"Exported {lines - 2} row(s) to {file}", row, file)


@contextlib.contextmanager
def _new_file(file: str) -> Iterator[BinaryIO]:
    """Open a new file of mode 0600, that goes again if it does not become whole."""
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
        # Half an export would look like a whole one until it is imported.
        path.unlink()
        raise
