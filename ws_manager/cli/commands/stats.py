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
    """
    counts: dict[str, Any] = dict.fromkeys(
        ("active_connections", "total_ever_connected", "total_messages"), 0
    ) | {"agents": {}}
    backlog, gateway = Backlog(0, 0, 0, None), None
    with ledger_if_any(ctx) as ledger:
        if ledger is not None:
            counts = ledger.stats()
            backlog, gateway = ledger.backlog(), ledger.running_gateway()
    counts |= backlog._asdict()
    counts["gateway"] = None if gateway is None else {"url": gateway.url, "pid": gateway.pid}
    write(json_object(counts, indent=global_options(ctx).output != "ndjson"), is_json=True)
