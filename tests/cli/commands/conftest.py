"""Ledgers that the tests of several commands begin with."""

from __future__ import annotations

import pytest


@pytest.fixture
def connected(cli) -> None:
    """ws-001 and ws-002 are octavia's, ws-003 is cipher's."""
    for ws_id, agent in (("ws-001", "octavia"), ("ws-002", "octavia"), ("ws-003", "cipher")):
        cli("connect", agent, "--ws-id", ws_id)


@pytest.fixture
def one_message(cli) -> None:
    """ws-001 is octavia's, and a message with hostile text is pending for it."""
    cli("connect", "octavia", "--ws-id", "ws-001", "--metadata", '{"region":"wést"}')
    cli("send", "ws-001", '{"text":"[bold] \\u202e \\u009b"}')
