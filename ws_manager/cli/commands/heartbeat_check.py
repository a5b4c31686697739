"""`ws-manager heartbeat-check`: disconnect the connections without a recent heartbeat."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from typing import Optional

import typer

from ws_manager.cli.ledger import ledger_to_write
from ws_manager.cli.options import global_options
from ws_manager.cli.output.results import write_result
from ws_manager.cli.output.text import note, note_to_terminal, write
from ws_manager.settings import heartbeat_timeout, parse_duration


def heartbeat_check(
    ctx: typer.Context,
    timeout: Optional[str] = typer.Option(
        None,
        "--timeout",
        metavar="DURATION",
        help="The age from which a heartbeat is too old: 30, 90s, 5m, 24h. [env: BLACKROAD_HB_TIMEOUT; default: 30]",
    ),
) -> None:
    """Disconnect the connections without a recent heartbeat.

    A running gateway checks its own connections; here they count as active. The connections of a gateway that
    has ended are spared for one more timeout, so that their agents can reconnect.
    """
    options = global_options(ctx)
    seconds = heartbeat_timeout() if timeout is None else parse_duration(timeout)
    with ledger_to_write(ctx) as ledger:
        report = ledger.heartbeat_check(seconds)
    if options.output == "id":
        for ws_id in report.timed_out:
            write(ws_id)
    else:
        line = f"Active: {len(report.active)}  Timed out: {len(report.timed_out)}"
        row = {"active": report.active, "timed_out": report.timed_out}
        if report.spared:
            row["spared"] = report.spared
        write_result(options, line, row, "")
        for ws_id in report.timed_out:
            note_to_terminal(f"timed out: {ws_id}")
    if report.spared:
        note(
            f"Spared {len(report.spared)} silent connection(s): their gateway ended a moment ago, and they keep "
            f"one timeout ({seconds:g} s) to come back; start it with: ws-manager serve"
        )
