"""What may enter the ledger."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest

from ws_manager.core.validation import (
    check_latency,
    check_limit,
    check_name,
    check_timeout,
    check_timestamp,
    encode_content,
    encode_metadata,
)
from ws_manager.errors import InvalidInput
from ws_manager.settings import MAX_CONTENT, MAX_METADATA
from ws_manager.strict_json import Json


class StripeObject:
    """As Stripe's: no dict, but it can become one."""

    def __init__(self, **values: object) -> None:
        self._values = values

    def to_dict(self) -> dict[str, object]:
        """What it holds."""
        return self._values


class TestContent:
    @pytest.mark.parametrize(
        ("content", "text"),
        [
            ({"event": "ping", "n": [1, 2.5, None, True]}, '{"event":"ping","n":[1,2.5,null,true]}'),
            ("ping", '"ping"'),
            ('{"a":1}', '"{\\"a\\":1}"'),
            ("", '""'),
            (None, "null"),
            (0, "0"),
            ((1, 2), "[1,2]"),
            ("Grüße 🛰", '"Grüße 🛰"'),
            ({1: 2}, '{"1":2}'),
        ],
    )
    def test_becomes_compact_json_that_keeps_unicode(self, content: object, text: str) -> None:
        assert encode_content(content) == text

    def test_objects_that_can_become_a_dict(self) -> None:
        event = {"data": StripeObject(object=StripeObject(id="pi_1", amount=5))}
        assert json.loads(encode_content(event)) == {"data": {"object": {"id": "pi_1", "amount": 5}}}

    @pytest.mark.parametrize(
        "content", [float("nan"), float("inf"), -float("inf"), {"a": [float("nan")]}, object(), b"x", {1, 2}]
    )
    def test_what_is_no_json(self, content: object) -> None:
        with pytest.raises(InvalidInput, match="is not JSON"):
            encode_content(content)

    def test_circle(self) -> None:
        circle: list[object] = []
        circle.append(circle)
        with pytest.raises(InvalidInput, match="is not JSON"):
            encode_content(circle)

    @pytest.mark.parametrize("content", ["\ud800", {"a": "\udc00"}, {"\ud800": 1}])
    def test_half_of_a_surrogate_pair(self, content: object) -> None:
        with pytest.raises(InvalidInput, match="surrogate"):
            encode_content(content)

    def test_checked_json_goes_in_as_it_is(self) -> None:
        assert encode_content(Json('{"v":1.10}')) == '{"v":1.10}'

    def test_checked_json_has_a_size_too(self) -> None:
        with pytest.raises(InvalidInput, match="bytes"):
            encode_content(Json('"ü"'), 3)

    def test_largest(self) -> None:
        assert len(encode_content("x" * (MAX_CONTENT - 2))) == MAX_CONTENT

    def test_larger(self) -> None:
        with pytest.raises(InvalidInput, match=str(MAX_CONTENT + 1)):
            encode_content("x" * (MAX_CONTENT - 1))

    def test_size_is_in_bytes(self) -> None:
        with pytest.raises(InvalidInput, match="bytes"):
            encode_content("ü" * (MAX_CONTENT // 2))

    def test_error_does_not_hold_the_content(self) -> None:
        with pytest.raises(InvalidInput) as raised:
            encode_content({"secret": "whsec_123", "bad": object()})
        assert "whsec_123" not in str(raised.value)


class TestMetadata:
    @pytest.mark.parametrize("metadata", [{"ip": "10.0.0.1"}, MappingProxyType({"ip": "10.0.0.1"})])
    def test_any_mapping(self, metadata: object) -> None:
        assert encode_metadata(metadata) == '{"ip":"10.0.0.1"}'

    @pytest.mark.parametrize("metadata", [[1], "text", 5, None, {1: 2}, StripeObject(a=1)])
    def test_what_is_no_object(self, metadata: object) -> None:
        with pytest.raises(InvalidInput, match="must be a JSON object"):
            encode_metadata(metadata)

    def test_too_large(self) -> None:
        with pytest.raises(InvalidInput, match=f"at most {MAX_METADATA}|bytes"):
            encode_metadata({"x": "y" * MAX_METADATA})


class TestNames:
    @pytest.mark.parametrize("name", ["octavia", "ws-001", "a b", "Ü", "[agent]", "x" * 128])
    def test_what_can_name(self, name: str) -> None:
        assert check_name(name, "agent") == name

    @pytest.mark.parametrize("name", ["", "  ", None, 5, b"x"])
    def test_empty(self, name: object) -> None:
        with pytest.raises(InvalidInput, match="the agent is empty"):
            check_name(name, "agent")

    def test_too_long(self) -> None:
        with pytest.raises(InvalidInput, match="has 129 characters"):
            check_name("x" * 129, "agent")

    @pytest.mark.parametrize("character", ["\n", "\x00", "\x1b", "\x7f", "\x9b"])
    def test_control_characters(self, character: str) -> None:
        with pytest.raises(InvalidInput, match=f"U\\+{ord(character):04X}"):
            check_name(f"a{character}b", "agent")

    def test_half_of_a_surrogate_pair(self) -> None:
        with pytest.raises(InvalidInput, match="not valid Unicode"):
            check_name("a\ud800b", "agent")


class TestNumbers:
    @pytest.mark.parametrize("limit", [0, 1, 2**62])
    def test_limit(self, limit: int) -> None:
        assert check_limit(limit) == limit

    @pytest.mark.parametrize("limit", [-1, 2**63, 1.0, "1", None, True])
    def test_no_limit(self, limit: object) -> None:
        with pytest.raises(InvalidInput, match="not a limit"):
            check_limit(limit)

    @pytest.mark.parametrize("seconds", [0, 0.5, 30, 315360000])
    def test_timeout(self, seconds: float) -> None:
        assert check_timeout(seconds) == seconds

    @pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 1e300, "30", None, True])
    def test_no_timeout(self, seconds: object) -> None:
        with pytest.raises(InvalidInput, match="not a timeout"):
            check_timeout(seconds)

    @pytest.mark.parametrize(("latency", "whole"), [(None, None), (0, 0), (12, 12), (12.4, 12), (12.6, 13)])
    def test_latency(self, latency: object, whole: object) -> None:
        assert check_latency(latency) == whole

    @pytest.mark.parametrize("latency", [-1, float("nan"), float("inf"), 2**63, "12", True])
    def test_no_latency(self, latency: object) -> None:
        with pytest.raises(InvalidInput, match="not a latency"):
            check_latency(latency)


class TestTimestamps:
    @pytest.mark.parametrize(
        "text",
        [
            "2026-11-22T17:15:18+00:00",
            "2026-11-22T17:15:18",
            "2026-11-22 17:15:18",
            "2026-11-22T17:15:18Z",
            "2026-11-22T19:15:18+02:00",
        ],
    )
    def test_get_the_fixed_width(self, text: str) -> None:
        assert check_timestamp(text, "connected_at") == "2026-11-22T17:15:18.000000+00:00"

    @pytest.mark.parametrize("value", ["", "yesterday", None, 5, "0001-01-01T00:00:00+14:00"])
    def test_what_is_none(self, value: object) -> None:
        with pytest.raises(InvalidInput, match="connected_at is not a timestamp"):
            check_timestamp(value, "connected_at")
