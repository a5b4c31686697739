"""Rows of `connections` as values, for every engine."""

from __future__ import annotations

import json
from typing import Any, Optional

from ws_manager.models import ACTIVE, Connection
from ws_manager.strict_json import nests_deeper

CONNECTION_COLUMNS = (
    "ws_id, agent, metadata, connected_at, last_heartbeat, status, message_count, id, disconnected_at,"
    " epoch, confirmed_seq, close_code, close_reason, gateway"
)
"""What a row of a connection has, in this order."""

_WS_ID, _METADATA, _STATUS = 0, 2, 5

_Row = tuple[Any, ...]

_parse = json.JSONDecoder().raw_decode


class DecodedConnections:
    """Active connections that were decoded before. A row is decoded again only if it has changed."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[_Row, Connection]] = {}

    def of(self, row: _Row) -> Connection:
        """Return the connection of a row."""
        if row[_STATUS] != ACTIVE:
            self.forget(row[_WS_ID])
            return decode(row)
        known = self._known.get(row[_WS_ID])
        if known is None or known[0] != row:
            known = self._known[row[_WS_ID]] = (row, decode(row, known))
        return known[1]

    def forget(self, ws_id: str) -> None:
        """Forget a connection that is not active."""
        self._known.pop(ws_id, None)

    def keep(self, active: list[Connection]) -> None:
        """Forget all but these: they are all that are active."""
        if len(self._known) > len(active):
            kept = {connection.ws_id for connection in active}
            self._known = {ws_id: known for ws_id, known in self._known.items() if ws_id in kept}


def decode(row: _Row, known: Optional[tuple[_Row, Connection]] = None) -> Connection:
    """Turn a row into a Connection.

    Args:
        row: `CONNECTION_COLUMNS`.
        known: an older row of the same ws_id and what it was turned into. Where its metadata is the same text, the
            decoded value is used again: parsing it costs more than all the rest.
    """
    if known is not None and known[0][_METADATA] == row[_METADATA]:
        metadata, text = known[1].metadata, known[1].metadata_json
    else:
        metadata, text = _metadata(row[_METADATA])
    others: _Row = (*row[3:], text)
    return Connection(row[_WS_ID], row[1], metadata, *others)


def _metadata(text: str) -> tuple[dict[str, Any], str]:
    """Parse metadata, and return it with its text.

    Another program may have written what is not a JSON object, or nests too deeply: that is shown as it is.
    """
    text = text.strip()
    try:
        if not nests_deeper(text):
            # `json.loads` spends as much time on its arguments and the white space at both ends as on parsing.
            metadata, end = _parse(text)
            if isinstance(metadata, dict) and end == len(text):
                return metadata, text
    except ValueError:
        pass
    metadata = {"unreadable": text}
    return metadata, json.dumps(metadata, ensure_ascii=False)
