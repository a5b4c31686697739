"""`broadcast`."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.over_http

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


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


def test_a_broadcast_with_a_key_is_done_once(cli, connected) -> None:
    command = ("broadcast", "1", "--agent", "octavia", "--idempotency-key", "deploy-42", "--json")
    first, again = cli(*command), cli(*command)
    assert (first.exit_code, first.stderr) == (0, "")
    assert (again.exit_code, json.loads(again.stdout)) == (0, json.loads(first.stdout))
    assert again.stderr == "note: it was sent before with this key\n"
    assert cli("broadcast", "1", "--idempotency-key", "deploy-42").exit_code == 6
    assert len(json.loads(cli("history", "--json").stdout)) == 2


def test_a_key_is_not_for_a_batch_of_broadcasts(cli, connected) -> None:
    refused = cli("broadcast", "--batch", "-", "--idempotency-key", "k", stdin=b"1\n")
    assert refused.exit_code == 2
    assert "--idempotency-key" in refused.stderr


def test_a_trace_is_that_of_each_message(cli, connected, monkeypatch) -> None:
    broadcast_id = cli("broadcast", "1", "--traceparent", TRACEPARENT, "-o", "id").stdout.strip()
    assert [row["traceparent"] for row in json.loads(cli("history", "--json").stdout)] == [TRACEPARENT] * 3
    assert [row["traceparent"] for row in json.loads(cli("broadcasts", "--json").stdout)] == [TRACEPARENT]
    assert json.loads(cli("show", broadcast_id, "--json").stdout)["facts"]["traceparent"] == TRACEPARENT
    monkeypatch.setenv("TRACEPARENT", TRACEPARENT)
    cli("broadcast", "2", "--agent", "cipher")
    assert json.loads(cli("history", "--json").stdout)[0]["traceparent"] == TRACEPARENT


def test_an_invalid_trace_is_refused(cli, connected) -> None:
    for more in ([], ["--dry-run"]):
        assert cli("broadcast", "1", "--traceparent", "nonsense", *more).exit_code == 2
    assert json.loads(cli("history", "--json").stdout) == []
