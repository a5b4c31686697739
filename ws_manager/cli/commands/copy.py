"""`ws-manager copy`: copy a whole ledger to another place, while it is in use."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
import time
from typing import TYPE_CHECKING, Callable, Optional

import typer

from ws_manager.cli.options import global_options
from ws_manager.cli.output.results import write_result
from ws_manager.errors import InvalidInput
from ws_manager.settings import DatabaseUrl, Located, located

if TYPE_CHECKING:
    from ws_manager.core.copying import Copied

_PROGRESS_SECONDS = 1.0


def copy(
    ctx: typer.Context,
    source: str = typer.Option(..., "--from", metavar="PATH|URL", help="The ledger that is copied."),
    target: Optional[str] = typer.Option(
        None, "--to", metavar="PATH|URL", help="Where to: an empty place, or an unfinished copy."
    ),
    seal: bool = typer.Option(
        False, "--seal", help="Finish: the source takes nothing more, and the copy is checked."
    ),
    unseal: bool = typer.Option(False, "--unseal", help="Copy nothing: let the source be written to again."),
) -> None:
    """Copy a whole ledger to another place, while it is in use.

    Each is a file or a database of PostgreSQL. Without --seal it can be repeated, and brings what has changed. It
    goes on where it was stopped.
    """
    from ws_manager.core.ledger import open_ledger

    options = global_options(ctx)
    if options.db is not None:
        raise InvalidInput("copy takes no --db", hint="name the ledgers with --from and --to")
    if unseal:
        if target is not None or seal:
            raise InvalidInput("--unseal stands alone with --from", hint="leave out --to and --seal")
        with open_ledger(located(source), create=False) as ledger:
            undone = ledger.maintenance.unseal()
            where = ledger.location
        line = f"Unsealed: {where}" if undone else f"{where} was not sealed"
        write_result(options, line, {"from": where, "unsealed": undone}, where)
        return
    if target is None:
        raise InvalidInput(
            "--to is missing", hint="say where to copy: a file, or postgresql://user@host/database"
        )
    place = located(target)
    with open_ledger(located(source), create=False) as ledger, open_ledger(place) as other:
        copied = ledger.maintenance.copy_to(other.maintenance, seal=seal, progress=_progress())
        place_name = other.location
        row = {"from": ledger.location, "to": place_name, **_figures(copied)}
        line, more = _told(copied, ledger.location, place_name)
    if copied.sealed:
        more.append(_about_the_key(located(source), place))
    write_result(options, line, row, place_name, more)


def _progress() -> Callable[[str, int], None]:
    """Return a function that says on a terminal how far the copy is, once a second."""
    from ws_manager.cli.output.text import note_to_terminal

    said = [time.monotonic()]

    def say(table: str, rows: int) -> None:
        if time.monotonic() - said[0] >= _PROGRESS_SECONDS:
            said[0] = time.monotonic()
            note_to_terminal(f"{table}: {rows} row(s)")

    return say


def _figures(copied: "Copied") -> dict[str, object]:
    return {
        "sealed": copied.sealed,
        "written": copied.written,
        "deleted": copied.deleted,
        "seconds": round(copied.seconds, 3),
        "sealed_seconds": round(copied.sealed_seconds, 3),
        **copied.rows,
    }


def _told(copied: "Copied", source: str, target: str) -> tuple[str, list[str]]:
    counts = {name: count for name, count in copied.rows.items() if name not in ("connections", "messages")}
    counted = (
        f"{copied.rows['connections']} connection(s), {copied.rows['messages']} message(s),"
        f" {sum(counts.values())} row(s) of other tables"
    )
    did = f"{copied.written} row(s) written, {copied.deleted} deleted, {copied.seconds:.1f} s"
    if not copied.sealed:
        return f"Copied: {counted}", [did, f"{source} is not sealed yet: run it again with --seal to finish"]
    return f"Moved: {counted}", [
        did,
        f"Nothing could be written for {copied.sealed_seconds:.1f} s; the digests of both sides are the same",
        f"{source} is sealed: use {target} from now on",
    ]


def _about_the_key(source: Located, target: Located) -> str:
    """Say what becomes of the key that signs tokens, which is not in the ledger."""
    from ws_manager.tokens import key_path

    said = "The key that signs tokens is not copied"
    if not isinstance(target, DatabaseUrl):
        return f"{said}: put it into {key_path(target)}, mode 0600"
    where = "it" if isinstance(source, DatabaseUrl) else str(key_path(source))
    return f"{said}: give {where} to every gateway with --key-file"
