"""Hints that something was committed, by NOTIFY.

They are sent apart from the transaction: NOTIFY takes a lock that all commits of the database would wait for. A hint
may be lost. So whoever listens also looks by himself, once a second: `ws_manager.repository.postgres.changes`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection
from typing import Optional, Protocol

from ws_manager.errors import LedgerError

EVERYTHING = "ws_manager"
"""The channel for every commit. Nothing is sent on it while nobody listens there."""

EVENTS = "ws_manager_events"
"""The channel for commits with events, at which each gateway looks: one may have ended a registration it holds."""

_LONGEST_NAME = 63

EVERY_SECONDS = 0.005
"""A process sends hints at most so often."""

_IDLE_SECONDS = 10.0
"""An announcer without work ends after this, and its session with it."""

LISTENING = "hashtextextended('ws-manager listens', 0)"
"""The advisory lock that is held, shared, by each session that listens to everything."""

# Asked with the session's lock and not with the transaction's: that would last until NOTIFY has its turn, and others
# would take it for a listener's.
_SOMEBODY = (
    f"CASE WHEN pg_try_advisory_lock({LISTENING}) THEN NOT pg_advisory_unlock({LISTENING}) ELSE true END"
)
SEND = (
    "SELECT pg_notify(channel, '') FROM unnest(%s::text[]) AS channel"
    f" WHERE channel <> '{EVERYTHING}' OR %s OR {_SOMEBODY}"
)
"""Send a hint. Its parameters: the channels, and whether this session itself listens to everything."""


def channel_of(gateway_id: str) -> str:
    """Return the channel for the messages to a gateway's connections. PostgreSQL cuts longer names off."""
    return f"ws_manager_{gateway_id}".encode()[:_LONGEST_NAME].decode(errors="ignore")


class Session(Protocol):
    """What sends hints."""

    def send_hint(self, channels: Collection[str]) -> None:
        """Send a hint on some channels. One that cannot be sent is lost."""

    def close(self) -> None:
        """End it."""


class Announcer:
    """Sends the hints of a process: the first at once, those that follow within 5 ms together.

    These are sent by a thread with a session of its own. It is started when the first has to wait, so a command with
    one transaction pays for nothing.

    Args:
        connect: opens a session.
        now: a monotonic clock, in seconds.
    """

    def __init__(self, connect: Callable[[], Session], now: Callable[[], float] = time.monotonic) -> None:
        self._connect = connect
        self._now = now
        self._changed = threading.Condition()
        self._waiting: set[str] = set()
        self._next = now()
        self._thread: Optional[threading.Thread] = None

    def announce(self, session: Session, channels: Collection[str]) -> None:
        """Send a hint on some channels, on this session or soon."""
        with self._changed:
            now = self._now()
            if self._waiting or now < self._next:
                self._waiting.update(channels)
                self._start()
                return
            self._next = now + EVERY_SECONDS
        session.send_hint(channels)

    def flush(self, session: Session) -> None:
        """Send at once what waits, because a session ends: its process may end too."""
        with self._changed:
            waiting = self._taken()
        if waiting:
            session.send_hint(waiting)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ws-manager-hints", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _taken(self) -> set[str]:
        waiting, self._waiting = self._waiting, set()
        self._next = self._now() + EVERY_SECONDS
        return waiting

    def _run(self) -> None:
        session: Optional[Session] = None
        try:
            while self._has_work():
                time.sleep(max(0.0, self._next - self._now()))
                with self._changed:
                    waiting = self._taken()
                # Where the server cannot be reached, the next hint tries again.
                with contextlib.suppress(LedgerError):
                    session = session or self._connect()
                    session.send_hint(waiting)
        except BaseException:
            # Whatever it was: the next hint starts another thread.
            with self._changed:
                self._thread = None
                self._waiting.clear()
            raise
        finally:
            if session is not None:
                session.close()

    def _has_work(self) -> bool:
        """Wait for a hint. False if none came for long: the thread is over then, and the next one starts another."""
        with self._changed:
            if self._changed.wait_for(lambda: self._waiting, _IDLE_SECONDS):
                return True
            self._thread = None
            return False


_announcers: dict[tuple[int, str], Announcer] = {}


def announcer_of(url: str, connect: Callable[[], Session]) -> Announcer:
    """Return the announcer of this process for a database. That of a parent process has no thread here."""
    return _announcers.setdefault((os.getpid(), url), Announcer(connect))
