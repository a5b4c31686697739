"""What happened in a ledger, as one sequence that can be read on from any place: events, and confirmations."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Optional

from ws_manager.repository.findings import FeedEntry

if TYPE_CHECKING:
    from ws_manager.repository.store import Store


class News(NamedTuple):
    """What one reading found.

    Attributes:
        entries: what happened, in order.
        start: the cursor before them.
        cursor: where the next reading begins.
        gap: whether something between the cursor that was given and these entries is no longer kept.
    """

    entries: list[FeedEntry]
    start: str
    cursor: str
    gap: bool


class Feed:
    """Reads what happened: `Ledger.feed`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def start(self, since: Optional[str] = None) -> str:
        """Return the cursor of the present, or of a time in UTC text."""
        return self._store.feed.end() if since is None else self._store.feed.since(since)

    def after(self, cursor: str, limit: int) -> News:
        """Return what happened behind a cursor: at most `limit` entries.

        After a gap the reading goes on with what is still kept.
        """
        feed = self._store.feed
        with self._store.snapshot():
            gap = not feed.is_cursor(cursor) or feed.has_gap(cursor)
            if gap:
                cursor = feed.since("")
            entries = feed.after(cursor, limit)
        return News(entries, cursor, entries[-1].cursor if entries else cursor, gap)
