"""What a command gets of a message."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ws_manager.cli.work.job import CONTENT, ENVELOPE, RAW, environment, given
from ws_manager.strict_json import Json


def message(content: str = '{"n":1}', **fields: Any) -> dict[str, Any]:
    return {
        "seq": 41, "msg_id": "6d5c", "msg_type": "deploy", "sender_id": "ws-002", "recipient_id": "ws-001",
        "broadcast_id": None, "sent_at": "2026-01-31T12:00:00.000000+00:00", "traceparent": None,
        "wants_reply": False, "reply_to": None,
        "content": Json(content), **fields,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("form", "content", "wanted"),
    [
        (CONTENT, '{"n":1.00}', b'{"n":1.00}\n'),
        (CONTENT, '"text"', b'"text"\n'),
        (RAW, '"l\\u00fcne\\n"', "lüne\n".encode()),
        (RAW, '"\\ud800"', b"?"),
        (RAW, '{"n":1}', b'{"n":1}\n'),
    ],
)
def test_content_is_given_as_it_was_sent_or_as_text(form: str, content: str, wanted: bytes) -> None:
    assert given(message(content), form) == wanted


def test_envelope_is_the_whole_message_on_one_line() -> None:
    line = given(message(), ENVELOPE)
    assert line.endswith(b"}\n")
    assert json.loads(line) == {**message(), "content": {"n": 1}}


def test_variables_tell_of_the_message() -> None:
    variables = environment(message(), "octavia", 2, base={"PATH": "/bin", "WS_BROADCAST_ID": "of another"})
    assert variables == {
        "PATH": "/bin", "WS_MSG_ID": "6d5c", "WS_MSG_TYPE": "deploy", "WS_SENDER_ID": "ws-002", "WS_SEQ": "41",
        "WS_SENT_AT": "2026-01-31T12:00:00.000000+00:00", "WS_ID": "ws-001", "WS_AGENT": "octavia", "WS_ATTEMPT": "2",
    }  # fmt: skip


def test_secrets_are_taken_out() -> None:
    secret = {
        "BLACKROAD_WS_TOKEN": "t", "BLACKROAD_WS_SECRET": "s", "STRIPE_WEBHOOK_SECRET": "w", "STRIPE_API_KEY": "k",
        "PGPASSWORD": "p", "BLACKROAD_WS_DB": "postgresql://me:secret@host/db",
    }  # fmt: skip
    variables = environment(message(), "octavia", 1, base={**secret, "HOME": "/root"})
    assert variables["HOME"] == "/root"
    assert not secret.keys() & variables.keys()
    assert (
        environment(message(), "octavia", 1, base={"BLACKROAD_WS_DB": "/a/file"})["BLACKROAD_WS_DB"]
        == "/a/file"
    )


def test_trace_of_the_message_replaces_that_of_this_process() -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    ours = {"TRACEPARENT": f"00-{'c' * 32}-{'d' * 16}-01"}
    assert environment(message(traceparent=trace), "octavia", 1, base=ours)["TRACEPARENT"] == trace
    assert "TRACEPARENT" not in environment(message(), "octavia", 1, base=ours)
