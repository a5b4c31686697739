"""The question before a command that cannot be undone."""

from __future__ import annotations

import sys

import typer

from ws_manager.errors import InvalidInput

YES = typer.Option(False, "--yes", "-y", help="Do not ask on a terminal.")


def ask(question: str) -> None:
    """Ask on a terminal whether to go on. A script is not asked: it has said what it wants.

    Raises:
        InvalidInput: the answer was not yes.
    """
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise InvalidInput("nothing was done", hint="answer y, or give --yes")
