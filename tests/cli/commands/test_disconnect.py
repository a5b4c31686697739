"""`disconnect`."""

from __future__ import annotations

import json


def test_disconnect(cli) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    result = cli("disconnect", "ws-001")
    assert (result.exit_code, result.stdout) == (0, "Disconnected: ws-001\n")
    again = cli("disconnect", "ws-001")
    assert again.exit_code == 3
    assert "ws-001 is not active: disconnected since" in again.stderr
    unknown = cli("disconnect", "nobody")
    assert unknown.exit_code == 3
    assert "no connection nobody" in unknown.stderr


def test_disconnect_as_json(cli) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    assert json.loads(cli("disconnect", "ws-001", "--json").stdout) == {
        "ws_id": "ws-001",
        "status": "disconnected",
    }
