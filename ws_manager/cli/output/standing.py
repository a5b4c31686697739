"""What has not arrived, and whether a gateway runs, in one line."""

from __future__ import annotations

from collections.abc import Sequence

from ws_manager.cli.output.times import ago, now
from ws_manager.models import Gateway
from ws_manager.repository.findings import Backlog

_SHOWN = 3


def backlog_text(backlog: Backlog) -> str:
    """Return what has not arrived, such as `3 pending (the oldest 5m ago), 1 set aside`."""
    oldest = backlog.oldest_pending_at
    parts = [f"{backlog.pending} pending" + (f" (the oldest {ago(oldest, now())})" if oldest else "")]
    parts.append(f"{backlog.set_aside} set aside")
    if backlog.unrouted:
        parts.append(f"{backlog.unrouted} webhook event(s) unrouted")
    return ", ".join(parts)


def gateways_text(gateways: Sequence[Gateway]) -> str:
    """Return which gateways run."""
    if not gateways:
        return "no gateway runs"
    if len(gateways) == 1:
        return f"the gateway {gateways[0].url} runs"
    urls = ", ".join(gateway.url for gateway in gateways[:_SHOWN])
    more = f" and {len(gateways) - _SHOWN} more" if len(gateways) > _SHOWN else ""
    return f"{len(gateways)} gateways run: {urls}{more}"
