"""What has not arrived, and whether a gateway runs, in one line."""

from __future__ import annotations

from typing import Optional

from ws_manager.cli.output.times import ago, now
from ws_manager.models import Gateway
from ws_manager.repository.findings import Backlog


def backlog_text(backlog: Backlog) -> str:
    """Return what has not arrived, such as `3 pending (the oldest 5m ago), 1 set aside`."""
    oldest = backlog.oldest_pending_at
    parts = [f"{backlog.pending} pending" + (f" (the oldest {ago(oldest, now())})" if oldest else "")]
    parts.append(f"{backlog.set_aside} set aside")
    if backlog.unrouted:
        parts.append(f"{backlog.unrouted} webhook event(s) unrouted")
    return ", ".join(parts)


def gateway_text(gateway: Optional[Gateway]) -> str:
    """Return whether a gateway runs; None for none."""
    return "no gateway runs" if gateway is None else f"the gateway {gateway.url} runs"
