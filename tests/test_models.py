"""The values that cross the boundaries."""

from __future__ import annotations

import dataclasses
import uuid
from datetime import datetime, timedelta, timezone

import pytest

from ws_manager.models import Connection, Message, new_id, new_ids, seconds_before, timestamp, utc_now


def test_connection_has_the_documented_fields_in_order() -> None:
    names = [field.name for field in dataclasses.fields(Connection)]
    assert names[:9] == [
        "ws_id",
        "agent",
        "metadata",
        "connected_at",
        "last_heartbeat",
        "status",
        "message_count",
        "db_id",
        "disconnected_at",
    ]


def test_connection_needs_only_its_id_and_agent() -> None:
    connection = Connection("ws-001", "octavia")
    assert connection.metadata == {}
    assert connection.status == "active"
    assert connection.message_count == 0
    assert connection.db_id is None
    assert connection.disconnected_at is None


def test_connections_do_not_share_metadata() -> None:
    assert Connection("a", "octavia").metadata is not Connection("b", "octavia").metadata


def test_models_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Connection("ws-001", "octavia").status = "gone"  # type: ignore[misc]


def test_payload_decodes_the_content() -> None:
    message = Message("id", "data", None, "ws-001", '{"ping":true}', utc_now())
    assert message.payload == {"ping": True}


def test_timestamp_has_one_width_whatever_the_fraction() -> None:
    moment = datetime(2026, 11, 22, 17, 15, 18, tzinfo=timezone.utc)
    assert timestamp(moment) == "2026-11-22T17:15:18.000000+00:00"


def test_timestamp_is_utc() -> None:
    moment = datetime(2026, 11, 22, 19, 15, 18, 644305, tzinfo=timezone(timedelta(hours=2)))
    assert timestamp(moment) == "2026-11-22T17:15:18.644305+00:00"


def test_order_of_the_text_is_order_of_time() -> None:
    start = datetime(2026, 12, 31, 23, 59, 59, 999999, tzinfo=timezone.utc)
    texts = [timestamp(start + timedelta(microseconds=step)) for step in range(3)]
    assert texts == sorted(texts)


def test_seconds_before() -> None:
    assert seconds_before("2026-11-22T17:15:18.644305+00:00", 30) == "2026-11-22T17:14:48.644305+00:00"


def test_ids_are_uuids_of_version_4() -> None:
    for text in new_ids(200):
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert parsed.version == 4
        assert parsed.variant == uuid.RFC_4122


def test_ids_differ_and_ascend() -> None:
    ids = new_ids(1000)
    assert len(set(ids)) == 1000
    assert ids == sorted(ids)


def test_ids_of_one_call_share_their_first_48_bits() -> None:
    ids = new_ids(1000)
    assert len({text[:13] for text in ids}) == 1
    # And nothing else: 12 bits more have 4,096 values.
    assert len({text[14:18] for text in ids}) > 500


def test_ids_of_two_calls_share_nothing() -> None:
    assert new_ids(1)[0][:13] != new_ids(1)[0][:13]


def test_ids_beside_another() -> None:
    broadcast_id = new_id()
    ids = new_ids(1000, beside=broadcast_id)
    assert {text[:13] for text in ids} == {broadcast_id[:13]}
    assert {uuid.UUID(text).version for text in ids} == {4}
    assert len({*ids, broadcast_id}) == 1001


def test_no_ids() -> None:
    assert new_ids(0) == []


def test_one_id() -> None:
    assert uuid.UUID(new_id()).version == 4
