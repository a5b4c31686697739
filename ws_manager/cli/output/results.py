"""The output of a command that does one thing."""

from __future__ import annotations

import sys

from ws_manager.cli.options import GlobalOptions
from ws_manager.cli.output.text import Row, json_object, write


def write_result(options: GlobalOptions, line: str, row: Row, identifier: str) -> None:
    """Write the result of a command that does one thing, and flush it.

    Args:
        options: the global options. Without `-o`, the result is the documented line.
        line: the documented line.
        row: the same result as values, for JSON, csv and tsv.
        identifier: the text for `-o id`.
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
