"""Moments as people and other programs write them: `2h` ago, an RFC 3339 time, or seconds since 1970."""

from __future__ import annotations

import re

from ws_manager.core.validation import check_timestamp
from ws_manager.errors import InvalidInput
from ws_manager.models import seconds_before, timestamp, utc_now
from ws_manager.settings import MAX_TIMEOUT, parse_duration

# A fraction may have any number of digits in RFC 3339; Python before 3.11 wants six.
_RFC_3339 = r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(:\d\d)?(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)?)?"
_SECONDS = r"(\d+)(?:\.(\d*))?"


def parse_moment(text: str) -> str:
    """Turn a moment into the ledger's fixed width, in every form in which a command writes one.

    - `2h`, `90s` or `2h ago`: that long ago.
    - RFC 3339. A time without a zone is UTC, and a date alone its first moment.
    - A number without a unit: of up to ten years (315,360,000) it is that many seconds ago, as any duration; a larger
      one is seconds since 1970, a moment in 1979 or later.

    Raises:
        InvalidInput: it has none of these forms.
    """
    text = text.strip()
    try:
        parts = re.fullmatch(_RFC_3339, text, re.ASCII)
        if parts is not None:
            day, minute, second, fraction, zone = parts.groups()
            zone = "+00:00" if zone in (None, "Z", "z") else zone
            return check_timestamp(
                f"{day}T{minute or '00:00'}{second or ':00'}.{_six(fraction)}{zone}", "the time"
            )
        parts = re.fullmatch(_SECONDS, text, re.ASCII)
        if parts is not None and float(text) > MAX_TIMEOUT:
            return _since_1970(parts[1], parts[2])
        return seconds_before(utc_now(), parse_duration(re.sub(r"\s+ago$", "", text)))
    except InvalidInput:
        raise InvalidInput(
            f"not a time: {text!r}",
            hint="write 2h for two hours ago, 2026-11-22T17:15:18Z, or seconds since 1970",
        ) from None


def _since_1970(seconds: str, fraction: str) -> str:
    from datetime import datetime, timedelta, timezone

    try:
        # Not as a float: it would round the microseconds.
        span = timedelta(seconds=int(seconds), microseconds=int(_six(fraction)))
        return timestamp(datetime(1970, 1, 1, tzinfo=timezone.utc) + span)
    except (OverflowError, ValueError):
        # Milliseconds, as JavaScript counts them, are beyond the year 9999.
        raise InvalidInput("beyond the calendar") from None


def _six(fraction: str) -> str:
    """Return the microseconds of a fraction, which may be missing."""
    return (fraction or "").ljust(6, "0")[:6]
