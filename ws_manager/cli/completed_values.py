"""What the shell completes of a command's options and arguments: names in the ledger, and fixed words."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Callable

from ws_manager.cli.options import FORMATS
from ws_manager.cli.output.times import STYLES
from ws_manager.cli.process.logs import LEVELS
from ws_manager.cli.topics import TOPICS
from ws_manager.core.locations import complete
from ws_manager.core.read.listings import ORDERS as LIST_ORDERS
from ws_manager.forms import BROADCAST_FIELDS, CONNECTION_FIELDS, MESSAGE_FIELDS
from ws_manager.models import ROUTED, UNROUTED
from ws_manager.repository.findings import ORDERS, StoredEvent
from ws_manager.settings import Located
from ws_manager.tokens import SCOPES

Names = Callable[[Located, str], list[str]]
"""Returns what fits a prefix, given the ledger's place."""

_LONGEST_CONDITION = 100
_MOST = 100


def _conditions(location: Located, prefix: str) -> list[str]:
    """Return conditions for `--where`: on agents, and on the metadata of active connections."""
    from ws_manager.core.read.conditions import equalities

    found = {f"agent={name}": None for name in complete(location, "agent", "")}
    for text in complete(location, "metadata", ""):
        with contextlib.suppress(ValueError, RecursionError):
            found.update(dict.fromkeys(equalities(json.loads(text))))
    fitting = (each for each in found if each.startswith(prefix))
    return sorted(each for each in fitting if len(each) <= _LONGEST_CONDITION)[:_MOST]


def _names(*kinds: str) -> Names:
    """Return a function that completes names of these kinds."""
    return lambda location, prefix: [name for kind in kinds for name in complete(location, kind, prefix)]


def _words(*words: str) -> Names:
    """Return a function that completes fixed words."""
    return lambda _location, prefix: [word for word in words if word.startswith(prefix)]


def _fields(names: Sequence[str]) -> Names:
    """Return a function that completes the last of several field names, separated by commas."""

    def complete_last(_location: Located, prefix: str) -> list[str]:
        before, comma, last = prefix.rpartition(",")
        taken = before.split(",")
        return [f"{before}{comma}{name}" for name in names if name.startswith(last) and name not in taken]

    return complete_last


# What completes a parameter, by command and parameter; the command "" is every command.
VALUES: dict[tuple[str, str], Names] = {
    ("", "agent"): _names("agent"),
    ("", "ws_id"): _names("ws_id"),
    ("disconnect", "ws_id"): _names("active ws_id"),
    ("heartbeat", "ws_id"): _names("active ws_id"),
    ("send", "ws_id"): _names("active ws_id"),
    ("", "msg_id"): _names("msg_id"),
    ("", "broadcast"): _names("broadcast_id"),
    ("", "ws_ids"): _names("active ws_id"),
    ("", "to"): _names("active ws_id"),
    ("ask", "to"): _names("active ws_id", "agent"),
    ("", "msg_ids"): _names("msg_id"),
    ("show", "identifier"): _names("ws_id", "msg_id", "broadcast_id"),
    ("wait", "identifier"): _names("msg_id", "broadcast_id"),
    ("", "where"): _conditions,
    ("", "output"): _words(*FORMATS),
    ("", "time"): _words(*STYLES),
    ("", "scope"): _words(*SCOPES),
    ("list", "sort"): _words(*LIST_ORDERS),
    ("top", "sort"): _words(*ORDERS),
    ("events", "status"): _words(ROUTED, UNROUTED),
    ("serve", "log_level"): _words(*LEVELS),
    ("help", "topic"): _words(*TOPICS),
    ("list", "names"): _fields(CONNECTION_FIELDS),
    ("history", "names"): _fields(MESSAGE_FIELDS),
    ("broadcasts", "names"): _fields(BROADCAST_FIELDS),
    ("events", "names"): _fields(StoredEvent._fields),
}
