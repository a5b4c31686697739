"""What a command says about a connection that is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ws_manager.errors import NotFound

if TYPE_CHECKING:
    from ws_manager.core.registry import Registry


def not_active(registry: Registry, ws_id: str) -> NotFound:
    """Return the error for a ws_id that is not active: never seen, or disconnected since when and why."""
    connection = registry.find(ws_id)
    if connection is None:
        return NotFound(f"no connection {ws_id}", hint="ws-manager list shows who is connected")
    since = f" since {connection.disconnected_at}" if connection.disconnected_at else ""
    reason = f" ({connection.close_reason})" if connection.close_reason else ""
    return NotFound(
        f"{ws_id} is not active: {connection.status}{since}{reason}",
        hint=f"ws-manager connect {connection.agent} --ws-id {ws_id} registers it again",
    )
