"""The tables and indexes, and the numbered steps that bring an older file up to them.

`PRAGMA user_version` is the number of the last step that a file has taken. 0 is a new file, or one that
the earlier implementation wrote: the same three tables, without time zones, content perhaps bare text.
What a file is, is decided by its tables and columns: see `ws_manager.repository.sqlite.judgement`.
"""

from __future__ import annotations

import json
import os
import sqlite3
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional, Union

from ws_manager.errors import LedgerError
from ws_manager.models import timestamp, utc_now
from ws_manager.own_files import real
from ws_manager.repository.sqlite.database import Database, open_database, replaced, translated_errors
from ws_manager.repository.sqlite.files import (
    check_names,
    check_readable,
    check_writable,
    look,
    may_write,
    missing,
    named,
)
from ws_manager.repository.sqlite.files import create as new_file
from ws_manager.repository.sqlite.judgement import EMPTY, FOREIGN, SHARED_VERSION, Judgement, judge
from ws_manager.repository.sqlite.messages import set_aside_beyond_limits
from ws_manager.repository.sqlite.reading import look_into, open_to_read
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


def _columns(sql: str) -> set[str]:
    """Return the names of the columns in one of the statements above: each has a line of its own."""
    return {line.split()[0] for line in sql.splitlines()[1:-1]}


VERSIONS: dict[int, dict[str, set[str]]] = {
    1: {name: _columns(sql) for name, sql in _TABLES.items()},
    2: {"messages": {"written_at"}},
    3: {"webhook_events": _columns(_WEBHOOK_EVENTS)},
    4: {"webhook_events": {"reason"}},
}
"""The tables and columns that each step adds: what makes a file a ledger of that version."""


def columns_since(version: int, table: str) -> set[str]:
    """Return the columns of a table that were added after a version of the schema."""
    later = (added.get(table, set()) for number, added in VERSIONS.items() if number > version)
    return set().union(*later)


def open_ledger(path: Union[str, Path], *, create: bool = True, shared: bool = False) -> Database:
    """Open a database file for reading and writing, and bring its schema up to date.

    Args:
        path: the file. A new one is made with mode 0600, its folder with 0700.
        create: False to refuse a file that does not exist, or is empty.
        shared: put the ledger into a database of another program too, beside that program's tables.

    Raises:
        InvalidInput: the path names no file.
        LedgerError: the file cannot be used, is no ledger, or a newer ws-manager wrote it.
    """
    _check_sqlite()
    path = named(path)
    status = look(path)
    if status is None and create:
        new_file(real(path))
        status = look(path)
    if status is None:
        raise missing(path)
    check_writable(path, status)
    found = judge_file(path, status)
    if found.kind == EMPTY and not create:
        raise missing(path)
    found.check(path, VERSION, shared=shared)
    db = open_database(path)
    try:
        if (found.version, found.claimed) != (VERSION, VERSION):
            _migrate(db, shared=shared)
    except sqlite3.Error as error:
        db.close()
        raise LedgerError(
            f"{path} cannot be brought up to date: {error}",
            hint="nothing was changed; use another file with --db or BLACKROAD_WS_DB",
        ) from error
    except BaseException:
        db.close()
        raise
    return db


def read_ledger(path: Union[str, Path]) -> Database:
    """Open a ledger for reading alone: nothing is made or changed, but that an older schema is brought up to date.

    Raises:
        InvalidInput: the path names no file.
        LedgerError: there is no ledger, it cannot be read, or this user may not bring its schema up to date.
    """
    _check_sqlite()
    path = named(path)
    status = look(path)
    if status is None:
        raise missing(path)
    check_readable(path)
    found = judge_file(path, status)
    if found.kind == EMPTY:
        raise missing(path)
    found.check(path, VERSION)
    if found.version < VERSION:
        if not may_write(path):
            raise LedgerError(
                f"{path} has an older schema ({found.version}; this ws-manager reads {VERSION}),"
                " and you may not write to it",
                hint="any command of its owner's brings it up to date",
            )
        open_ledger(path, create=False).close()
    return open_to_read(path)


def check_ledger(path: Union[str, Path], *, shared: bool = False) -> None:
    """Refuse a file that cannot be served. Nothing at all, and an empty file, may still become a ledger.

    Raises:
        InvalidInput, LedgerError: as `open_ledger`.
    """
    path = named(path)
    status = look(path)
    if status is not None:
        check_readable(path)
        check_names(path, status)
        judge_file(path, status).check(path, VERSION, shared=shared)


def judge_file(path: Path, status: os.stat_result) -> Judgement:
    """Say what a file is, and leave it as it is.

    Raises:
        LedgerError: it cannot be read, or is no SQLite database.
    """
    if status.st_size == 0:
        return Judgement(EMPTY)
    with translated_errors(path):
        return look_into(path, judge_open)


def judge_open(db: sqlite3.Connection) -> Judgement:
    """Say what an open file is.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    return judge(db, VERSIONS, EARLIER)


def open_again(path: Path, identity: tuple[int, int]) -> Database:
    """Open a ledger that this process has open already, in another thread.

    Args:
        path: as it was opened.
        identity: of the file that is open.

    Raises:
        LedgerReplaced: the path leads to another file now, or to none.
        LedgerError: as `open_ledger`.
    """
    if not path.exists():
        raise replaced(path)
    db = open_ledger(path, create=False)
    if db.identity != identity:
        db.close()
        raise replaced(path)
    return db


def _check_sqlite() -> None:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise LedgerError(
            f"SQLite {sqlite3.sqlite_version} is too old",
            hint="use a Python with SQLite 3.34 or newer",
        )


def _migrate(db: Database, *, shared: bool) -> None:
    # Importing sqlite-utils costs as much as everything else together: only a file that changes pays it.
    from sqlite_utils import Database as Tables

    with db.transaction():
        # Another process may have done it while we waited for the lock.
        found = judge_open(db)
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
    """Step 1: make every table, and move the rows of an earlier file over.

    An earlier table is renamed, copied and dropped, so that the result is the same to the letter as in a
    new file. One that has columns which we do not know is copied and kept beside ours.
    """
    earlier = [name for name in EARLIER if name in tables.table_names()]
    for name in earlier:
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
