"""How a time of the ledger is written: how long ago, in RFC 3339, or in seconds since 1970."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Union

STYLES = ("relative", "iso", "unix")
"""What `--time` takes."""

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
        "at",
    }
)
"""The names under which rows have a time."""


def now() -> datetime:
    """Return the present time, UTC."""
    return datetime.now(timezone.utc)


def ago(moment: object, present: datetime) -> str:
    """Say how long ago a timestamp of the ledger was, in one unit; the timestamp itself if it is unreadable.

    A minute or more in the future was written before the clock was set back.
    """
    seconds = age(moment, present)
    if seconds == float("inf"):
        return str(moment)
    if seconds <= -60:
        return f"in {span(-seconds)}"
    return f"{span(seconds)} ago"


def span(seconds: float) -> str:
    """Write a length of time in one unit; a negative one, of a clock that was set, is 0s."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def age(moment: object, present: datetime) -> float:
    """Return how many seconds ago a timestamp was; infinity if it is unreadable."""
    try:
        return (present - datetime.fromisoformat(str(moment))).total_seconds()
    except (ValueError, TypeError):
        # A file of the earlier implementation may hold anything; it counts as long ago.
        return float("inf")


def in_style(moment: object, style: str, present: datetime) -> Union[str, float]:
    """Write a timestamp of the ledger in one of `STYLES`; as it stands if it is unreadable.

    Args:
        moment: fixed-width UTC text.
        style: `relative`, `iso` (RFC 3339) or `unix` (seconds, a number).
        present: what relative times are counted from.
    """
    if style == "relative":
        return ago(moment, present)
    if style == "unix":
        try:
            return datetime.fromisoformat(str(moment)).timestamp()
        except ValueError:
            return str(moment)
    return str(moment)
