"""The output of a command that does one thing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Union

from ws_manager.cli.options import GlobalOptions
from ws_manager.cli.output.text import Row, json_object, write


def write_results(options: GlobalOptions, results: Sequence[tuple[str, Row, str]]) -> None:
    """Write the results of a command that does one thing with several: each is `write_result`'s last arguments.

    JSON has one object for one result, as `write_result` writes it, and a list for any other number.
    """
    if options.output == "json" and len(results) != 1:
        from ws_manager.cli.output.rows import write_rows

        write_rows(options, [row for _line, row, _id in results], (), "", lambda _found: None)
        return
    if options.output in ("csv", "tsv") and results:
        from ws_manager.cli.output.rows import write_separated

        write_separated(options.output, tuple(results[0][1]), [row for _line, row, _id in results])
        sys.stdout.flush()
        return
    for line, row, identifier in results:
        write_result(options, line, row, identifier)


def write_result(
    options: GlobalOptions,
    line: str,
    row: Row,
    identifier: Union[str, Sequence[str]],
    more: Sequence[str] = (),
) -> None:
    """Write the result of a command that does one thing, and flush it.

    Args:
        options: the global options. Without `-o`, the result is the documented line.
        line: the documented line.
        row: the same result as values, for JSON, csv and tsv.
        identifier: the text for `-o id`, or a line for each of several.
        more: lines that follow the documented one.
    """
    if options.json:
        write(json_object(row, indent=options.output == "json"), is_json=True)
    elif options.output == "id":
        for each in [identifier] if isinstance(identifier, str) else identifier:
            write(each)
    elif options.output in ("csv", "tsv"):
        from ws_manager.cli.output.rows import write_separated

        write_separated(options.output, tuple(row), [row])
    else:
        for each in (line, *more):
            write(each)
    sys.stdout.flush()
