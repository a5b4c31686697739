"""The `connections` table: one row per ws_id."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Optional

from ws_manager.models import ACTIVE, DISCONNECTED, Connection, Registration, SignOfLife
from ws_manager.repository.decoding import CONNECTION_COLUMNS, DecodedConnections, decode
from ws_manager.repository.records import ListedConnection, Recipients, SilentConnection
from ws_manager.repository.sqlite.database import Database, from_json
from ws_manager.repository.sqlite.messages import PENDING

# SQLite takes 32,766 parameters a statement.
_NAMES_A_STATEMENT = 5000


class Connections:
    """Statements on `connections`.

    Decoded active connections stay in memory. A row is decoded again only if it has changed. SQLite's `data_version`
    would not do for that: it ignores this connection's own writes, and changes with every batch of receipts.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._decoded = DecodedConnections()

    def find(self, ws_id: str) -> Optional[Connection]:
        row = self._db.row(f"SELECT {CONNECTION_COLUMNS} FROM connections WHERE ws_id = ?", (ws_id,))
        if row is not None:
            return self._decoded.of(row)
        self._decoded.forget(ws_id)
        return None

    def names(self, first: str, end: str, limit: int) -> list[str]:
        # Imported here: a one-shot command does not need it.
        from ws_manager.repository.sqlite.names import names_between

        return names_between(self._db, "connections", "ws_id", first, end, limit)

    def names_ending(self, part: str, limit: int) -> list[str]:
        from ws_manager.repository.sqlite.names import names_ending

        return names_ending(self._db, "connections", "ws_id", part, limit)

    def lock(self, ws_ids: Collection[str]) -> None:
        # Whoever writes has the whole file.
        return None

    def is_known(self, ws_id: str) -> bool:
        return bool(self._db.value("SELECT EXISTS (SELECT 1 FROM connections WHERE ws_id = ?)", (ws_id,)))

    def is_active(self, ws_id: str) -> bool:
        return bool(
            self._db.value(
                "SELECT EXISTS (SELECT 1 FROM connections WHERE ws_id = ? AND status = 'active')", (ws_id,)
            )
        )

    def active(self, agent: Optional[str] = None) -> list[Connection]:
        where, parameters = _active(agent)
        rows = self._db.rows(
            f"SELECT {CONNECTION_COLUMNS} FROM connections WHERE {where} ORDER BY id", parameters
        )
        connections = [self._decoded.of(row) for row in rows]
        if agent is None:
            self._decoded.keep(connections)
        return connections

    def listed(
        self,
        *,
        active_only: bool,
        agent: Optional[str] = None,
        not_heard: Optional[tuple[str, str]] = None,
        after: int = 0,
        limit: Optional[int] = None,
        count_pending: bool = True,
    ) -> list[ListedConnection]:
        where: list[str] = ["id > ?"]
        parameters: list[object] = [after]
        if active_only:
            where.append("status = 'active'")
        if agent is not None:
            where.append("agent = ?")
            parameters.append(agent)
        if not_heard is not None:
            where.append("last_heartbeat NOT BETWEEN ? AND ?")
            parameters += not_heard
        # A seek in an index for each connection, in one statement.
        pending = (
            "(SELECT count(*) FROM messages AS m WHERE m.recipient_id = connections.ws_id"
            f" AND m.id > connections.confirmed_seq AND {PENDING})"
            if count_pending
            else "0"
        )
        rows = self._db.rows(
            f"SELECT {CONNECTION_COLUMNS}, {pending} FROM connections"
            f" WHERE {' AND '.join(where)} ORDER BY id LIMIT ?",
            [*parameters, -1 if limit is None else limit],
        )
        return [ListedConnection(decode(row[:-1]), row[-1]) for row in rows]

    def active_ids(self, agent: Optional[str] = None) -> list[str]:
        where, parameters = _active(agent)
        rows = self._db.rows(f"SELECT ws_id FROM connections WHERE {where} ORDER BY ws_id", parameters)
        return [row[0] for row in rows]

    def recipients(self, agent: Optional[str] = None, among: Optional[Collection[str]] = None) -> Recipients:
        # In the order of their index: the messages are then written faster.
        ws_ids = self.active_ids(agent)
        chosen = ws_ids if among is None else [ws_id for ws_id in ws_ids if ws_id in among]
        return Recipients(chosen, agent, len(chosen) == len(ws_ids))

    def active_among(self, ws_ids: Collection[str]) -> set[str]:
        wanted = list(ws_ids)
        active: set[str] = set()
        for start in range(0, len(wanted), _NAMES_A_STATEMENT):
            some = wanted[start : start + _NAMES_A_STATEMENT]
            rows = self._db.rows(
                "SELECT ws_id FROM connections WHERE status = 'active'"
                f" AND ws_id IN ({', '.join('?' * len(some))})",
                some,
            )
            active.update(row[0] for row in rows)
        return active

    def count_active(self, agent: Optional[str] = None) -> int:
        where, values = ("", []) if agent is None else (" AND agent = ?", [agent])
        return int(self._db.value(f"SELECT count(*) FROM connections WHERE status = 'active'{where}", values))

    def has_active(self, agent: Optional[str] = None) -> bool:
        where, parameters = _active(agent)
        return bool(self._db.value(f"SELECT EXISTS (SELECT 1 FROM connections WHERE {where})", parameters))

    def has_agent(self, agent: str) -> bool:
        return self._db.value("SELECT 1 FROM connections WHERE agent = ? LIMIT 1", (agent,)) is not None

    def count_ever(self) -> int:
        return self._db.highest_id("connections")

    def count_by_agent(self) -> dict[str, int]:
        # Left to itself, SQLite looks up every active row and sorts them; this index has the names in order.
        return dict(
            self._db.rows(
                "SELECT agent, count(*) FROM connections INDEXED BY idx_conn_active_agent"
                " WHERE status = 'active' GROUP BY agent ORDER BY agent"
            )
        )

    def _insert(self, connection: Connection, metadata: str, token: Optional[str]) -> None:
        self._db.execute(
            "INSERT INTO connections (ws_id, agent, metadata, connected_at, last_heartbeat, gateway, token)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                connection.ws_id,
                connection.agent,
                metadata,
                connection.connected_at,
                connection.last_heartbeat,
                connection.gateway,
                token,
            ),
        )

    def _reactivate(self, connection: Connection, metadata: Optional[str], token: Optional[str]) -> None:
        self._db.execute(
            "UPDATE connections SET agent = ?, metadata = coalesce(?, metadata), connected_at = ?,"
            " last_heartbeat = ?, gateway = ?, token = ?, status = 'active', epoch = epoch + 1,"
            " disconnected_at = NULL, close_code = NULL, close_reason = NULL WHERE ws_id = ?",
            (
                connection.agent,
                metadata,
                connection.connected_at,
                connection.last_heartbeat,
                connection.gateway,
                token,
                connection.ws_id,
            ),
        )

    def register(
        self, connection: Connection, metadata: Optional[str], token: Optional[str] = None
    ) -> Connection:
        if self.find(connection.ws_id) is None:
            self._insert(connection, metadata or "{}", token)
        else:
            self._reactivate(connection, metadata, token)
        registered = self.find(connection.ws_id)
        assert registered is not None
        return registered

    def disconnect(self, ws_id: str, at: str, reason: str, code: Optional[int] = None) -> bool:
        return bool(
            self._db.execute(
                f"UPDATE connections SET status = '{DISCONNECTED}', disconnected_at = ?, close_reason = ?,"
                f" close_code = coalesce(?, close_code) WHERE ws_id = ? AND status = '{ACTIVE}'",
                (at, reason, code, ws_id),
            ).rowcount
        )

    def expel(
        self, at: str, code: int, reason: str, *, agent: Optional[str] = None, token: Optional[str] = None
    ) -> list[str]:
        which, whose = ("token", token) if agent is None else ("agent", agent)
        where = f"status = '{ACTIVE}' AND {which} = ?"
        ws_ids = [row[0] for row in self._db.rows(f"SELECT ws_id FROM connections WHERE {where}", (whose,))]
        self._db.execute(
            f"UPDATE connections SET status = '{DISCONNECTED}', disconnected_at = ?, close_code = ?,"
            f" close_reason = ?, epoch = epoch + 1 WHERE {where}",
            (at, code, reason, whose),
        )
        return ws_ids

    def silent(self, since: str, until: str) -> list[SilentConnection]:
        rows = self._db.rows(
            "SELECT ws_id, last_heartbeat, gateway,"
            " (SELECT seen_at FROM gateways WHERE gateways.id = connections.gateway) FROM connections"
            " WHERE status = 'active' AND last_heartbeat NOT BETWEEN ? AND ? ORDER BY id",
            (since, until),
        )
        return [SilentConnection(*row) for row in rows]

    def disconnect_silent(self, silent: SilentConnection, at: str, reason: str) -> bool:
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
        return bool(
            self._db.execute(
                "UPDATE connections SET close_code = ?, close_reason = ? WHERE ws_id = ? AND epoch = ?",
                (code, reason, ws_id, epoch),
            ).rowcount
        )

    def heartbeat(self, ws_id: str, at: str) -> bool:
        return bool(
            self._db.execute(
                "UPDATE connections SET last_heartbeat = ? WHERE ws_id = ? AND status = 'active'", (at, ws_id)
            ).rowcount
        )

    def heard(self, signs: Sequence[SignOfLife], now: str) -> set[Registration]:
        heard = json.dumps([[sign.ws_id, sign.epoch, sign.at] for sign in signs])
        rows = self._db.rows(
            "SELECT connections.id, heard.ws_id, heard.epoch, heard.at"
            f" FROM {from_json('ws_id', 'epoch', 'at')} AS heard"
            " CROSS JOIN connections ON connections.ws_id = heard.ws_id AND connections.epoch = heard.epoch"
            f" WHERE status = '{ACTIVE}' AND (last_heartbeat < heard.at OR last_heartbeat > ?)",
            (heard, now),
        )
        self._db.execute(
            "UPDATE connections SET last_heartbeat = heard.at"
            f" FROM {from_json('id', 'ws_id', 'epoch', 'at')} AS heard WHERE connections.id = heard.id",
            (json.dumps(rows),),
        )
        return {(ws_id, epoch) for _, ws_id, epoch, _ in rows}

    def has_epoch(self, ws_id: str, epoch: int) -> bool:
        return bool(
            self._db.value(
                "SELECT EXISTS (SELECT 1 FROM connections WHERE ws_id = ? AND epoch = ?)", (ws_id, epoch)
            )
        )

    def count_message(self, ws_id: str) -> None:
        self._db.execute("UPDATE connections SET message_count = message_count + 1 WHERE ws_id = ?", (ws_id,))


def _active(agent: Optional[str]) -> tuple[str, tuple[str, ...]]:
    """Return the condition for active connections, of one agent or of all, and its parameters."""
    return ("status = 'active'", ()) if agent is None else ("status = 'active' AND agent = ?", (agent,))
