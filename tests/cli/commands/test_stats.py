"""`stats`."""

from __future__ import annotations


def test_stats(cli) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    cli("connect", "cipher", "--ws-id", "ws-002")
    cli("disconnect", "ws-002")
    cli("send", "ws-001", "1")
    result = cli("stats")
    assert result.stdout == (
        '{\n  "active_connections": 1,\n  "total_ever_connected": 2,\n'
        '  "total_messages": 1,\n  "agents": {"octavia": 1}\n}\n'
    )
