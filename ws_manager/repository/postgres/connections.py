"""The `connections` table: one row per ws_id.

What a transaction reads of a connection it locks until its end: in the order of locks that
`ws_manager.repository.postgres.database` describes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Optional

from ws_manager.models import ACTIVE, DISCONNECTED, Connection, Registration, SignOfLife
from ws_manager.repository.decoding import CONNECTION_COLUMNS, DecodedConnections, decode
from ws_manager.repository.postgres.bars import LOCK as BARS
from ws_manager.repository.postgres.database import Database, Row
from ws_manager.repository.postgres.messages import PENDING
from ws_manager.repository.postgres.names import names_between, names_ending
from ws_manager.repository.records import ListedConnection, Recipients, SilentConnection

# Whoever finds a connection may register it next, and looks for bars then. The condition is about no row, so the
# server evaluates it before it looks for one: the lock of the bars comes before the row's.
_BEHIND_BARS = (
    f" AND (SELECT true FROM pg_advisory_xact_lock_shared(hashtextextended('{BARS}', 0)))"
    " FOR NO KEY UPDATE OF connections"
)


class Connections:
    """Statements on `connections`.

    Decoded active connections stay in memory. A row is decoded again only if it has changed.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._decoded = DecodedConnections()

    def find(self, ws_id: str) -> Optional[Connection]:
        row = self._row(ws_id)
        if row is None and self._db.locks:
            # Its absence has to last too. Another may have registered it just now, so look again.
            self._db.lock("connection", ws_id)
            row = self._row(ws_id)
        if row is not None:
            return self._decoded.of(row)
        self._decoded.forget(ws_id)
        return None

    def _row(self, ws_id: str) -> Optional[Row]:
        lock = _BEHIND_BARS if self._db.locks else ""
        return self._db.row(f"SELECT {CONNECTION_COLUMNS} FROM connections WHERE ws_id = %s{lock}", (ws_id,))

    def names(self, first: str, end: str, limit: int) -> list[str]:
        return names_between(self._db, "connections", "ws_id", first, end, limit)

    def names_ending(self, part: str, limit: int) -> list[str]:
        return names_ending(self._db, "connections", "ws_id", part, limit)

    def lock(self, ws_ids: Collection[str]) -> None:
        self._db.execute(
            "SELECT 1 FROM connections WHERE ws_id = ANY(%s) ORDER BY id FOR NO KEY UPDATE", (list(ws_ids),)
        )

    def is_known(self, ws_id: str) -> bool:
        return bool(self._db.value("SELECT EXISTS (SELECT 1 FROM connections WHERE ws_id = %s)", (ws_id,)))

    def is_active(self, ws_id: str) -> bool:
        return self._is("ws_id = %s AND status = 'active'", (ws_id,))

    def has_epoch(self, ws_id: str, epoch: int) -> bool:
        return self._is("ws_id = %s AND epoch = %s", (ws_id, epoch))

    def _is(self, where: str, parameters: Sequence[object]) -> bool:
        return (
            self._db.value(f"SELECT 1 FROM connections WHERE {where}{self._db.for_update}", parameters)
            is not None
        )

    def active(self, agent: Optional[str] = None) -> list[Connection]:
        where, parameters = _active(agent)
        rows = self._db.rows(
            f"SELECT {CONNECTION_COLUMNS} FROM connections WHERE {where} ORDER BY id{self._db.for_update}",
            parameters,
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
        where: list[str] = ["id > %s"]
        parameters: list[object] = [after]
        if active_only:
            where.append("status = 'active'")
        if agent is not None:
            where.append("agent = %s")
            parameters.append(agent)
        if not_heard is not None:
            where.append("last_heartbeat NOT BETWEEN %s AND %s")
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
            f" WHERE {' AND '.join(where)} ORDER BY id LIMIT %s",
            [*parameters, limit],
        )
        return [ListedConnection(decode(row[:-1]), row[-1]) for row in rows]

    def recipients(self, agent: Optional[str] = None, among: Optional[Collection[str]] = None) -> Recipients:
        where, parameters = _active(agent)
        if among is not None:
            where, parameters = f"{where} AND ws_id = ANY(%s)", (*parameters, list(among))
        rows = self._db.rows(
            f"SELECT ws_id FROM connections WHERE {where} ORDER BY id{self._db.for_update}", parameters
        )
        # Locked in the order of ids, but given in the order of names, as bytes and Python compare them.
        ws_ids = sorted(row[0] for row in rows)
        return Recipients(ws_ids, agent, among is None or len(ws_ids) == self.count_active(agent))

    def active_among(self, ws_ids: Collection[str]) -> set[str]:
        rows = self._db.rows(
            "SELECT ws_id FROM connections WHERE status = 'active' AND ws_id = ANY(%s)"
            f" ORDER BY id{self._db.for_update}",
            (list(ws_ids),),
        )
        return {row[0] for row in rows}

    def count_active(self, agent: Optional[str] = None) -> int:
        where, parameters = _active(agent)
        return int(self._db.value(f"SELECT count(*) FROM connections WHERE {where}", parameters))

    def has_active(self, agent: Optional[str] = None) -> bool:
        where, parameters = _active(agent)
        return bool(self._db.value(f"SELECT EXISTS (SELECT 1 FROM connections WHERE {where})", parameters))

    def has_agent(self, agent: str) -> bool:
        return self._db.value("SELECT 1 FROM connections WHERE agent = %s LIMIT 1", (agent,)) is not None

    def count_ever(self) -> int:
        return int(
            self._db.value(
                "SELECT (SELECT count(*) FROM connections) + (SELECT number FROM deleted_connections)"
            )
        )

    def count_by_agent(self) -> dict[str, int]:
        return dict(
            self._db.rows(
                "SELECT agent, count(*) FROM connections WHERE status = 'active' GROUP BY agent ORDER BY agent"
            )
        )

    def register(
        self, connection: Connection, metadata: Optional[str], token: Optional[str] = None
    ) -> Connection:
        # What was not there cannot have come since: `find` has the lock of the name.
        row = self._db.row(
            _INSERT if self.find(connection.ws_id) is None else _REACTIVATE,
            {
                "ws_id": connection.ws_id,
                "agent": connection.agent,
                "metadata": metadata,
                "connected_at": connection.connected_at,
                "last_heartbeat": connection.last_heartbeat,
                "gateway": connection.gateway,
                "token": token,
            },
        )
        assert row is not None
        return self._decoded.of(row)

    def disconnect(self, ws_id: str, at: str, reason: str, code: Optional[int] = None) -> bool:
        return bool(
            self._db.execute(
                f"UPDATE connections SET status = '{DISCONNECTED}', disconnected_at = %s, close_reason = %s,"
                f" close_code = coalesce(%s, close_code) WHERE ws_id = %s AND status = '{ACTIVE}'",
                (at, reason, code, ws_id),
            )
        )

    def expel(
        self, at: str, code: int, reason: str, *, agent: Optional[str] = None, token: Optional[str] = None
    ) -> list[str]:
        # The lock waits for those who have seen no bar, and what they have registered is seen then.
        self._db.lock(BARS)
        which, whose = ("token", token) if agent is None else ("agent", agent)
        rows = self._db.rows(
            f"WITH locked AS MATERIALIZED (SELECT id FROM connections WHERE status = '{ACTIVE}' AND {which} = %s"
            " ORDER BY id FOR NO KEY UPDATE), ended AS (UPDATE connections"
            f" SET status = '{DISCONNECTED}', disconnected_at = %s, close_code = %s, close_reason = %s,"
            " epoch = epoch + 1 FROM locked WHERE connections.id = locked.id RETURNING ws_id)"
            " SELECT ws_id FROM ended ORDER BY ws_id",
            (whose, at, code, reason),
        )
        return [row[0] for row in rows]

    def silent(self, since: str, until: str) -> list[SilentConnection]:
        rows = self._db.rows(
            "SELECT ws_id, last_heartbeat, gateway,"
            # Until the lease of a gateway has run out, its agents may have had nowhere else to go.
            " coalesce((SELECT to_char(until AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"')"
            " FROM leases WHERE leases.gateway = connections.gateway),"
            " (SELECT seen_at FROM gateways WHERE gateways.id = connections.gateway)) FROM connections"
            " WHERE status = 'active' AND last_heartbeat NOT BETWEEN %s AND %s ORDER BY id",
            (since, until),
        )
        return [SilentConnection(*row) for row in rows]

    def disconnect_silent(self, silent: SilentConnection, at: str, reason: str) -> bool:
        return bool(
            self._db.execute(
                f"UPDATE connections SET status = '{DISCONNECTED}', disconnected_at = %(at)s, close_reason ="
                " CASE WHEN close_code IS NULL OR close_reason = %(reason)s THEN %(reason)s"
                " ELSE coalesce(close_reason || ', then ', '') || %(reason)s END"
                f" WHERE ws_id = %(ws_id)s AND status = '{ACTIVE}' AND last_heartbeat = %(heard)s",
                {"at": at, "reason": reason, "ws_id": silent.ws_id, "heard": silent.last_heartbeat},
            )
        )

    def socket_closed(self, ws_id: str, epoch: int, code: int, reason: str) -> bool:
        return bool(
            self._db.execute(
                "UPDATE connections SET close_code = %s, close_reason = %s WHERE ws_id = %s AND epoch = %s",
                (code, reason, ws_id, epoch),
            )
        )

    def heartbeat(self, ws_id: str, at: str) -> bool:
        return bool(
            self._db.execute(
                "UPDATE connections SET last_heartbeat = %s WHERE ws_id = %s AND status = 'active'",
                (at, ws_id),
            )
        )

    def heard(self, signs: Sequence[SignOfLife], now: str) -> set[Registration]:
        ws_ids, epochs, times = map(list, zip(*((sign.ws_id, sign.epoch, sign.at) for sign in signs)))
        rows = self._db.rows(
            "WITH locked AS MATERIALIZED (SELECT connections.id, heard.at"
            " FROM unnest(%s::text[], %s::bigint[], %s::text[]) AS heard (ws_id, epoch, at)"
            " JOIN connections ON connections.ws_id = heard.ws_id AND connections.epoch = heard.epoch"
            f" WHERE status = '{ACTIVE}' AND (last_heartbeat < heard.at OR last_heartbeat > %s)"
            " ORDER BY connections.id FOR NO KEY UPDATE OF connections)"
            " UPDATE connections SET last_heartbeat = locked.at FROM locked WHERE connections.id = locked.id"
            " RETURNING ws_id, epoch",
            (ws_ids, epochs, times, now),
        )
        return {(ws_id, epoch) for ws_id, epoch in rows}

    def count_message(self, ws_id: str) -> None:
        self._db.execute(
            "UPDATE connections SET message_count = message_count + 1 WHERE ws_id = %s", (ws_id,)
        )


_INSERT = (
    "INSERT INTO connections (ws_id, agent, metadata, connected_at, last_heartbeat, gateway, token)"
    " VALUES (%(ws_id)s, %(agent)s, coalesce(%(metadata)s, '{}'), %(connected_at)s, %(last_heartbeat)s, %(gateway)s,"
    f" %(token)s) RETURNING {CONNECTION_COLUMNS}"
)
_REACTIVATE = (
    "UPDATE connections SET agent = %(agent)s, metadata = coalesce(%(metadata)s, metadata),"
    " connected_at = %(connected_at)s, last_heartbeat = %(last_heartbeat)s, gateway = %(gateway)s, token = %(token)s,"
    " status = 'active', epoch = epoch + 1, disconnected_at = NULL, close_code = NULL, close_reason = NULL"
    f" WHERE ws_id = %(ws_id)s RETURNING {CONNECTION_COLUMNS}"
)


def _active(agent: Optional[str]) -> tuple[str, tuple[object, ...]]:
    """Return the condition for active connections, of one agent or of all, and its parameters."""
    return ("status = 'active'", ()) if agent is None else ("status = 'active' AND agent = %s", (agent,))
