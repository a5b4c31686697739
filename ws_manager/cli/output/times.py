"""Times of the ledger as text: relative, RFC 3339, or seconds since 1970."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Union

STYLES = ("relative", "iso", "unix")
"""The values of `--time`."""

TIME_FIELDS = frozenset(
    {
        "connected_at",
        "last_heartbeat",
        "disconnected_at",
        "sent_at",
        "written_at",
        "received_at",
        "routed_at",
        "confirmed_at",
        "rejected_at",
        "asked_at",
        "answered_at",
        "at",
    }
)
"""The fields of rows that are times."""


def now() -> datetime:
    """Return the present time, UTC."""
    return datetime.now(timezone.utc)


def ago(moment: object, present: datetime) -> str:
    """Return how long ago a timestamp was, in one unit; the timestamp itself if it is unreadable.

    A timestamp may be in the future, because the clock was set back. Less than a minute counts as now.
    """
    seconds = age(moment, present)
    if seconds == float("inf"):
        return str(moment)
    if seconds <= -60:
        return f"in {span(-seconds)}"
    return f"{span(seconds)} ago"


def span(seconds: float) -> str:
    """Return a duration in one unit, rounded down; `0s` if it is negative.

    Args:
        seconds: the duration.
    """
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def age(moment: object, present: datetime) -> float:
    """Return how many seconds ago a timestamp was; infinity if it is unreadable."""
    try:
        return (present - datetime.fromisoformat(str(moment))).total_seconds()
    except (ValueError, TypeError):
        # A file of the earlier implementation may hold any text.
        return float("inf")


def format_time(moment: object, style: str, present: datetime) -> Union[str, float]:
    """Return a timestamp in one of `STYLES`; unchanged if it is unreadable.

    Args:
        moment: a timestamp of the ledger.
        style: `relative`, `iso` (RFC 3339) or `unix` (seconds, a number).
        present: the time that relative times are counted from.
    """
    if style == "relative":
        return ago(moment, present)
    if style == "unix":
        try:
            return datetime.fromisoformat(str(moment)).timestamp()
        except ValueError:
            return str(moment)
    return str(moment)
