"""The documented functions: each a line or two over the ledger and the pool."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from ws_manager.core.ledger import Ledger, ledger_over
from ws_manager.core.pool import ConnectionPool, check_same_ledger
from ws_manager.errors import WsManagerError
from ws_manager.models import Connection, Message, message_columns
from ws_manager.repository.engines import connection_to
from ws_manager.repository.findings import MessageFilter
from ws_manager.settings import DB_PATH, database_location

if TYPE_CHECKING:
    import sqlite3

    Db = Union[sqlite3.Connection, Ledger]
    """What `get_db` or `open_ledger` returned."""

_log = logging.getLogger("ws_manager")


def get_db(db_path: Path = DB_PATH, *, shared: bool = False) -> sqlite3.Connection:
    """Open (or create) the ledger, bring its schema up to date, and return the connection.

    The connection is a `sqlite3.Connection` in autocommit mode with `sqlite3.Row` rows. It belongs to the
    thread and the process that opened it. Close it when done.

    Args:
        db_path: the database file. Without it `BLACKROAD_WS_DB` is read, at the call.
        shared: put the ledger into a database of another program too, beside its tables; otherwise a file
            that is neither a ledger nor empty is refused.

    Raises:
        InvalidInput: (a ValueError) the path is not the path of a file. A URL is for `open_ledger`.
        LedgerError: the file cannot be used.
    """
    return connection_to(database_location() if db_path is DB_PATH else db_path, shared=shared)


def add_connection(
    pool: ConnectionPool, ws_id: str, agent: str, metadata: Optional[Mapping[str, Any]] = None
) -> Connection:
    """Register a connection, or reactivate the one that has this ws_id; metadata None keeps what is there.

    Raises:
        InvalidInput: (a ValueError) a name or the metadata cannot be accepted.
    """
    return pool.ledger.connect(agent, ws_id, metadata)


def remove_connection(pool: ConnectionPool, ws_id: str) -> bool:
    """Mark a connection as disconnected. False if it was not active."""
    return pool.remove(ws_id)


def get_active_connections(pool: ConnectionPool) -> list[Connection]:
    """Return all active connections, oldest first."""
    return pool.get_all()


def broadcast(
    pool: ConnectionPool,
    db_conn: Db,
    message: object,
    filter_fn: Optional[Callable[[Connection], bool]] = None,
    msg_type: str = "broadcast",
    sender_id: Optional[str] = None,
) -> list[str]:
    """Send a message to every active connection for which `filter_fn` returns something true.

    Args:
        pool: a pool on the same file as `db_conn`.
        db_conn: the connection or ledger that everything is done with.
        message: any JSON value; a str is sent as a JSON string.
        filter_fn: None for all.
        msg_type: a label.
        sender_id: the sending connection; None for the system.

    Returns:
        The ws_ids it was addressed to, all committed in one transaction. Each is delivered once its
        receiving side has confirmed it.

    Raises:
        InvalidInput: (a ValueError) something cannot be accepted, or the pool is on another file.
    """
    sent = _ledger(pool, db_conn).broadcast(
        message, filter_fn=filter_fn, msg_type=msg_type, sender_id=sender_id
    )
    _deliver(pool, db_conn)
    return sent.recipients


def send_message(
    pool: ConnectionPool,
    db_conn: Db,
    ws_id: str,
    message: object,
    msg_type: str = "data",
    sender_id: Optional[str] = None,
) -> Optional[Message]:
    """Send a message to one active connection, and return it; None if the ws_id is not active.

    Arguments and errors are those of `broadcast`.
    """
    sent = _ledger(pool, db_conn).send(ws_id, message, msg_type, sender_id)
    _deliver(pool, db_conn)
    return sent


def heartbeat_check(pool: ConnectionPool, db_conn: Db, timeout: float = 30) -> dict[str, list[str]]:
    """Disconnect the connections whose last heartbeat is older than `timeout` seconds.

    Returns:
        `{"active": [ws_id, …], "timed_out": [ws_id, …]}`.

    Raises:
        InvalidInput: (a ValueError) the timeout is negative, or the pool is on another file.
    """
    report = _ledger(pool, db_conn).heartbeat_check(timeout)
    return {"active": report.active, "timed_out": report.timed_out}


def get_message_history(db_conn: Db, ws_id: Optional[str] = None, limit: int = 50) -> list[dict[str, Any]]:
    """Return messages as dicts of their columns, newest first; `content` is the stored JSON text.

    Args:
        db_conn: what `get_db` or `open_ledger` returned.
        ws_id: only what this connection received or sent.
        limit: the most messages to return.

    Raises:
        InvalidInput: (a ValueError) the limit is negative.
    """
    found = ledger_over(db_conn).messages(MessageFilter(ws_id=ws_id), limit)
    return [message_columns(message) for message in found]


def connection_stats(pool: ConnectionPool, db_conn: Db) -> dict[str, Any]:
    """Return `active_connections`, `total_ever_connected`, `total_messages` and `agents`, in this order."""
    return _ledger(pool, db_conn).stats()


def _ledger(pool: ConnectionPool, db_conn: Db) -> Ledger:
    """Return the ledger over `db_conn`: the pool's own, where that is the pool's connection."""
    if pool.is_over(db_conn):
        return pool.ledger
    ledger = ledger_over(db_conn)
    check_same_ledger(pool, ledger)
    return ledger


def _deliver(pool: ConnectionPool, db_conn: Db) -> None:
    """Deliver inside this process, unless the caller has yet to commit."""
    if db_conn.in_transaction:
        return
    try:
        pool.deliver_pending()
    except WsManagerError as error:
        # What was sent is committed: its caller must not take this for a failed send.
        _log.error("delivery stopped, the messages stay pending: %s", error)
