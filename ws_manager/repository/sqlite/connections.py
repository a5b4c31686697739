"""The `connections` table: one row per ws_id, for ever."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Optional

from ws_manager.models import ACTIVE, DISCONNECTED, Connection
from ws_manager.repository.sqlite.database import Database, Row
from ws_manager.strict_json import nests_deeper

COLUMNS = (
    "ws_id, agent, metadata, connected_at, last_heartbeat, status, message_count, id, disconnected_at,"
    " epoch, confirmed_seq, close_code, close_reason, gateway"
)
WS_ID, METADATA = 0, 2
"""Positions in a row."""

_parse = json.JSONDecoder().raw_decode


class Silent(NamedTuple):
    """An active row without a recent sign of life.

    Attributes:
        ws_id: the connection.
        last_heartbeat: its last sign of life, as it was read.
        gateway: id of the gateway that holds or held its socket; None where a command registered it.
        gateway_seen_at: when that gateway last wrote that it runs; None where the ledger does not know it.
    """

    ws_id: str
    last_heartbeat: str
    gateway: Optional[str]
    gateway_seen_at: Optional[str]


def decode(row: Row, known: Optional[tuple[Row, Connection]] = None) -> Connection:
    """Turn a row into a Connection.

    Args:
        row: as the statements here return it.
        known: an older row of the same ws_id and what it was turned into; where the metadata is the same text,
            its value is used again, because parsing it costs more than all the rest.
    """
    if known is not None and known[0][METADATA] == row[METADATA]:
        metadata, text = known[1].metadata, known[1].metadata_json
    else:
        metadata, text = _metadata(row[METADATA])
    others: Row = (*row[3:], text)
    return Connection(row[WS_ID], row[1], metadata, *others)


def _metadata(text: str) -> tuple[dict[str, Any], str]:
    """Parse metadata, and return it with its text.

    What another program has written there, and is not a JSON object that every reader can read, is shown as it is.
    """
    text = text.strip()
    try:
        if not nests_deeper(text):
            # `json.loads` looks at its arguments, and for white space at both ends, for as long as it parses.
            metadata, end = _parse(text)
            if isinstance(metadata, dict) and end == len(text):
                return metadata, text
    except ValueError:
        pass
    metadata = {"unreadable": text}
    return metadata, json.dumps(metadata, ensure_ascii=False)


class Connections:
    """Statements on `connections`. Every write must be inside `Database.transaction`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, ws_id: str) -> Optional[Row]:
        """Return the row of a ws_id, active or not."""
        return self._db.row(f"SELECT {COLUMNS} FROM connections WHERE ws_id = ?", (ws_id,))

    def active(self, agent: Optional[str] = None) -> list[Row]:
        """Return the active rows, of one agent or of all, oldest first."""
        if agent is None:
            return self._db.rows(f"SELECT {COLUMNS} FROM connections WHERE status = 'active' ORDER BY id")
        return self._db.rows(
            f"SELECT {COLUMNS} FROM connections WHERE status = 'active' AND agent = ? ORDER BY id", (agent,)
        )

    def active_ids(self, agent: Optional[str] = None) -> list[str]:
        """Return the ws_ids of the active rows, in the order of their index."""
        where, parameters = ("", ()) if agent is None else (" AND agent = ?", (agent,))
        return [
            row[0]
            for row in self._db.rows(
                f"SELECT ws_id FROM connections WHERE status = 'active'{where} ORDER BY ws_id", parameters
            )
        ]

    def count_active(self) -> int:
        """Return how many rows are active."""
        return int(self._db.value("SELECT count(*) FROM connections WHERE status = 'active'"))

    def has_active(self, agent: Optional[str] = None) -> bool:
        """Say whether any row is active, of one agent or of all."""
        where, parameters = ("", ()) if agent is None else (" AND agent = ?", (agent,))
        return bool(
            self._db.value(
                f"SELECT EXISTS (SELECT 1 FROM connections WHERE status = 'active'{where})", parameters
            )
        )

    def count_ever(self) -> int:
        """Return how many ws_ids were ever registered; deleting rows does not lower it."""
        return int(self._db.value("SELECT seq FROM sqlite_sequence WHERE name = 'connections'") or 0)

    def count_by_agent(self) -> dict[str, int]:
        """Return the number of active connections of each agent, by name."""
        # Left to itself, SQLite looks up every active row and sorts them; this index has the names in order.
        return dict(
            self._db.rows(
                "SELECT agent, count(*) FROM connections INDEXED BY idx_conn_active_agent"
                " WHERE status = 'active' GROUP BY agent ORDER BY agent"
            )
        )

    def insert(self, connection: Connection, metadata: str) -> None:
        """Write a ws_id that was never seen before."""
        self._db.execute(
            "INSERT INTO connections (ws_id, agent, metadata, connected_at, last_heartbeat, gateway)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                connection.ws_id,
                connection.agent,
                metadata,
                connection.connected_at,
                connection.last_heartbeat,
                connection.gateway,
            ),
        )

    def reactivate(self, connection: Connection, metadata: Optional[str]) -> None:
        """Register a known ws_id again: the next epoch; metadata stays where None is given."""
        self._db.execute(
            "UPDATE connections SET agent = ?, metadata = coalesce(?, metadata), connected_at = ?,"
            " last_heartbeat = ?, gateway = ?, status = 'active', epoch = epoch + 1, disconnected_at = NULL,"
            " close_code = NULL, close_reason = NULL WHERE ws_id = ?",
            (
                connection.agent,
                metadata,
                connection.connected_at,
                connection.last_heartbeat,
                connection.gateway,
                connection.ws_id,
            ),
        )

    def disconnect(self, ws_id: str, at: str, reason: str, code: Optional[int] = None) -> bool:
        """Mark an active row as disconnected. False if it was not active."""
        return bool(
            self._db.execute(
                f"UPDATE connections SET status = '{DISCONNECTED}', disconnected_at = ?, close_reason = ?,"
                f" close_code = coalesce(?, close_code) WHERE ws_id = ? AND status = '{ACTIVE}'",
                (at, reason, code, ws_id),
            ).rowcount
        )

    def silent(self, since: str, until: str) -> list[Silent]:
        """Return the active rows whose last sign of life is not between two times; see `heard_between`."""
        rows = self._db.rows(
            "SELECT ws_id, last_heartbeat, gateway,"
            " (SELECT seen_at FROM gateways WHERE gateways.id = connections.gateway) FROM connections"
            " WHERE status = 'active' AND last_heartbeat NOT BETWEEN ? AND ? ORDER BY id",
            (since, until),
        )
        return [Silent(*row) for row in rows]

    def disconnect_silent(self, silent: Silent, at: str, reason: str) -> bool:
        """Mark a row as disconnected if it is still active and no sign of life has come since it was read."""
        return bool(
            self._db.execute(
                f"UPDATE connections SET status = '{DISCONNECTED}', disconnected_at = ?, close_reason ="
                " CASE WHEN close_code IS NULL OR close_reason = ? THEN ?"
                " ELSE coalesce(close_reason || ', then ', '') || ? END"
                f" WHERE ws_id = ? AND status = '{ACTIVE}' AND last_heartbeat = ?",
                (at, reason, reason, reason, silent.ws_id, silent.last_heartbeat),
            ).rowcount
        )

    def socket_closed(self, ws_id: str, epoch: int, code: int, reason: str) -> bool:
        """Note that the socket of one epoch is gone. False if another registration has come since."""
        return bool(
            self._db.execute(
                "UPDATE connections SET close_code = ?, close_reason = ? WHERE ws_id = ? AND epoch = ?",
                (code, reason, ws_id, epoch),
            ).rowcount
        )

    def heartbeat(self, ws_id: str, at: str) -> bool:
        """Write a sign of life. False if the row is not active."""
        return bool(
            self._db.execute(
                "UPDATE connections SET last_heartbeat = ? WHERE ws_id = ? AND status = 'active'", (at, ws_id)
            ).rowcount
        )

    def heartbeat_of_epoch(self, ws_id: str, epoch: int, at: str, now: str) -> bool:
        """Write a sign of life of one registration. False if it is void, or the row has a later one.

        One in the future does not count as later: the clock was set back since.
        """
        return bool(
            self._db.execute(
                "UPDATE connections SET last_heartbeat = ? WHERE ws_id = ? AND epoch = ?"
                " AND status = 'active' AND (last_heartbeat < ? OR last_heartbeat > ?)",
                (at, ws_id, epoch, at, now),
            ).rowcount
        )

    def confirmed(self, ws_id: str, epoch: int, seq: int) -> bool:
        """Raise the highest confirmed id of one registration. False if it is void."""
        return bool(
            self._db.execute(
                "UPDATE connections SET confirmed_seq = max(confirmed_seq, ?) WHERE ws_id = ? AND epoch = ?",
                (seq, ws_id, epoch),
            ).rowcount
        )

    def has_epoch(self, ws_id: str, epoch: int) -> bool:
        """Say whether a registration is the present one."""
        return bool(
            self._db.value(
                "SELECT EXISTS (SELECT 1 FROM connections WHERE ws_id = ? AND epoch = ?)", (ws_id, epoch)
            )
        )

    def count_message(self, ws_id: str) -> None:
        """Add one message to a connection's counter."""
        self._db.execute("UPDATE connections SET message_count = message_count + 1 WHERE ws_id = ?", (ws_id,))

    def count_messages(self, first: int, last: int) -> None:
        """Add one message to the counter of each recipient of the messages between two ids."""
        self._db.execute(
            "UPDATE connections SET message_count = message_count + 1"
            " WHERE ws_id IN (SELECT recipient_id FROM messages WHERE id BETWEEN ? AND ?)",
            (first, last),
        )

    def count_messages_of_active(self, agent: Optional[str] = None) -> None:
        """Add one message to the counter of every active connection, of one agent or of all."""
        where, parameters = ("", ()) if agent is None else (" AND agent = ?", (agent,))
        self._db.execute(
            f"UPDATE connections SET message_count = message_count + 1 WHERE status = 'active'{where}",
            parameters,
        )
