"""Finds what an identifier means: a connection, a message or a broadcast, by its whole name or by a part of it."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Optional, Union

from ws_manager.errors import InvalidInput, NotFound
from ws_manager.models import Connection, Message
from ws_manager.remedies import LIST_ALL
from ws_manager.repository.findings import BroadcastState

if TYPE_CHECKING:
    from ws_manager.repository.store import Store

LEAST_PART = 4
"""Characters of the shortest part of a name that is looked for."""

_MOST_NAMED = 5
# The identifiers of one broadcast and of its messages begin with the same characters: see `ws_manager.models`.
_SHARED = len("00000000-0000-")
_BEHIND_ALL = "\U0010ffff"

Thing = Union[Connection, Message, BroadcastState]


def look_up(store: Store, identifier: str) -> Thing:
    """Return what has this identifier; if nothing has, what has an identifier that begins or ends with it.

    A beginning that only one broadcast and its own messages have means the broadcast.

    Raises:
        NotFound: nothing has it.
        InvalidInput: several things have it.
    """
    found = _named(store, identifier)
    if found is None and len(identifier) >= LEAST_PART:
        names = _beginning(store, identifier) or _ending(store, identifier)
        if len(names) > 1:
            more = ", …" if len(names) > _MOST_NAMED else ""
            raise InvalidInput(
                f"{identifier} fits several identifiers: {', '.join(names[:_MOST_NAMED])}{more}",
                hint="give more characters of one",
            )
        found = _named(store, names[0]) if names else None
    if found is None:
        raise NotFound(f"no connection, message or broadcast {identifier}", remedy=LIST_ALL)
    return found


def _named(store: Store, identifier: str) -> Optional[Thing]:
    return (
        store.connections.find(identifier)
        or store.history.find(identifier)
        or store.broadcasts.find(identifier)
    )


def _beginning(store: Store, part: str) -> list[str]:
    limit, end = _MOST_NAMED + 1, part + _BEHIND_ALL
    broadcasts = store.broadcasts.names(part, end, limit)
    spans = [(part, end)]
    if len(broadcasts) == 1:
        # Its own messages begin as it does.
        shared = broadcasts[0][:_SHARED]
        spans = [(part, max(part, shared)), (min(end, shared + _BEHIND_ALL), end)]
    messages = chain.from_iterable(store.history.names(*span, limit) for span in spans)
    return [*store.connections.names(part, end, limit), *broadcasts, *messages]


def _ending(store: Store, part: str) -> list[str]:
    limit = _MOST_NAMED + 1
    tables = (store.connections, store.broadcasts, store.history)
    return [name for table in tables for name in table.names_ending(part, limit)]
