"""prune, backup, export and import."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import typer

from ws_manager.cli.options import global_options, open_registry, parse_age
from ws_manager.cli.output.rows import result, whole_line, write
from ws_manager.errors import InvalidInput
from ws_manager.settings import expanded

if TYPE_CHECKING:
    from ws_manager.repository.sqlite.database import Database


_LONGEST = 256 * 1024 * 1024
"""Bytes of a line of an export: an earlier version may have written messages of any size."""


def prune(
    ctx: typer.Context,
    older_than: str = typer.Option(
        ..., "--older-than", metavar="DURATION", help="How old it must be: 24h, 30d."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say how much it would be."),
    vacuum: bool = typer.Option(
        False, "--vacuum", help="Make the file smaller afterwards; nobody can write meanwhile."
    ),
) -> None:
    """Delete what is confirmed, logged or over, and old.

    Confirmed messages, the heartbeat log, events, broadcasts without messages, and disconnected connections
    without messages. Never what is pending or set aside. Others go on reading and writing.
    """
    from ws_manager.core.maintenance import prune as prune_ledger

    seconds = parse_age(older_than, "--older-than")
    if dry_run and vacuum:
        raise InvalidInput("--dry-run and --vacuum exclude each other", hint="leave one of them out")
    with _to_read(ctx) if dry_run else _to_write(ctx) as db:
        counts = vars(prune_ledger(db, seconds, dry_run=dry_run, vacuum=vacuum))
    told = ", ".join(f"{count} {_WORDS[table]}" for table, count in counts.items())
    row = {**counts, "dry_run": dry_run}
    result(global_options(ctx), f"{'Would delete' if dry_run else 'Deleted'}: {told}", row, "")


_WORDS = {
    "messages": "message(s)",
    "heartbeat_log": "heartbeat(s)",
    "events": "event(s)",
    "broadcasts": "broadcast(s)",
    "webhook_events": "webhook event(s)",
    "connections": "connection(s)",
}


def backup(
    ctx: typer.Context,
    file: str = typer.Argument(..., metavar="<file>", help="The copy; it must not exist yet."),
) -> None:
    """Copy the database to a new file while others go on writing.

    The copy is whole: a bare `cp` would lack what is in the -wal file.
    """
    with _to_read(ctx) as db:
        target = expanded(file)
        db.backup_to(target)
        size = target.stat().st_size
    result(global_options(ctx), f"Backed up to {file}", {"file": file, "bytes": size}, file)


def export(
    ctx: typer.Context,
    file: str = typer.Argument(
        "-", metavar="<file>", help="A new file; - or nothing is stdout.", show_default=False
    ),
) -> None:
    """Write the whole ledger as lines of JSON.

    It is the ledger of one moment, and `import` makes exactly that one of it again.
    """
    from ws_manager.core.maintenance import export_lines

    lines = 0
    if file == "-":
        with _to_read(ctx) as db:
            for line in export_lines(db):
                write(line, is_json=True)
        return
    with _to_read(ctx) as db, _new_file(file) as sink:
        for line in export_lines(db):
            sink.write(whole_line(line).encode("utf-8") + b"\n")
            lines += 1
    # All but the first and the last line are rows.
    row = {"file": file, "rows": lines - 2}
    result(global_options(ctx), f"Exported {lines - 2} row(s) to {file}", row, file)


def import_ledger(
    ctx: typer.Context,
    file: str = typer.Argument(..., metavar="<file>", help="What export wrote; - is stdin."),
) -> None:
    """Fill an empty ledger with what export wrote.

    All of it or nothing, in one transaction.
    """
    from ws_manager.cli.process.line_reader import lines_of
    from ws_manager.core.maintenance import import_lines

    with _source(file) as source, open_registry(ctx, create=True) as registry:
        lines = lines_of(source, "stdin" if file == "-" else file, _LONGEST)
        counts = import_lines(registry.db, lines)
    told = f"Imported: {counts['connections']} connection(s), {counts['messages']} message(s)"
    result(global_options(ctx), told, counts, "")


def _to_write(ctx: typer.Context) -> "contextlib.closing[Database]":
    """Open a ledger that is there."""
    from ws_manager.repository.sqlite.schema import open_ledger

    return contextlib.closing(open_ledger(global_options(ctx).database, create=False))


def _to_read(ctx: typer.Context) -> "contextlib.closing[Database]":
    """Open a ledger that is there, and write nothing."""
    from ws_manager.repository.sqlite.schema import read_ledger

    return contextlib.closing(read_ledger(global_options(ctx).database))


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
