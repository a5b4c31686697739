"""Moments in every form in which a command writes one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from ws_manager.cli.output.times import STYLES, ago, format_time
from ws_manager.core.moments import parse_moment
from ws_manager.errors import InvalidInput
from ws_manager.settings import MAX_TIMEOUT


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T17:15:18Z", "2026-11-22T17:15:18.000000+00:00"),
        (" 2026-11-22 17:15:18.6443051z ", "2026-11-22T17:15:18.644305+00:00"),
        ("2026-11-22T17:15:18+02:00", "2026-11-22T15:15:18.000000+00:00"),
        ("2026-11-22", "2026-11-22T00:00:00.000000+00:00"),
        ("1795367718", "2026-11-22T17:15:18.000000+00:00"),
        ("1795367718.0", "2026-11-22T17:15:18.000000+00:00"),
        ("1795367718.", "2026-11-22T17:15:18.000000+00:00"),
        ("1795367718.644305", "2026-11-22T17:15:18.644305+00:00"),
        ("1795367718.6443059", "2026-11-22T17:15:18.644305+00:00"),
        ("1795367718.1", "2026-11-22T17:15:18.100000+00:00"),
        # One more than the longest duration, and the last second of the calendar.
        (f"{MAX_TIMEOUT + 1:.0f}", "1979-12-30T00:00:01.000000+00:00"),
        ("253402300799.999999", "9999-12-31T23:59:59.999999+00:00"),
    ],
)
def test_a_moment(text: str, moment: str) -> None:
    assert parse_moment(text) == moment


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h", 7200),
        ("2h ago", 7200),
        ("90s", 90),
        ("30", 30),
        ("0.5", 0.5),
        (f"{MAX_TIMEOUT:.0f}", MAX_TIMEOUT),
    ],
)
def test_so_long_ago(text: str, seconds: float) -> None:
    before = datetime.now(timezone.utc)
    moment = datetime.fromisoformat(parse_moment(text)) + timedelta(seconds=seconds)
    assert before - timedelta(microseconds=1) <= moment <= datetime.now(timezone.utc)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "ago",
        "2h ago ago",
        "2026-13-01",
        "2026-11-22T25:00Z",
        # Milliseconds since 1970.
        "1795367718644",
        "253402300800",
        "9" * 5000,
        "-1795367718",
        "+1795367718",
        "1795367718s",
        "17953677e2",
        "\u0661795367718",
        "1795367718.6.4",
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InvalidInput, match="not a time"):
        parse_moment(text)


@pytest.mark.parametrize("microseconds", [0, 1, 100_000, 644_305, 999_999])
def test_what_a_command_prints_is_read_as_the_same_moment(microseconds: int) -> None:
    at = datetime(2026, 11, 22, 17, 15, 18, microseconds, timezone.utc)
    written = at.isoformat(timespec="microseconds")
    assert set(STYLES) == {"relative", "iso", "unix"}
    for style in ("iso", "unix"):
        assert parse_moment(str(format_time(written, style, at))) == written
    now = datetime.now(timezone.utc)
    assert parse_moment(ago((now - timedelta(hours=2)).isoformat(), now)) <= now.isoformat()
