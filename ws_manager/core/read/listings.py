"""Lists of connections and messages for whoever looks: chosen, newest messages first, or as they come. Read-only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Callable, NamedTuple, Optional

from ws_manager.core.read.conditions import Conditions
from ws_manager.core.validation import check_limit, check_timeout
from ws_manager.errors import InvalidInput, NotFound
from ws_manager.models import ACTIVE, Connection, heard_between, utc_now
from ws_manager.repository.sqlite.connections import decode
from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.sqlite.journal import Broadcasts
from ws_manager.repository.sqlite.messages import Messages
from ws_manager.repository.sqlite.search import MessageFilter, Search

_CHUNK = 500


class Listed(NamedTuple):
    """A connection and the number of messages that it has not confirmed yet."""

    connection: Connection
    pending: int


class Recipient(NamedTuple):
    """A connection, and why a broadcast would not reach it; None if it would."""

    connection: Connection
    refusal: Optional[str]


class Listings:
    """Lists out of one ledger. It belongs to the thread of its database connection.

    Every method may raise `LedgerError` if the file cannot be used.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._search = Search(db)
        self._messages = Messages(db)

    def connections(
        self,
        *,
        all_of_them: bool = False,
        agent: Optional[str] = None,
        silent_for: Optional[float] = None,
        limit: Optional[int] = None,
        count_pending: bool = True,
    ) -> list[Listed]:
        """Return connections, oldest first.

        Args:
            all_of_them: the disconnected too.
            agent: only this agent's.
            silent_for: only those without a sign of life for this many seconds, or with one in the future.
            limit: at most so many; all if None.
            count_pending: False where nobody looks at `pending`.

        Raises:
            InvalidInput: the limit or the time cannot be accepted.
        """
        found = self._search.connections(
            active_only=not all_of_them,
            agent=agent,
            not_heard=None if silent_for is None else heard_between(utc_now(), check_timeout(silent_for)),
            limit=None if limit is None else check_limit(limit),
            count_pending=count_pending,
        )
        return [Listed(decode(row), pending) for row, pending in found]

    def recipients(self, agent: Optional[str], conditions: Optional[Conditions]) -> list[Recipient]:
        """Say of every connection, active or not, whether a broadcast would reach it now, and if not, why."""

        def refusal(connection: Connection) -> Optional[str]:
            if connection.status != ACTIVE:
                return f"disconnected: {connection.close_reason or 'no reason given'}"
            if agent is not None and connection.agent != agent:
                return f"other agent: {connection.agent}"
            failed = conditions.failed(connection) if conditions else []
            return f"condition not met: {', '.join(failed)}" if failed else None

        listed = self.connections(all_of_them=True, count_pending=False)
        return [Recipient(connection, refusal(connection)) for connection, _ in listed]

    def messages(
        self, wanted: MessageFilter, limit: int = 50, broadcast_id: Optional[str] = None
    ) -> list[dict[str, Any]]:
        """Return messages as dicts of their columns, newest first; `content` is the stored JSON text.

        Args:
            wanted: which.
            limit: at most so many.
            broadcast_id: only those of one call of broadcast.

        Raises:
            InvalidInput: the limit cannot be accepted.
            NotFound: there is no such broadcast.
        """
        check_limit(limit)
        if broadcast_id is None:
            return self._search.newest(wanted, limit)
        broadcast = Broadcasts(self._db).find(broadcast_id)
        if broadcast is None:
            raise NotFound(
                f"no broadcast {broadcast_id}", hint="broadcast -o id prints the id of what it sends"
            )
        if broadcast["first_id"] is None:
            return []
        span = {"first_id": broadcast["first_id"], "last_id": broadcast["last_id"]}
        return self._search.newest(replace(wanted, **span), limit)

    def follow(self, wanted: MessageFilter, pause: Callable[[], None]) -> Iterator[Sequence[dict[str, Any]]]:
        """Give messages as they are committed, by any process, oldest first, in batches; it never ends by itself.

        With `wanted.since` it begins with what was sent since then, otherwise with what comes now.

        Args:
            wanted: which.
            pause: called where nothing has come; returns when it is time to look again.

        Raises:
            InvalidInput: it asks for what only comes to be after the commit.
        """
        if wanted.pending or wanted.set_aside or wanted.before is not None:
            raise InvalidInput(
                "what has just been committed is neither settled nor old",
                hint="use --follow without --pending, --set-aside and --before",
            )
        # What is sent between the two readings of the number is found by the next look.
        version = self._db.data_version()
        seen = self._messages.last_id() if wanted.since is None else self._search.last_id_before(wanted.since)
        while True:
            newest = self._messages.last_id()
            while seen < newest:
                found = self._search.after(wanted, seen, newest, _CHUNK)
                seen = found[-1]["id"] if len(found) == _CHUNK else newest
                if found:
                    yield found
            while version == (version := self._db.data_version()):
                pause()
