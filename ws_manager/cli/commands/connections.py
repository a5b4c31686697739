"""connect, disconnect, list, heartbeat, heartbeat-check and stats."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Optional

import typer

from ws_manager.cli.errors import not_active
from ws_manager.cli.options import SHARED_HELP, global_options, open_registry, open_to_read
from ws_manager.cli.output.format_options import EXCEL, FIELDS, NO_HEADERS, TIME, choose
from ws_manager.cli.output.rows import Row, json_object, note, note_to_terminal, result, rows, write
from ws_manager.core.read.listings import Listings
from ws_manager.core.registry import Registry
from ws_manager.models import DISCONNECTED, Connection
from ws_manager.settings import heartbeat_timeout, parse_duration
from ws_manager.strict_json import Json, checked_object
from ws_manager.text import without_mark

COLUMNS = (
    "ws_id",
    "agent",
    "status",
    "connected_at",
    "last_heartbeat",
    "message_count",
    "pending",
    "metadata",
)
"""Of `list`, in csv and tsv."""

ENDING = ("disconnected_at", "close_code", "close_reason")
"""What `list --all` has beside them."""

ALL_FIELDS = (
    *(field.name for field in fields(Connection) if field.name != "metadata_json"),
    "pending",
)
"""What `list --fields` takes."""


def connect(
    ctx: typer.Context,
    agent: str = typer.Argument(..., metavar="<agent>", help="The agent's name, such as octavia."),
    ws_id: Optional[str] = typer.Option(
        None, "--ws-id", metavar="ID", help="Its WebSocket identifier; a UUID is made without it."
    ),
    metadata: Optional[str] = typer.Option(
        None, "--metadata", metavar="JSON", help="A JSON object. Without it, what is there stays."
    ),
    shared: bool = typer.Option(False, "--shared", help=SHARED_HELP),
) -> None:
    """Register a connection for an agent.

    A known id is registered again: it keeps its row, its message count and what is pending.
    """
    options = global_options(ctx)
    given = None if metadata is None else checked_object(without_mark(metadata), "metadata")
    with open_registry(ctx, create=True, shared=shared) as registry:
        known = None if ws_id is None else registry.find(ws_id)
        connection = registry.connect(agent, ws_id, given)
        row = _row(connection, registry.pending_counts([connection])) if options.output else {}
    line = f"Connected: {connection.ws_id} (agent={connection.agent})"
    result(options, line, row, connection.ws_id)
    if known is not None and known.agent != agent:
        note(
            f"note: {connection.ws_id} belonged to {known.agent}: its socket is closed,"
            " and what was pending is set aside"
        )


def disconnect(
    ctx: typer.Context,
    ws_id: str = typer.Argument(..., metavar="<ws_id>", help="The connection."),
) -> None:
    """Mark a connection as disconnected.

    A gateway that holds its socket closes it. What is pending stays pending.
    """
    with open_registry(ctx) as registry:
        if not registry.disconnect(ws_id):
            raise not_active(registry, ws_id)
    result(global_options(ctx), f"Disconnected: {ws_id}", {"ws_id": ws_id, "status": DISCONNECTED}, ws_id)


def list_connections(
    ctx: typer.Context,
    all_of_them: bool = typer.Option(False, "--all", help="The disconnected too, with why and when."),
    agent: Optional[str] = typer.Option(
        None, "--agent", metavar="NAME", help="Only the connections of this agent."
    ),
    stale: bool = typer.Option(
        False,
        "--stale",
        help="Only those without a sign of life for the heartbeat time-out. [env: BLACKROAD_HB_TIMEOUT]",
    ),
    limit: Optional[int] = typer.Option(None, "--limit", metavar="N", help="At most so many, the oldest."),
    names: Optional[str] = FIELDS,
    no_headers: bool = NO_HEADERS,
    time: Optional[str] = TIME,
    excel: bool = EXCEL,
) -> None:
    """List the active connections.

    Oldest first: a table on a terminal; otherwise a line each, tab-separated: ws_id, agent, status,
    connected_at, last_heartbeat, message_count, pending, metadata; with --all also disconnected_at, close_code
    and close_reason before the last.
    """
    options = global_options(ctx)
    view = choose(options, ALL_FIELDS, names, no_headers, time, excel)
    timeout = heartbeat_timeout()
    found: list[Row] = []
    with open_to_read(ctx) as db:
        if db is not None:
            listed = Listings(db).connections(
                all_of_them=all_of_them,
                agent=agent,
                silent_for=timeout if stale else None,
                limit=limit,
                count_pending=options.output != "id" and "pending" in (view.fields or ALL_FIELDS),
            )
            found = [_row(connection, {connection.ws_id: pending}) for connection, pending in listed]
    if not found:
        chosen = bool(agent) or stale or limit == 0
        note_to_terminal(
            "no such connections" if chosen else "no connections" if all_of_them else "no active connections"
        )
    columns = (*COLUMNS[:-1], *ENDING, COLUMNS[-1]) if all_of_them else COLUMNS

    def table(rows_of_it: Sequence[Row]) -> None:
        from ws_manager.cli.output.tables import show_connections

        show_connections(rows_of_it, timeout, view)

    rows(options, found, columns, "ws_id", table, view)


def heartbeat(
    ctx: typer.Context,
    ws_id: str = typer.Argument(..., metavar="<ws_id>", help="The connection."),
    latency: Optional[float] = typer.Option(
        None, "--latency", metavar="MS", help="The measured round trip in milliseconds."
    ),
) -> None:
    """Record a sign of life of a connection."""
    with open_registry(ctx) as registry:
        if not registry.heartbeat(ws_id, latency):
            raise not_active(registry, ws_id)
    row = {"ws_id": ws_id, "latency_ms": None if latency is None else round(latency)}
    result(global_options(ctx), f"Heartbeat updated for {ws_id}", row, ws_id)


def heartbeat_check(
    ctx: typer.Context,
    timeout: Optional[str] = typer.Option(
        None,
        "--timeout",
        metavar="DURATION",
        help="How old a heartbeat may be: 30, 90s, 5m, 24h. [env: BLACKROAD_HB_TIMEOUT; default: 30]",
    ),
) -> None:
    """Disconnect the connections without a recent heartbeat.

    Those of a running gateway are left to it, and count as active. Those of a gateway that has ended are spared
    for one time-out more, so that their agents can come back to the next.
    """
    options = global_options(ctx)
    seconds = heartbeat_timeout() if timeout is None else parse_duration(timeout)
    with open_registry(ctx) as registry:
        report = registry.heartbeat_check(seconds)
    if options.output == "id":
        for ws_id in report.timed_out:
            write(ws_id)
    else:
        line = f"Active: {len(report.active)}  Timed out: {len(report.timed_out)}"
        row = {"active": report.active, "timed_out": report.timed_out}
        if report.spared:
            row["spared"] = report.spared
        result(options, line, row, "")
        for ws_id in report.timed_out:
            note_to_terminal(f"timed out: {ws_id}")
    if report.spared:
        note(
            f"Spared {len(report.spared)} silent connection(s): their gateway ended a moment ago, and they keep "
            f"one time-out ({seconds:g} s) to come back; start it with: ws-manager serve"
        )


def stats(ctx: typer.Context) -> None:
    """Print counts of connections and messages as JSON."""
    counts: dict[str, Any] = dict.fromkeys(
        ("active_connections", "total_ever_connected", "total_messages"), 0
    ) | {"agents": {}}
    with open_to_read(ctx) as db:
        if db is not None:
            counts = Registry(db).stats()
    write(json_object(counts, indent=global_options(ctx).output != "ndjson"), is_json=True)


def _row(connection: Connection, pending: dict[str, int]) -> Row:
    row = {name: getattr(connection, name) for name in ALL_FIELDS[:-1]}
    row["metadata"] = Json(connection.metadata_json or "{}")
    row["pending"] = pending.get(connection.ws_id, 0)
    return row
