"""`replay`."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.over_http


def test_sends_to_another(cli, connected) -> None:
    msg_id = cli("send", "ws-001", '{"a":1.10}', "-o", "id").stdout.strip()
    told = json.loads(cli("replay", msg_id[:8], "--to", "ws-003", "--json").stdout)
    assert (told["ws_id"], told["retry_of"]) == ("ws-003", msg_id)
    received = json.loads(cli("receive", "ws-003").stdout)
    assert (received["msg_id"], received["content"]) == (told["msg_id"], {"a": 1.1})


def test_to_nobody(cli, connected) -> None:
    msg_id = cli("send", "ws-001", "1", "-o", "id").stdout.strip()
    assert cli("replay", msg_id, "--to", "nobody").exit_code == 3
    assert cli("replay", "ws-001", "--to", "ws-002").exit_code == 3
    assert cli("replay", msg_id).exit_code == 2
