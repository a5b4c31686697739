"""The schema of a ledger: the tables and indexes of version 1, and the columns that each later version has added.

What is written here for a version never changes again. A new column or table is a step in
`ws_manager.repository.sqlite.migrations`, and a line in `VERSIONS`. A new file runs all the steps too.
"""

from __future__ import annotations

VERSION = 11
"""The current version."""

NOW = "(strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000+00:00')"

TABLES_OF_VERSION_1 = {
    "connections": f"""CREATE TABLE connections (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  ws_id TEXT NOT NULL UNIQUE,
  agent TEXT NOT NULL,
  metadata TEXT NOT NULL DEFAULT '{{}}',
  connected_at TEXT NOT NULL DEFAULT {NOW},
  last_heartbeat TEXT NOT NULL DEFAULT {NOW},
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
  sent_at TEXT NOT NULL DEFAULT {NOW},
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
  ts TEXT NOT NULL DEFAULT {NOW},
  latency_ms INTEGER
)""",
    "broadcasts": f"""CREATE TABLE broadcasts (
  broadcast_id TEXT PRIMARY KEY,
  first_id INTEGER,
  last_id INTEGER,
  recipients INTEGER NOT NULL,
  msg_type TEXT NOT NULL,
  sender_id TEXT,
  sent_at TEXT NOT NULL DEFAULT {NOW}
)""",
    "events": f"""CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  ts TEXT NOT NULL DEFAULT {NOW},
  ws_id TEXT,
  msg_id TEXT,
  kind TEXT NOT NULL,
  detail TEXT
)""",
    "gateways": f"""CREATE TABLE gateways (
  id TEXT PRIMARY KEY,
  pid INTEGER NOT NULL,
  url TEXT NOT NULL,
  started_at TEXT NOT NULL DEFAULT {NOW},
  seen_at TEXT NOT NULL DEFAULT {NOW}
)""",
}

WEBHOOK_EVENTS_OF_VERSION_3 = f"""CREATE TABLE webhook_events (
  event_id TEXT PRIMARY KEY,
  event_type TEXT NOT NULL,
  agent TEXT,
  msg_type TEXT NOT NULL,
  payload TEXT NOT NULL,
  received_at TEXT NOT NULL DEFAULT {NOW},
  status TEXT NOT NULL,
  recipients INTEGER NOT NULL DEFAULT 0,
  routed_at TEXT,
  broadcast_id TEXT
)"""

RECEIPTS_OF_VERSION_6 = f"""CREATE TABLE receipts (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  ts TEXT NOT NULL DEFAULT {NOW},
  ranges TEXT NOT NULL
)"""

BARS_OF_VERSION_7 = f"""CREATE TABLE bars (
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  at TEXT NOT NULL DEFAULT {NOW},
  PRIMARY KEY (kind, name)
)"""

KEYS_OF_VERSION_7 = f"""CREATE TABLE idempotency_keys (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  subject TEXT NOT NULL,
  operation TEXT NOT NULL,
  name TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  result TEXT NOT NULL,
  ts TEXT NOT NULL DEFAULT {NOW}
)"""

HOLDS_OF_VERSION_8 = """CREATE TABLE holds (
  ws_id TEXT PRIMARY KEY,
  hold TEXT NOT NULL,
  until TEXT NOT NULL
)"""

WORKERS_OF_VERSION_9 = """CREATE TABLE workers (
  ws_id TEXT PRIMARY KEY,
  worker TEXT NOT NULL,
  max_attempts INTEGER NOT NULL
)"""

ATTEMPTS_OF_VERSION_9 = """CREATE TABLE attempts (
  seq INTEGER PRIMARY KEY,
  ws_id TEXT NOT NULL,
  ended INTEGER NOT NULL,
  running INTEGER NOT NULL
)"""

ASKS_OF_VERSION_11 = f"""CREATE TABLE asks (
  seq INTEGER PRIMARY KEY,
  msg_id TEXT NOT NULL UNIQUE,
  recipient_id TEXT NOT NULL,
  sender_id TEXT,
  subject TEXT NOT NULL,
  ts TEXT NOT NULL DEFAULT {NOW},
  answer_id TEXT,
  answer TEXT,
  answered_at TEXT
)"""

INDEXES_OF_VERSION_1 = (
    "CREATE INDEX idx_conn_agent ON connections (agent)",
    "CREATE INDEX idx_conn_status ON connections (status)",
    "CREATE INDEX idx_conn_active_agent ON connections (agent) WHERE status = 'active'",
    "CREATE INDEX idx_msg_recip ON messages (recipient_id)",
    "CREATE INDEX idx_msg_sent ON messages (sent_at)",
    "CREATE INDEX idx_msg_sender ON messages (sender_id) WHERE sender_id IS NOT NULL",
    "CREATE INDEX idx_heartbeat_ws_id ON heartbeat_log (ws_id)",
    "CREATE INDEX idx_event_ws_id ON events (ws_id)",
)

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
    1: {name: _columns(sql) for name, sql in TABLES_OF_VERSION_1.items()},
    2: {"messages": {"written_at"}},
    3: {"webhook_events": _columns(WEBHOOK_EVENTS_OF_VERSION_3)},
    4: {"webhook_events": {"reason"}},
    5: {"messages": {"broadcast_id"}},
    6: {"receipts": _columns(RECEIPTS_OF_VERSION_6)},
    7: {
        "bars": _columns(BARS_OF_VERSION_7) - {"PRIMARY"},
        "connections": {"token"},
        "idempotency_keys": _columns(KEYS_OF_VERSION_7),
    },
    8: {"holds": _columns(HOLDS_OF_VERSION_8)},
    9: {"workers": _columns(WORKERS_OF_VERSION_9), "attempts": _columns(ATTEMPTS_OF_VERSION_9)},
    10: {"messages": {"traceparent"}, "broadcasts": {"traceparent"}},
    11: {"messages": {"wants_reply", "reply_to"}, "asks": _columns(ASKS_OF_VERSION_11)},
}
"""The tables and columns that each step adds. A file is a ledger of a version if it has those up to that version."""


def columns_since(version: int, table: str) -> set[str]:
    """Return the columns of a table that were added after a version of the schema."""
    later = (added.get(table, set()) for number, added in VERSIONS.items() if number > version)
    return set().union(*later)
