"""What the shell completes: names that begin with what was typed, in a few indexed reads of a ledger of any size."""

from __future__ import annotations

from typing import Any, Callable

import psycopg

from ws_manager.repository.postgres.database import SCHEMA

MOST = 100
"""The most names to offer: nobody reads more."""

_WAIT_SECONDS = 2
_LOOKED_AT = 5000
_LOOKED_INTO = 1000
_BEHIND_ALL = "\U0010ffff"

_Session = psycopg.Connection[tuple[Any, ...]]


def complete(url: str, kind: str, prefix: str) -> list[str]:
    """Return names of a kind that begin with a prefix; see `ws_manager.repository.store.Engine.complete`.

    Nothing where the ledger cannot be read, or not soon: whoever types must not wait, nor see an error.
    """
    try:
        with psycopg.connect(
            url,
            autocommit=True,
            client_encoding="UTF8",
            connect_timeout=_WAIT_SECONDS,
            tcp_user_timeout=_WAIT_SECONDS * 1000,
        ) as session:
            session.execute(
                "SELECT set_config('search_path', %s, false), set_config('statement_timeout', %s, false)",
                (SCHEMA, f"{_WAIT_SECONDS}s"),
            )
            return _KINDS[kind](session, prefix)
    except (psycopg.Error, UnicodeError, OSError):
        return []


def _ws_ids(session: _Session, prefix: str, *, active: bool) -> list[str]:
    """Return connections, only the active ones or all; in the order of their names."""
    return _names(
        session,
        "SELECT ws_id FROM (SELECT ws_id, status FROM connections WHERE ws_id >= %s AND ws_id < %s"
        f" ORDER BY ws_id LIMIT {_LOOKED_AT}) AS looked_at WHERE NOT %s OR status = 'active'"
        f" ORDER BY ws_id LIMIT {MOST}",
        (prefix, prefix + _BEHIND_ALL, active),
    )


def _agents(session: _Session, prefix: str) -> list[str]:
    """Return agents, each once; a step in the index for each, however many connections it has."""
    return _names(
        session,
        "WITH RECURSIVE found (agent) AS ("
        "SELECT min(agent) FROM connections WHERE agent >= %(first)s AND agent < %(end)s UNION ALL"
        " SELECT (SELECT min(agent) FROM connections WHERE agent > found.agent AND agent < %(end)s)"
        " FROM found WHERE found.agent IS NOT NULL)"
        f" SELECT agent FROM (SELECT agent FROM found LIMIT {MOST}) AS looked_at WHERE agent IS NOT NULL",
        {"first": prefix, "end": prefix + _BEHIND_ALL},
    )


def _metadata(session: _Session, _prefix: str) -> list[str]:
    """Return the metadata of active connections as JSON text, each text once. Only the first connections are read."""
    return _names(
        session,
        "SELECT DISTINCT metadata FROM"
        f" (SELECT metadata FROM connections WHERE status = 'active' LIMIT {_LOOKED_INTO}) AS looked_at",
        (),
    )


def _ids(session: _Session, table: str, column: str, number: str, prefix: str) -> list[str]:
    """Return what begins with a prefix; the newest if nothing was typed yet."""
    if not prefix:
        return _names(session, f"SELECT {column} FROM {table} ORDER BY {number} DESC LIMIT 20", ())
    return _names(
        session,
        f"SELECT {column} FROM {table} WHERE {column} >= %s AND {column} < %s ORDER BY {column} LIMIT {MOST}",
        (prefix, prefix + _BEHIND_ALL),
    )


def _names(session: _Session, sql: str, parameters: Any) -> list[str]:  # noqa: ANN401 - as psycopg takes them
    return [str(row[0]) for row in session.execute(sql, parameters or None)]


_KINDS: dict[str, Callable[[_Session, str], list[str]]] = {
    "agent": _agents,
    "ws_id": lambda session, prefix: _ws_ids(session, prefix, active=False),
    "active ws_id": lambda session, prefix: _ws_ids(session, prefix, active=True),
    "msg_id": lambda session, prefix: _ids(session, "messages", "msg_id", "id", prefix),
    "broadcast_id": lambda session, prefix: _ids(session, "broadcasts", "broadcast_id", "number", prefix),
    "metadata": _metadata,
}
