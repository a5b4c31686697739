"""Measure ws-manager against its budgets: `make bench`, or `python benchmarks/run.py start-up broadcast …`.

Prints a table in Markdown. A missed budget is no error: the exit code is 0 when everything was measured.
"""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.ledgers import Ledgers
from benchmarks.processes import LOOPS
from benchmarks.rows import ROWS

_HEADER = "| what | median | quartiles | budget | |\n|---|---|---|---|---|"

_LOOPS = "" if "uvloop" in LOOPS else ", asyncio only: `pip install uvloop` to measure both event loops"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)}; all of them unless said")
    parser.add_argument("--directory", help="where the scratch ledgers go: the disk that is measured")
    given = parser.parse_args()
    unknown = [name for name in given.rows if name not in ROWS]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.system()}"
        f" {platform.machine()}, {os.cpu_count()} cores{_LOOPS}\n\n{_HEADER}",
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="ws-manager-bench-", dir=given.directory) as folder:
        ledgers = Ledgers(Path(folder))
        for name in given.rows or ROWS:
            for figure in ROWS[name](ledgers):
                cells = (figure.what, figure.figure, figure.spread, figure.budget, figure.verdict)
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
