"""Bringing a ledger's schema up to date: numbered steps, in one transaction.

A step never changes once it is released. A new file runs all of them. A column that a step adds must allow NULL:
the import of an older export writes NULL into it.
"""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Callable, Optional

from ws_manager.models import timestamp, utc_now
from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.sqlite.judgement import FOREIGN, SHARED_VERSION, judge
from ws_manager.repository.sqlite.messages import set_aside_beyond_limits
from ws_manager.repository.sqlite.schema import (
    ASKS_OF_VERSION_11,
    ATTEMPTS_OF_VERSION_9,
    BARS_OF_VERSION_7,
    EARLIER,
    HOLDS_OF_VERSION_8,
    INDEXES_OF_VERSION_1,
    KEYS_OF_VERSION_7,
    NOW,
    RECEIPTS_OF_VERSION_6,
    TABLES_OF_VERSION_1,
    VERSION,
    VERSIONS,
    WEBHOOK_EVENTS_OF_VERSION_3,
    WORKERS_OF_VERSION_9,
)
from ws_manager.strict_json import is_json

if TYPE_CHECKING:
    import sqlite_utils

# Without those that SQLite made itself, for UNIQUE.
_INDEXES_OF = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL"


def migrate(db: Database, *, shared: bool) -> None:
    """Bring the open file's schema up to date.

    Args:
        db: open for writing.
        shared: the file may be a database of another program, to which the ledger is added.

    Raises:
        LedgerError: the file is not a ledger, or a newer ws-manager wrote it.
        sqlite3.Error: a step failed. Nothing was changed.
    """
    # Importing sqlite-utils costs as much as everything else together: only a file that changes pays it.
    from sqlite_utils import Database as Tables

    with db.transaction():
        # Another process may have done it while we waited for the lock.
        found = judge(db, VERSIONS, EARLIER)
        found.check(db.path, VERSION, shared=shared)
        tables = Tables(db, recursive_triggers=False)
        for number in range(found.version, VERSION):
            _STEPS[number](tables)
        # Another program counts its own versions in `user_version`.
        if found.separate or found.kind == FOREIGN or found.user_version not in (0, found.version):
            db.execute(f"CREATE TABLE IF NOT EXISTS {SHARED_VERSION} (version INTEGER NOT NULL)")
            db.execute(f"DELETE FROM {SHARED_VERSION}")
            db.execute(f"INSERT INTO {SHARED_VERSION} (version) VALUES ({VERSION})")
        else:
            db.execute(f"PRAGMA user_version = {VERSION}")


def _create_or_adopt(tables: sqlite_utils.Database) -> None:
    """Step 1: make the tables of version 1, and move the rows of an earlier file over.

    An earlier table is renamed, copied and dropped, so that the result is the same to the letter as in a
    new file. One that has columns which we do not know is copied and kept beside ours.
    """
    earlier = [name for name in EARLIER if name in tables.table_names()]
    for name in earlier:
        for index in tables.execute(_INDEXES_OF, [name]).fetchall():
            tables.execute(f'DROP INDEX "{index[0]}"')
        tables.execute(f"ALTER TABLE {name} RENAME TO earlier_{name}")
    for sql in TABLES_OF_VERSION_1.values():
        tables.execute(sql)
    for function in (_as_timestamp, _as_content, _as_metadata):
        tables.register_function(function, deterministic=True)
    for name in earlier:
        _copy_earlier(tables, name)
    for sql in INDEXES_OF_VERSION_1:
        tables.execute(sql)


def _copy_earlier(tables: sqlite_utils.Database, name: str) -> None:
    source = f"earlier_{name}"
    present = set(tables[source].columns_dict)
    wanted = [column for column in tables[name].columns_dict if column in present]
    expressions = [_CONVERSIONS.get(column, column) for column in wanted]
    tables.execute(
        f"INSERT INTO {name} ({', '.join(wanted)}) SELECT {', '.join(expressions)} FROM {source} ORDER BY id"
    )
    # Ids that were used and freed must not be given out again.
    sequence = tables.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", [source]).fetchone()
    if sequence:
        tables.execute("DELETE FROM sqlite_sequence WHERE name = ?", [name])
        tables.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", [name, sequence[0]])
    if present == EARLIER[name]:
        tables.execute(f"DROP TABLE {source}")


_CONVERSIONS = {
    "connected_at": f"coalesce(_as_timestamp(connected_at), {NOW})",
    "last_heartbeat": f"coalesce(_as_timestamp(last_heartbeat), _as_timestamp(connected_at), {NOW})",
    "disconnected_at": "_as_timestamp(disconnected_at)",
    "sent_at": f"coalesce(_as_timestamp(sent_at), {NOW})",
    "ts": f"coalesce(_as_timestamp(ts), {NOW})",
    "content": "_as_content(content)",
    "metadata": "_as_metadata(metadata)",
    "status": "coalesce(status, 'active')",
    "message_count": "coalesce(message_count, 0)",
    "delivered": "coalesce(delivered, 0)",
    "ws_id": "coalesce(ws_id, 'earlier-' || id)",
    "agent": "coalesce(agent, 'earlier')",
    "msg_id": "coalesce(msg_id, 'earlier-' || id)",
    "msg_type": "coalesce(msg_type, 'data')",
}


def _as_timestamp(text: Optional[str]) -> Optional[str]:
    """Give an ISO 8601 timestamp the one width; a naive one is UTC; anything else stays as it is."""
    try:
        moment = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
        return timestamp(moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc))
    except (ValueError, OverflowError):
        return text


def _as_content(text: Optional[str]) -> str:
    """Keep JSON; make a JSON string of anything else."""
    text = "" if text is None else str(text)
    return text if is_json(text) else json.dumps(text, ensure_ascii=False)


def _as_metadata(text: Optional[str]) -> str:
    """Keep a JSON object; put anything else into one."""
    if not text:
        return "{}"
    content = _as_content(text)
    return content if content.lstrip().startswith("{") else f'{{"earlier":{content}}}'


def _note_writing(tables: sqlite_utils.Database) -> None:
    """Step 2: when a message was written to a socket; NULL for what was never written to one."""
    _add_column(tables, "messages", "written_at")


def _keep_webhook_events(tables: sqlite_utils.Database) -> None:
    """Step 3: the events that webhooks brought, and their outcomes."""
    tables.execute(WEBHOOK_EVENTS_OF_VERSION_3)
    tables.execute(
        "CREATE INDEX idx_webhook_unrouted ON webhook_events (received_at) WHERE status = 'unrouted'"
    )


def _set_limits(tables: sqlite_utils.Database) -> None:
    """Step 4: why an event was not routed; what is pending and beyond the limits of `strict_json` is set aside."""
    _add_column(tables, "webhook_events", "reason")
    set_aside_beyond_limits(tables.conn, utc_now())


def _name_broadcasts(tables: sqlite_utils.Database) -> None:
    """Step 5: the broadcast that a message belongs to; NULL for a message that was sent to one connection."""
    _add_column(tables, "messages", "broadcast_id")
    note_broadcasts(tables.conn)


def _keep_receipts(tables: sqlite_utils.Database) -> None:
    """Step 6: the journal of receipts."""
    tables.execute(RECEIPTS_OF_VERSION_6)


def _bar(tables: sqlite_utils.Database) -> None:
    """Step 7: who is barred, the token of a socket, idempotency keys; what is set aside is found by an index."""
    tables.execute(BARS_OF_VERSION_7)
    tables.execute(KEYS_OF_VERSION_7)
    tables.execute("CREATE UNIQUE INDEX idx_key ON idempotency_keys (subject, operation, name)")
    _add_column(tables, "connections", "token")
    tables.execute("CREATE INDEX idx_msg_rejected ON messages (rejected_at) WHERE rejected_at IS NOT NULL")


def _hold(tables: sqlite_utils.Database) -> None:
    """Step 8: who takes messages over HTTP."""
    tables.execute(HOLDS_OF_VERSION_8)


def _count_attempts(tables: sqlite_utils.Database) -> None:
    """Step 9: workers, and their attempts at messages."""
    tables.execute(WORKERS_OF_VERSION_9)
    tables.execute(ATTEMPTS_OF_VERSION_9)
    tables.execute("CREATE INDEX idx_attempt_ws_id ON attempts (ws_id)")


def _keep_traces(tables: sqlite_utils.Database) -> None:
    """Step 10: the trace that the sender of a message is part of; NULL where it named none."""
    _add_column(tables, "messages", "traceparent")
    _add_column(tables, "broadcasts", "traceparent")


def _keep_asks(tables: sqlite_utils.Database) -> None:
    """Step 11: messages that want an answer, and answers."""
    tables.execute(ASKS_OF_VERSION_11)
    _add_column(tables, "messages", "wants_reply", int)
    _add_column(tables, "messages", "reply_to")


def _add_column(tables: sqlite_utils.Database, table: str, column: str, kind: type = str) -> None:
    """Add a column, of text by default, NULL in every row."""
    from sqlite_utils.db import Table

    changed = tables.table(table)
    assert isinstance(changed, Table)
    changed.add_column(column, kind)


def note_broadcasts(db: sqlite3.Connection) -> None:
    """Write the broadcast of each message that lacks it: those between the bounds of a broadcast are its own."""
    bounds = db.execute("SELECT broadcast_id, first_id, last_id FROM broadcasts WHERE first_id IS NOT NULL")
    db.executemany(
        "UPDATE messages SET broadcast_id = ? WHERE id BETWEEN ? AND ? AND broadcast_id IS NULL",
        [tuple(row) for row in bounds.fetchall()],
    )


_STEPS: tuple[Callable[[sqlite_utils.Database], None], ...] = (
    _create_or_adopt,
    _note_writing,
    _keep_webhook_events,
    _set_limits,
    _name_broadcasts,
    _keep_receipts,
    _bar,
    _hold,
    _count_attempts,
    _keep_traces,
    _keep_asks,
)
