"""The tables and indexes, and the numbered steps that bring an older file up to them.

`PRAGMA user_version` is the number of the last step that a file has taken. 0 is a new file, or one that
the earlier implementation wrote: the same three tables, without time zones, content perhaps bare text.
"""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional, Union

from ws_manager.errors import LedgerError
from ws_manager.models import timestamp, utc_now
from ws_manager.repository.database import Database, open_database
from ws_manager.repository.messages import set_aside_beyond_limits
from ws_manager.strict_json import is_json

if TYPE_CHECKING:
    import sqlite_utils

VERSION = 4
OLDEST_SQLITE = (3, 34, 0)

_NOW = "(strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000+00:00')"

_TABLES = {
    "connections": f"""CREATE TABLE connections (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  ws_id TEXT NOT NULL UNIQUE,
  agent TEXT NOT NULL,
  metadata TEXT NOT NULL DEFAULT '{{}}',
  connected_at TEXT NOT NULL DEFAULT {_NOW},
  last_heartbeat TEXT NOT NULL DEFAULT {_NOW},
  status TEXT NOT NULL DEFAULT 'active',
  message_count INTEGER NOT NULL DEFAULT 0,
  disconnected_at TEXT,
  epoch INTEGER NOT NULL DEFAULT 1,
  confirmed_seq INTEGER NOT NULL DEFAULT 0,
  close_code INTEGER,
  close_reason TEXT,
  gateway TEXT
)""",
    "messages": f"""CREATE TABLE messages (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  msg_id TEXT NOT NULL UNIQUE,
  msg_type TEXT NOT NULL DEFAULT 'data',
  sender_id TEXT,
  recipient_id TEXT,
  content TEXT NOT NULL,
  sent_at TEXT NOT NULL DEFAULT {_NOW},
  delivered INTEGER NOT NULL DEFAULT 0,
  confirmed_at TEXT,
  rejected_at TEXT,
  reject_reason TEXT,
  retry_of TEXT,
  refusals INTEGER NOT NULL DEFAULT 0
)""",
    "heartbeat_log": f"""CREATE TABLE heartbeat_log (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  ws_id TEXT NOT NULL,
  ts TEXT NOT NULL DEFAULT {_NOW},
  latency_ms INTEGER
)""",
    "broadcasts": f"""CREATE TABLE broadcasts (
  broadcast_id TEXT PRIMARY KEY,
  first_id INTEGER,
  last_id INTEGER,
  recipients INTEGER NOT NULL,
  msg_type TEXT NOT NULL,
  sender_id TEXT,
  sent_at TEXT NOT NULL DEFAULT {_NOW}
)""",
    "events": f"""CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  ts TEXT NOT NULL DEFAULT {_NOW},
  ws_id TEXT,
  msg_id TEXT,
  kind TEXT NOT NULL,
  detail TEXT
)""",
    "gateways": f"""CREATE TABLE gateways (
  id TEXT PRIMARY KEY,
  pid INTEGER NOT NULL,
  url TEXT NOT NULL,
  started_at TEXT NOT NULL DEFAULT {_NOW},
  seen_at TEXT NOT NULL DEFAULT {_NOW}
)""",
}

_WEBHOOK_EVENTS = f"""CREATE TABLE webhook_events (
  event_id TEXT PRIMARY KEY,
  event_type TEXT NOT NULL,
  agent TEXT,
  msg_type TEXT NOT NULL,
  payload TEXT NOT NULL,
  received_at TEXT NOT NULL DEFAULT {_NOW},
  status TEXT NOT NULL,
  recipients INTEGER NOT NULL DEFAULT 0,
  routed_at TEXT,
  broadcast_id TEXT
)"""

TABLES = (*_TABLES, "webhook_events")
"""The names of the ledger's tables; a file may hold others, of its owner."""

_INDEXES = (
    "CREATE INDEX idx_conn_agent ON connections (agent)",
    "CREATE INDEX idx_conn_status ON connections (status)",
    "CREATE INDEX idx_conn_active_agent ON connections (agent) WHERE status = 'active'",
    "CREATE INDEX idx_msg_recip ON messages (recipient_id)",
    "CREATE INDEX idx_msg_sent ON messages (sent_at)",
    "CREATE INDEX idx_msg_sender ON messages (sender_id) WHERE sender_id IS NOT NULL",
    "CREATE INDEX idx_heartbeat_ws_id ON heartbeat_log (ws_id)",
    "CREATE INDEX idx_event_ws_id ON events (ws_id)",
)

# Without those that SQLite made itself, for UNIQUE.
_INDEXES_OF = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL"

EARLIER: dict[str, set[str]] = {
    "connections": {
        "id",
        "ws_id",
        "agent",
        "metadata",
        "connected_at",
        "last_heartbeat",
        "status",
        "message_count",
        "disconnected_at",
    },
    "messages": {
        "id",
        "msg_id",
        "msg_type",
        "sender_id",
        "recipient_id",
        "content",
        "sent_at",
        "delivered",
    },
    "heartbeat_log": {"id", "ws_id", "ts", "latency_ms"},
}
"""The columns that the tables of the earlier implementation had, by table."""


def open_ledger(path: Union[str, Path], *, create: bool = True) -> Database:
    """Open a database file and bring its schema up to date.

    Args:
        path: the file; see `open_database`.
        create: False to refuse a file that does not exist.

    Raises:
        LedgerError: if the file cannot be used, or a newer ws-manager wrote it.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise LedgerError(
            f"SQLite {sqlite3.sqlite_version} is too old",
            hint="use a Python with SQLite 3.34 or newer",
        )
    db = open_database(path, create=create)
    try:
        if _version(db) != VERSION:
            _migrate(db)
    except sqlite3.Error as error:
        db.close()
        raise LedgerError(
            f"{db.path} cannot be brought up to date: {error}",
            hint="nothing was changed; use another file with --db or BLACKROAD_WS_DB",
        ) from error
    except BaseException:
        db.close()
        raise
    return db


def _version(db: Database) -> int:
    return int(db.value("PRAGMA user_version"))


def _migrate(db: Database) -> None:
    # Importing sqlite-utils costs as much as everything else together: only a file that changes pays it.
    from sqlite_utils import Database as Tables

    with db.transaction():
        # Another process may have done it while we waited for the lock.
        version = _version(db)
        if version > VERSION:
            raise LedgerError(
                f"{db.path} was written by a newer ws-manager (schema {version}; this one knows {VERSION})",
                hint="upgrade ws-manager",
            )
        tables = Tables(db, recursive_triggers=False)
        for number in range(version, VERSION):
            _STEPS[number](tables)
        db.execute(f"PRAGMA user_version = {VERSION}")


def _create_or_adopt(tables: sqlite_utils.Database) -> None:
    """Step 1: make every table, and move the rows of an earlier file over.

    An earlier table is renamed, copied and dropped, so that the result is the same to the letter as in a
    new file. One that has columns which we do not know is copied and kept beside ours.
    """
    earlier = [name for name in EARLIER if name in tables.table_names()]
    for name in earlier:
        missing = EARLIER[name] - set(tables[name].columns_dict)
        if missing:
            raise LedgerError(
                f"the table {name} in this file is not ours: it has no column {', '.join(sorted(missing))}",
                hint="use another file with --db or BLACKROAD_WS_DB",
            )
        for index in tables.execute(_INDEXES_OF, [name]).fetchall():
            tables.execute(f'DROP INDEX "{index[0]}"')
        tables.execute(f"ALTER TABLE {name} RENAME TO earlier_{name}")
    for sql in _TABLES.values():
        tables.execute(sql)
    for function in (_as_timestamp, _as_content, _as_metadata):
        tables.register_function(function, deterministic=True)
    for name in earlier:
        _copy_earlier(tables, name)
    for sql in _INDEXES:
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
    "connected_at": f"coalesce(_as_timestamp(connected_at), {_NOW})",
    "last_heartbeat": f"coalesce(_as_timestamp(last_heartbeat), _as_timestamp(connected_at), {_NOW})",
    "disconnected_at": "_as_timestamp(disconnected_at)",
    "sent_at": f"coalesce(_as_timestamp(sent_at), {_NOW})",
    "ts": f"coalesce(_as_timestamp(ts), {_NOW})",
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
    tables.execute("ALTER TABLE messages ADD COLUMN written_at TEXT")


def _keep_webhook_events(tables: sqlite_utils.Database) -> None:
    """Step 3: the events that webhooks brought, and what became of them."""
    tables.execute(_WEBHOOK_EVENTS)
    tables.execute(
        "CREATE INDEX idx_webhook_unrouted ON webhook_events (received_at) WHERE status = 'unrouted'"
    )


def _set_limits(tables: sqlite_utils.Database) -> None:
    """Step 4: why an event was not routed; what is pending and beyond the limits of `strict_json` is set aside."""
    tables.execute("ALTER TABLE webhook_events ADD COLUMN reason TEXT")
    set_aside_beyond_limits(tables.conn, utc_now())


_STEPS: tuple[Callable[[sqlite_utils.Database], None], ...] = (
    _create_or_adopt,
    _note_writing,
    _keep_webhook_events,
    _set_limits,
)
