"""`ws-manager stats`: counts of connections and messages."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from typing import Any

import typer

from ws_manager.cli.ledger import ledger_if_any
from ws_manager.cli.options import global_options
from ws_manager.cli.output.text import json_object, write


def stats(ctx: typer.Context) -> None:
    """Print counts of connections and messages as JSON."""
    counts: dict[str, Any] = dict.fromkeys(
        ("active_connections", "total_ever_connected", "total_messages"), 0
    ) | {"agents": {}}
    with ledger_if_any(ctx) as ledger:
        if ledger is not None:
            counts = ledger.stats()
    write(json_object(counts, indent=global_options(ctx).output != "ndjson"), is_json=True)
