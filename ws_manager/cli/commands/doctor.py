"""`ws-manager doctor`: problems of the database and the gateway, on one screen."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
import shutil
import sys
import textwrap
from collections.abc import Iterable
from importlib import metadata
from typing import Optional

import typer

from ws_manager.cli.exit_codes import FAILED
from ws_manager.cli.hints import hint_for
from ws_manager.cli.ledger import check_no_gateway, remote_ledger
from ws_manager.cli.options import GlobalOptions, global_options
from ws_manager.cli.output.rows import write_rows
from ws_manager.cli.output.text import write
from ws_manager.core.doctor import examine
from ws_manager.repository.findings import PROBLEM, WARNING, Finding

COLUMNS = ("status", "check", "detail", "advice")
"""The columns in csv and tsv."""

_FACTS = ("check", "status", "detail", "advice")


def doctor(
    ctx: typer.Context,
    strict: bool = typer.Option(False, "--strict", help="Exit with 1 for a warning too."),
) -> None:
    """Report problems of the database and the gateway.

    Each line is ok, a warning or a problem, with advice. The exit code is 1 only if there is a problem, with
    --strict also for a warning. Nothing is created or changed. Outside a terminal a line is tab-separated: status,
    check, detail, advice.
    """
    options = global_options(ctx)
    checks = [_advised(finding) for finding in _found(options)]
    if options.output in (None, "table") and (options.output or sys.stdout.isatty()):
        _show(checks)
    else:
        write_rows(
            options,
            [{name: getattr(check, name) for name in _FACTS} for check in checks],
            COLUMNS,
            "check",
            lambda _found: None,
        )
    failures = (PROBLEM, WARNING) if strict else (PROBLEM,)
    if any(check.status in failures for check in checks):
        raise typer.Exit(FAILED)


def _found(options: GlobalOptions) -> Iterable[Finding]:
    if options.url is None:
        check_no_gateway(options)
        return examine(options.database, _installed("aiohttp"))
    with remote_ledger(options) as remote:
        return remote.doctor()


def _advised(finding: Finding) -> Finding:
    """Return a finding's remedy as text."""
    return finding if finding.remedy is None else finding._replace(advice=hint_for(finding.remedy))


def _installed(package: str) -> Optional[str]:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _show(checks: list[Finding]) -> None:
    """Write one line per check, wrapped between words to the terminal's width."""
    width = max(len(check.check) for check in checks)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    indent = " " * (7 + 2 + width + 2)

    def write_wrapped(line: str, hanging: str) -> None:
        for part in textwrap.wrap(
            line, columns, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False
        ):
            write(part)

    for check, status, detail, advice, _ in checks:
        write_wrapped(f"{status:<7}  {check:<{width}}  {detail}", indent)
        if advice is not None:
            write_wrapped(f"{indent}→ {advice}", indent + "  ")
    sys.stdout.flush()
