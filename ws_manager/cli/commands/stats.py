"""`ws-manager stats`: counts of connections and messages."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from typing import Any

import typer

from ws_manager.cli.ledger import ledger_if_any
from ws_manager.cli.options import global_options
from ws_manager.cli.output.text import json_object, write
from ws_manager.repository.findings import Backlog


def stats(ctx: typer.Context) -> None:
    """Print counts of connections and messages as JSON.

    After the connections and messages come what has not arrived, and the gateway that runs; null if none does.
    Where several run, `gateways` has all of them.
    """
    counts: dict[str, Any] = dict.fromkeys(
        ("active_connections", "total_ever_connected", "total_messages"), 0
    ) | {"agents": {}}
    backlog, gateways = Backlog(0, 0, 0, None), []
    with ledger_if_any(ctx) as ledger:
        if ledger is not None:
            counts = ledger.stats()
            backlog, gateways = ledger.backlog(), ledger.running_gateways()
    counts |= backlog._asdict()
    running = [{"url": gateway.url, "pid": gateway.pid} for gateway in gateways]
    counts["gateway"] = running[0] if running else None
    if len(running) > 1:
        counts["gateways"] = running
    write(json_object(counts, indent=global_options(ctx).output != "ndjson"), is_json=True)
