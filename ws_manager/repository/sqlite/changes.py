"""Notices commits to a database, whichever process makes them."""

from __future__ import annotations

import time
from typing import Optional

from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.sqlite.log_events import LogEvents, log_events

POLL_SECONDS = 0.002
"""Seconds between two looks while somebody writes, and always where the system does not report writes."""

SOON_SECONDS = 0.0005
"""Seconds between two looks right after a write, because its commit is near."""

IDLE_SECONDS = 0.02
"""The longest wait for a write. A thread that wakes 500 times a second takes 3 % of a core, and 50 times 0.3 %."""

_NEAR_SECONDS = 0.02
"""How long after a write its commit is near."""

_WRITING_SECONDS = 1.0
"""How long after a write its commit is looked for: it becomes visible once the disk has it."""

_AFTER_SECONDS = 0.05
"""How long after a commit the next one is looked for, which often follows soon."""

_MOST_MISSED = 3
"""Commits that the system did not report as writes. After these, its reports are not relied on."""


class Changes:
    """Looks at SQLite's `data_version`: it changes when another connection has committed to the file.

    Args:
        db: an open database.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._seen: Optional[tuple[int, int]] = None
        self._data_version = db.data_version_reader()
        self._events: Optional[LogEvents] = None
        self._looked_for_events = False
        self._near_until = self._look_until = 0.0
        self._told = True
        self._missed = 0

    def happened(self) -> bool:
        # It ignores what this very connection commits, which `total_changes` counts.
        seen = self._data_version(), self._db.total_changes
        if seen == self._seen:
            return False
        self._seen = seen
        if not self._told:
            self._missed += 1
            if self._missed >= _MOST_MISSED:
                self.close()
        self._near_until, self._look_until = 0.0, time.monotonic() + _AFTER_SECONDS
        return True

    def wait(self) -> None:
        if not self._looked_for_events:
            self._looked_for_events = True
            self._events = log_events(self._db.path)
        now = time.monotonic()
        looking = now < self._look_until
        if self._events is None or looking:
            time.sleep(SOON_SECONDS if now < self._near_until else POLL_SECONDS)
        if self._events is None:
            return
        written = self._events.wait(0 if looking else IDLE_SECONDS)
        if written:
            now, self._missed = time.monotonic(), 0
            self._near_until, self._look_until = now + _NEAR_SECONDS, now + _WRITING_SECONDS
        self._told = written or looking

    def widen(self, everything: bool) -> None:
        # It cannot tell: everything is reported in any case.
        return None

    def close(self) -> None:
        events, self._events = self._events, None
        if events is not None:
            events.close()
        self._told = True
