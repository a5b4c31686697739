"""What a `traceparent` may be, and what is kept of it."""

from __future__ import annotations

import pytest

from ws_manager.core.traceparent import check_traceparent, valid_traceparent
from ws_manager.errors import InvalidInput

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("flags", ["00", "01", "02", "ff"])
def test_of_version_00_is_kept_as_it_is(flags: str) -> None:
    text = f"00-{TRACE}-{PARENT}-{flags}"
    assert (check_traceparent(text), valid_traceparent(text)) == (text, text)


@pytest.mark.parametrize(
    ("flags", "kept"),
    [("00", "00"), ("01", "01"), ("03", "01"), ("fe", "00"), ("01-", "01"), ("01-more", "01")],
)
@pytest.mark.parametrize("version", ["01", "cc", "fe"])
def test_of_a_later_version_the_known_parts_are_kept(version: str, flags: str, kept: str) -> None:
    assert check_traceparent(f"{version}-{TRACE}-{PARENT}-{flags}") == f"00-{TRACE}-{PARENT}-{kept}"


INVALID = [
    "",
    "00",
    f"00-{TRACE}-{PARENT}",
    f"00-{TRACE}-{PARENT}-1",
    f"00-{TRACE}-{PARENT}-011",
    f"00-{TRACE}-{PARENT}-01-more",
    f"00-{TRACE}-{PARENT}-0g",
    f"00-{TRACE.upper()}-{PARENT}-01",
    f"00-{TRACE}-{PARENT.upper()}-01",
    f"00-{'0' * 32}-{PARENT}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE[1:]}-{PARENT}-01",
    f"00-{TRACE}-{PARENT}0-01",
    f"00_{TRACE}_{PARENT}_01",
    f"ff-{TRACE}-{PARENT}-01",
    f"0-{TRACE}-{PARENT}-01",
    f"0X-{TRACE}-{PARENT}-01",
    f"01-{'0' * 32}-{PARENT}-01",
    f"01-{TRACE}-{PARENT}-01more",
    f"01-{TRACE}-{PARENT}-01-more than that",
    f" 00-{TRACE}-{PARENT}-01",
    f"00-{TRACE}-{PARENT}-01\n",
    f"00-{TRACE}-{PARENT}-0\u0661",
]


@pytest.mark.parametrize("text", INVALID)
def test_that_is_invalid_is_refused_or_ignored(text: str) -> None:
    with pytest.raises(InvalidInput, match="the traceparent is not valid"):
        check_traceparent(text)
    assert valid_traceparent(text) is None


def test_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidInput):
        check_traceparent(1)
