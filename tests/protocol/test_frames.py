"""The envelopes of protocol v1."""

from __future__ import annotations

import json
from typing import Optional

import pytest

from ws_manager.errors import InvalidInput
from ws_manager.models import PendingMessage
from ws_manager.protocol.ask_frames import ReplyRequest, reply_frame
from ws_manager.protocol.frames import (
    Ack,
    BadRequest,
    Connected,
    Received,
    Reject,
    Unreadable,
    ack_frame,
    connected_frame,
    error_frame,
    message_start,
    message_tail,
    parse_agent_frame,
    parse_gateway_frame,
    reject_frame,
)
from ws_manager.protocol.request_frames import BroadcastRequest, SendRequest, broadcast_frame, send_frame
from ws_manager.strict_json import Json


def message_frame(message: PendingMessage) -> str:
    return (message_start(message) + message_tail(message)).decode()


GREETING = {
    "type": "connected",
    "ws_id": "ws-001",
    "agent": "octavia",
    "resumed": True,
    "pending": 3,
    "seq": 38,
    "heartbeat": 10,
}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MESSAGE = {
    "type": "message",
    "seq": 41,
    "msg_id": "id-41",
    "msg_type": "broadcast",
    "sender_id": None,
    "recipient_id": "ws-001",
    "broadcast_id": None,
    "sent_at": "2026-11-22T17:15:18.644305+00:00",
    "content": {},
}


def test_greeting_has_the_documented_fields() -> None:
    frame = connected_frame(ws_id="ws-001", agent="octavia", resumed=True, pending=3, seq=38, heartbeat=10)
    assert json.loads(frame) == GREETING


def test_greeting_is_read_back() -> None:
    assert parse_gateway_frame(json.dumps(GREETING)) == Connected("ws-001", "octavia", True, 3, 38, 10)


@pytest.mark.parametrize("text", ['he said "hi"', "back\\slash", "ü€😀", "\u2028", "\x7f\u009b"])
def test_names_survive_the_wire(text: str) -> None:
    frame = message_frame(PendingMessage(1, "id-1", text, text, text, "null", "2026"))
    received = parse_gateway_frame(frame)
    assert isinstance(received, Received)
    assert (received.msg_type, received.sender_id, received.recipient_id) == (text, text, text)


@pytest.mark.parametrize(
    "content", ["null", "0", '"text"', "[1,[2]]", '{"a":{"b":"ü"}}', '"\\u0000"', "[\n1\n]"]
)
def test_content_goes_in_as_it_is(content: str) -> None:
    frame = message_frame(PendingMessage(1, "id-1", "data", None, "ws-001", content, "2026"))
    assert frame.endswith(f'"content":{content}}}')


def test_received_message_gives_its_envelope_without_the_type() -> None:
    received = parse_gateway_frame(json.dumps(MESSAGE))
    assert isinstance(received, Received)
    envelope = {name: value for name, value in MESSAGE.items() if name != "type"}
    assert received.as_dict() == {**envelope, "traceparent": None, "wants_reply": False, "reply_to": None}


def test_ask_and_answer_are_read_back() -> None:
    ask = PendingMessage(1, "id-1", "data", None, "w", "1", "2026", wants_reply=True)
    answer = PendingMessage(2, "id-2", "reply", "w", "v", "1", "2026", reply_to="id-1")
    frames = [parse_gateway_frame(message_frame(each)) for each in (ask, answer)]
    assert all(isinstance(frame, Received) for frame in frames)
    assert [(frame.wants_reply, frame.reply_to) for frame in frames if isinstance(frame, Received)] == [
        (True, None),
        (False, "id-1"),
    ]


def test_members_of_asks_are_left_out_of_other_messages() -> None:
    frame = json.loads(message_frame(PendingMessage(1, "id-1", "data", None, "w", "1", "2026")))
    assert not {"wants_reply", "reply_to"} & set(frame)


def test_requests_to_ask_and_to_answer_are_read() -> None:
    asked = parse_agent_frame(send_frame(1, "octavia", [1], "data", "k", kind="ask"))
    assert asked == SendRequest("1", "octavia", Json("[1]"), "data", "k", asks=True)
    assert parse_agent_frame(reply_frame(2, 41, {"a": 1})) == ReplyRequest("2", 41, Json('{"a":1}'))


@pytest.mark.parametrize("member", ["seq", "content"])
def test_answer_without_a_member_is_a_bad_request(member: str) -> None:
    frame = {"type": "reply", "ref": 3, "seq": 41, "content": 1}
    del frame[member]
    refused = parse_agent_frame(json.dumps(frame))
    assert isinstance(refused, BadRequest)
    assert refused.ref == "3"


def test_received_message_has_the_traceparent_of_its_frame() -> None:
    received = parse_gateway_frame(json.dumps({**MESSAGE, "traceparent": TRACEPARENT}))
    assert isinstance(received, Received)
    assert (received.traceparent, received.as_dict()["traceparent"]) == (TRACEPARENT, TRACEPARENT)


def test_traceparent_of_the_wrong_type_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="traceparent is not text"):
        parse_gateway_frame(json.dumps({**MESSAGE, "traceparent": 1}))


@pytest.mark.parametrize("traceparent", [None, TRACEPARENT])
def test_requests_are_read_back(traceparent: Optional[str]) -> None:
    assert parse_agent_frame(send_frame(7, "ws-1", [1], "data", "k", traceparent)) == SendRequest(
        "7", "ws-1", Json("[1]"), "data", "k", traceparent
    )
    assert parse_agent_frame(broadcast_frame(8, None, [1], "news", None, traceparent)) == BroadcastRequest(
        "8", None, Json("[1]"), "news", None, traceparent
    )


def test_ack_is_read_back() -> None:
    assert parse_agent_frame(ack_frame(41)) == Ack(41)


def test_reject_is_read_back() -> None:
    assert parse_agent_frame(reject_frame(41, "ü")) == Reject(41, "ü")


def test_reject_without_a_reason_has_an_empty_one() -> None:
    assert parse_agent_frame('{"type":"reject","seq":1}') == Reject(1, "")


def test_long_reason_is_cut() -> None:
    rejected = parse_agent_frame(reject_frame(1, "x" * 1000))
    assert isinstance(rejected, Reject)
    assert len(rejected.reason) == 200


def test_unknown_fields_of_an_agent_are_ignored() -> None:
    assert parse_agent_frame('{"type":"ack","seq":1,"extra":[]}') == Ack(1)


@pytest.mark.parametrize("seq", [0, 1, 2**63 - 1])
def test_every_number_of_a_message_is_accepted(seq: int) -> None:
    assert parse_agent_frame(ack_frame(seq)) == Ack(seq)


def test_error_has_code_and_message() -> None:
    assert json.loads(error_frame("conflict", "no")) == {
        "type": "error",
        "error": {"code": "conflict", "message": "no"},
    }


def test_gateway_frame_of_an_unknown_type_is_ignored() -> None:
    assert parse_gateway_frame('{"type":"weather"}') is None


@pytest.mark.parametrize("frame", [GREETING, MESSAGE], ids=["connected", "message"])
def test_gateway_frame_with_a_field_too_few_is_an_error(frame: dict[str, object]) -> None:
    for name in frame.keys() - {"type"}:
        with pytest.raises(InvalidInput):
            parse_gateway_frame(json.dumps({key: value for key, value in frame.items() if key != name}))


@pytest.mark.parametrize("frame", [GREETING, MESSAGE], ids=["connected", "message"])
def test_gateway_frame_with_a_field_of_the_wrong_type_is_an_error(frame: dict[str, object]) -> None:
    for name in frame.keys() - {"type", "content"}:
        with pytest.raises(InvalidInput):
            parse_gateway_frame(json.dumps({**frame, name: ["list"]}))


@pytest.mark.parametrize("error", ["null", "[]", "{}", '{"code":1,"message":"no"}'])
def test_malformed_error_is_an_error(error: str) -> None:
    with pytest.raises(InvalidInput):
        parse_gateway_frame(f'{{"type":"error","error":{error}}}')


@pytest.mark.parametrize("kind", ["send", "broadcast"])
@pytest.mark.parametrize("content", ["[" * 200 + "]" * 200, "1e400", "NaN", '{"a":1,"a":2}'])
def test_request_whose_content_is_not_accepted_is_answered(kind: str, content: str) -> None:
    frame = parse_agent_frame(f'{{"content":{content},"ref":1.10,"to":"ws-1","type":"{kind}"}}')
    assert isinstance(frame, BadRequest)
    assert frame.ref == "1.10"


@pytest.mark.parametrize("ref", ["1e400", "[" * 200 + "]" * 200, "[[1}"])
def test_ref_that_is_not_accepted_is_null_in_the_answer(ref: str) -> None:
    frame = parse_agent_frame(f'{{"type":"send","content":NaN,"to":"ws-1","ref":{ref}}}')
    assert isinstance(frame, BadRequest)
    assert frame.ref == "null"


@pytest.mark.parametrize("text", ['{"type":"ack","seq":[' + "[" * 200, '{"type":"ack","seq":NaN}', "[" * 200])
def test_frame_beyond_the_limits_that_is_no_request_is_an_error(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_agent_frame(text)


def test_content_of_a_request_keeps_the_text_of_its_numbers() -> None:
    frame = parse_agent_frame('{"type":"send","to":"ws-1","content":{ "a" : 1.10 }}')
    assert isinstance(frame, SendRequest)
    assert (frame.content, frame.ref) == ('{"a":1.10}', "null")


def test_content_that_a_client_sends_is_checked() -> None:
    with pytest.raises(InvalidInput, match="not JSON"):
        send_frame(1, "ws-001", float("nan"), "data")


def test_received_message_has_the_text_of_its_content() -> None:
    received = parse_gateway_frame(
        message_frame(PendingMessage(1, "id-1", "data", None, "w", "1.10", "2026"))
    )
    assert isinstance(received, Received)
    assert (received.content, received.content_json) == (1.1, "1.10")


@pytest.mark.parametrize(
    "content", ["[" * 980 + "]" * 980, "[" * 100_000 + "]" * 100_000, "1e400", "1" * 5000]
)
def test_message_whose_content_cannot_be_taken_is_told_apart(content: str) -> None:
    frame = parse_gateway_frame(message_frame(PendingMessage(7, "id-7", "data", None, "w", content, "2026")))
    assert isinstance(frame, Unreadable)
    assert (frame.seq, frame.msg_id) == (7, "id-7")
    assert frame.reason.startswith("beyond the limits: ")


def test_message_of_older_days_with_a_key_twice_is_taken() -> None:
    text = message_frame(PendingMessage(7, "id-7", "data", None, "w", '{"a":1,"a":2}', "2026"))
    assert isinstance(parse_gateway_frame(text), Received)
