"""`broadcast`."""

from __future__ import annotations

import json


def test_broadcast(cli, connected) -> None:
    result = cli("broadcast", '{"event":"deploy"}')
    assert (result.exit_code, result.stdout.splitlines()[0], result.stderr) == (
        0,
        "Broadcast to 3 connection(s)",
        "",
    )
    assert cli("broadcast", "1", "--agent", "octavia").stdout.startswith("Broadcast to 2 connection(s)\n")
    nobody = cli("broadcast", "1", "--agent", "nobody")
    assert (nobody.exit_code, nobody.stdout.splitlines()[0]) == (0, "Broadcast to 0 connection(s)")
    sent = json.loads(cli("broadcast", "1", "--agent", "cipher", "--type", "note", "--json").stdout)
    assert list(sent) == ["broadcast_id", "recipients"]
    assert sent["recipients"] == ["ws-003"]
    assert json.loads(cli("history", "--json").stdout)[0]["msg_type"] == "note"


def test_a_broadcast_to_nobody_says_so(cli) -> None:
    cli("connect", "octavia")
    result = cli("broadcast", "1", "--agent", "octvia")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "Broadcast to 0 connection(s)")
    assert "note: no agent octvia has ever connected\nnote: nobody got it" in result.stderr


def test_a_broadcast_to_an_agent_without_a_name_is_refused(cli, db) -> None:
    assert cli("broadcast", "1", "--agent", "").exit_code == 2
