"""The outcome of a command that does one thing."""

from __future__ import annotations

import sys

from ws_manager.cli.options import GlobalOptions
from ws_manager.cli.output.text import Row, json_object, write


def result(options: GlobalOptions, line: str, row: Row, identifier: str) -> None:
    """Write the outcome of a command that does one thing, and flush it.

    Args:
        options: decide the format.
        line: the documented line.
        row: the same facts.
        identifier: the one fact that `-o id` wants.
    """
    if options.json:
        write(json_object(row, indent=options.output == "json"), is_json=True)
    elif options.output == "id":
        write(identifier)
    elif options.output in ("csv", "tsv"):
        from ws_manager.cli.output.rows import write_separated

        write_separated(options.output, tuple(row), [row])
    else:
        write(line)
    sys.stdout.flush()
