"""Decoded connections, validated against the rows they were decoded from."""

from __future__ import annotations

from ws_manager.models import Connection
from ws_manager.repository.sqlite.connections import WS_ID, decode
from ws_manager.repository.sqlite.database import Row


class ConnectionCache:
    """Keeps what was decoded, and decodes a row again only if it has changed.

    The database's `data_version` would not do: it ignores this connection's own writes, and changes with
    every batch of receipts.
    """

    def __init__(self) -> None:
        self._decoded: dict[str, tuple[Row, Connection]] = {}

    def connection(self, row: Row) -> Connection:
        """Return the connection of a row that was just read."""
        known = self._decoded.get(row[WS_ID])
        if known is None or known[0] != row:
            known = self._decoded[row[WS_ID]] = (row, decode(row, known))
        return known[1]

    def forget(self, ws_id: str) -> None:
        """Drop a connection that is no longer active."""
        self._decoded.pop(ws_id, None)

    def keep_only(self, connections: list[Connection]) -> None:
        """Drop everything but these, so that what has gone does not stay in memory."""
        if len(self._decoded) > len(connections):
            kept = {connection.ws_id for connection in connections}
            self._decoded = {ws_id: entry for ws_id, entry in self._decoded.items() if ws_id in kept}
