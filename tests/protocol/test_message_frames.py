"""Messages as frames, alone and as parts of a broadcast."""

from __future__ import annotations

import json
from typing import Optional

import pytest

from ws_manager.models import PendingMessage
from ws_manager.protocol.message_frames import MessageFrames


def row(seq: int, content: str, broadcast_id: Optional[str] = None) -> PendingMessage:
    return PendingMessage(seq, f"id-{seq}", "news", "ws-9", f"ws-{seq}", content, "2026", broadcast_id)


def envelope(frame: bytes) -> dict[str, object]:
    size = len(frame) - 2 if len(frame) < 128 else len(frame) - 4
    start = len(frame) - size
    assert frame[0] == 0x81
    assert (frame[1] if start == 2 else int.from_bytes(frame[2:4], "big")) == size
    return dict(json.loads(frame[start:]))


def test_has_the_documented_fields_in_this_order() -> None:
    seq, frame = MessageFrames().of(row(41, '{"a":"ü"}'))
    assert seq == 41
    assert list(envelope(frame).items()) == [
        ("type", "message"),
        ("seq", 41),
        ("msg_id", "id-41"),
        ("recipient_id", "ws-41"),
        ("msg_type", "news"),
        ("sender_id", "ws-9"),
        ("broadcast_id", None),
        ("sent_at", "2026"),
        ("content", {"a": "ü"}),
    ]


@pytest.mark.parametrize("broadcast_id", [None, "b-1"])
def test_traceparent_comes_before_the_content_for_each_recipient(broadcast_id: Optional[str]) -> None:
    frames, trace = MessageFrames(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    found = [envelope(frames.of(row(n, "1", broadcast_id)._replace(traceparent=trace))[1]) for n in range(3)]
    assert [list(each.items())[-2:] for each in found] == [[("traceparent", trace), ("content", 1)]] * 3


def test_recipients_of_a_broadcast_get_their_own_numbers_and_ids() -> None:
    frames = MessageFrames()
    # The numbers have more and more digits.
    found = [envelope(frames.of(row(10**n, '"all"', "b-1"))[1]) for n in range(8)]
    assert [(each["seq"], each["msg_id"]) for each in found] == [(10**n, f"id-{10**n}") for n in range(8)]
    assert {each["content"] for each in found} == {"all"}


@pytest.mark.parametrize("broadcasts", [2, 63, 64, 65, 200])
def test_broadcasts_are_kept_apart(broadcasts: int) -> None:
    frames = MessageFrames()
    for round_ in range(2):
        for number in range(broadcasts):
            found = envelope(frames.of(row(round_ + 1, str(number), f"b-{number}"))[1])
            assert found["content"] == number


def test_messages_without_a_broadcast_share_nothing() -> None:
    frames = MessageFrames()
    assert [envelope(frames.of(row(n, str(n)))[1])["content"] for n in (1, 2)] == [1, 2]
