"""A connection as a row."""

from __future__ import annotations

from dataclasses import fields

from ws_manager.cli.output.text import Row
from ws_manager.models import Connection
from ws_manager.strict_json import Json

CONNECTION_FIELDS = (
    *(field.name for field in fields(Connection) if field.name != "metadata_json"),
    "pending",
)
"""The fields of the row, in order."""


def connection_row(connection: Connection, pending: int) -> Row:
    """Return a connection with the number of its pending messages."""
    row = {name: getattr(connection, name) for name in CONNECTION_FIELDS[:-1]}
    return {**row, "metadata": Json(connection.metadata_json or "{}"), "pending": pending}
