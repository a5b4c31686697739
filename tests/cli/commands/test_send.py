"""`send`."""

from __future__ import annotations

import json
import re

import pytest

pytestmark = pytest.mark.over_http

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER_TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def contents(cli) -> list[object]:
    return [row["content"] for row in json.loads(cli("history", "--json").stdout)]


def test_send(cli, connected) -> None:
    result = cli("send", "ws-001", '{"ping":true}')
    assert re.fullmatch(f"Sent message {UUID4} to ws-001\n", result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    row = json.loads(cli("history", "--json").stdout)[0]
    assert (row["content"], row["msg_type"], row["delivered"]) == ({"ping": True}, "data", False)
    cli("send", "ws-001", "1", "--type", "note")
    assert json.loads(cli("history", "--json").stdout)[0]["msg_type"] == "note"


def test_send_in_other_formats(cli, connected) -> None:
    sent = json.loads(cli("send", "ws-001", "1", "--json").stdout)
    assert list(sent) == ["msg_id", "ws_id"]
    assert sent["ws_id"] == "ws-001"
    assert re.fullmatch(f"{UUID4}\n", cli("send", "ws-001", "1", "-o", "id").stdout)
    assert re.fullmatch(f"{UUID4}\tws-001\n", cli("send", "ws-001", "1", "-o", "tsv").stdout)
    assert cli("send", "ws-001", "1", "-o", "csv").stdout.startswith("msg_id,ws_id\n")


def test_send_says_which_of_the_two_is_wrong(cli, connected) -> None:
    cli("disconnect", "ws-002")
    inactive, unknown = cli("send", "ws-002", "1"), cli("send", "nobody", "1")
    assert (inactive.exit_code, unknown.exit_code) == (3, 3)
    assert "ws-002 is not active: disconnected" in inactive.stderr
    assert "no connection nobody" in unknown.stderr


def test_a_duration_that_is_none_sends_nothing(cli, connected) -> None:
    assert cli("send", "ws-001", "1", "--wait", "soon").exit_code == 2
    assert contents(cli) == []


def test_a_send_with_a_key_is_done_once(cli, connected) -> None:
    first = cli("send", "ws-001", '{"a": 1.50}', "--idempotency-key", "deploy-42")
    again = cli("send", "ws-001", '{"a":1.50}', "--idempotency-key", "deploy-42")
    assert (first.exit_code, first.stderr) == (0, "")
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert again.stderr == "note: it was sent before with this key\n"
    other = cli("send", "ws-001", "2", "--idempotency-key", "deploy-42")
    assert other.exit_code == 6
    assert "key" in other.stderr
    assert contents(cli) == [{"a": 1.50}]


def test_a_send_that_failed_does_not_use_its_key_up(cli, connected) -> None:
    cli("disconnect", "ws-001")
    assert cli("send", "ws-001", "1", "--idempotency-key", "k").exit_code == 3
    cli("connect", "octavia", "--ws-id", "ws-001")
    assert cli("send", "ws-001", "1", "--idempotency-key", "k").exit_code == 0
    assert contents(cli) == [1]


def test_a_key_is_not_for_a_batch(cli, connected) -> None:
    refused = cli("send", "ws-001", "--batch", "-", "--idempotency-key", "k", stdin=b"1\n")
    assert refused.exit_code == 2
    assert "--idempotency-key" in refused.stderr
    assert contents(cli) == []


def traces(cli) -> list[object]:
    """The traces of all messages, the oldest first."""
    return [row["traceparent"] for row in json.loads(cli("history", "--json").stdout)][::-1]


def test_a_trace_is_shown_and_received(cli, connected) -> None:
    msg_id = cli("send", "ws-001", "1", "--traceparent", TRACEPARENT, "-o", "id").stdout.strip()
    assert traces(cli) == [TRACEPARENT]
    assert json.loads(cli("show", msg_id, "--json").stdout)["facts"]["traceparent"] == TRACEPARENT
    assert json.loads(cli("receive", "ws-001").stdout)["traceparent"] == TRACEPARENT


def test_an_invalid_trace_is_refused(cli, connected) -> None:
    refused = cli("send", "ws-001", "1", "--traceparent", "nonsense")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "the traceparent is not valid" in refused.stderr
    assert contents(cli) == []


def test_a_trace_comes_from_the_environment_if_it_is_valid(cli, connected, monkeypatch) -> None:
    for text in (TRACEPARENT, "nonsense", ""):
        monkeypatch.setenv("TRACEPARENT", text)
        result = cli("send", "ws-001", "1")
        assert (result.exit_code, result.stderr) == (0, "")
    monkeypatch.setenv("TRACEPARENT", TRACEPARENT)
    cli("send", "ws-001", "1", "--traceparent", OTHER_TRACEPARENT)
    assert traces(cli) == [TRACEPARENT, None, None, OTHER_TRACEPARENT]


def test_a_key_does_not_stand_for_the_trace(cli, connected) -> None:
    command = ("send", "ws-001", "1", "--idempotency-key", "deploy-42", "--traceparent")
    first, again = cli(*command, TRACEPARENT), cli(*command, OTHER_TRACEPARENT)
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert traces(cli) == [TRACEPARENT]
