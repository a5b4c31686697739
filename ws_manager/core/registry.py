"""Who is connected: registering connections, ending them, and their signs of life."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Optional, Union

from ws_manager.core.bars import check_bars
from ws_manager.core.validation import check_latency, check_name, check_timestamp, encode_metadata
from ws_manager.errors import Conflict, InvalidInput
from ws_manager.models import Connection, new_id, utc_now
from ws_manager.strict_json import Json

if TYPE_CHECKING:
    from ws_manager.repository.store import Store


BY_AN_OPERATOR = "disconnected by an operator"


def connect(
    store: Store,
    agent: str,
    ws_id: Optional[str],
    metadata: Union[Mapping[str, Any], Json, None],
    *,
    gateway: Optional[str],
    limit: int,
    token: Optional[str] = None,
) -> Connection:
    """Register a connection whose life begins now.

    Args:
        store: the open ledger.
        agent: as in `Ledger.connect`, as the next two.
        ws_id: see there.
        metadata: see there.
        gateway: the id of the gateway that has its socket; None where a command registers it.
        limit: of the metadata, in bytes.
        token: the key of the socket's token.
    """
    now = utc_now()
    ws_id, agent = _names(store, new_id() if ws_id is None else ws_id, agent)
    return _register(
        store,
        Connection(ws_id=ws_id, agent=agent, connected_at=now, last_heartbeat=now, gateway=gateway),
        None if metadata is None else encode_metadata(metadata, limit),
        token,
    )


def import_connection(store: Store, connection: Connection, limit: int) -> Connection:
    """Register a connection with its own timestamps. `limit` is the largest metadata in bytes."""
    ws_id, agent = _names(store, connection.ws_id, connection.agent)
    return _register(
        store,
        Connection(
            ws_id=ws_id,
            agent=agent,
            connected_at=check_timestamp(connection.connected_at, "connected_at"),
            last_heartbeat=check_timestamp(connection.last_heartbeat, "last_heartbeat"),
        ),
        encode_metadata(connection.metadata, limit) if connection.metadata else None,
    )


def disconnect(store: Store, ws_ids: Iterable[str], reason: str) -> list[str]:
    """Mark connections as disconnected, in one transaction, and return those that were active."""
    check_name(reason, "reason")
    chosen, ended = list(ws_ids), []
    with store.atomic():
        store.connections.lock(chosen)
        now = utc_now()
        for ws_id in chosen:
            if store.connections.disconnect(ws_id, now, reason):
                store.events.insert("disconnected", now, ws_id, detail=reason)
                ended.append(ws_id)
    return ended


def heartbeat(store: Store, ws_id: str, latency_ms: Optional[float]) -> bool:
    """Record a sign of life. False if the connection is not active."""
    latency = check_latency(latency_ms)
    now = utc_now()
    with store.atomic():
        if not store.connections.heartbeat(ws_id, now):
            return False
        store.heartbeat_log.insert(ws_id, now, latency)
    return True


def _names(store: Store, ws_id: str, agent: str) -> tuple[str, str]:
    """Return the names of a registration, checked. A connection keeps those that it has from earlier versions."""
    try:
        return check_name(ws_id, "ws_id"), check_name(agent, "agent")
    except InvalidInput:
        names = check_name(ws_id, "ws_id", known=True), check_name(agent, "agent", known=True)
        known = store.connections.find(ws_id)
        if known is None or known.agent != agent:
            raise
        return names


def _register(
    store: Store, new: Connection, metadata: Optional[str], token: Optional[str] = None
) -> Connection:
    with store.atomic():
        check_bars(store, new.agent, token)
        known = store.connections.find(new.ws_id)
        if known is not None and known.agent != new.agent:
            _move(store, known, new)
        registered = store.connections.register(new, metadata, token)
        kind = "registered" if new.gateway is None else "resumed" if known else "opened"
        store.events.insert(kind, new.connected_at, new.ws_id, detail=f"agent={new.agent}")
    return registered


def _move(store: Store, known: Connection, new: Connection) -> None:
    """Give a ws_id to another agent: what is pending was meant for the one before."""
    if new.gateway is not None:
        raise Conflict(
            f"{new.ws_id} belongs to another agent", hint="use another ws_id; an operator can move this one"
        )
    now = new.connected_at
    store.events.insert("moved", now, new.ws_id, detail=f"from agent={known.agent} to agent={new.agent}")
    aside = store.messages.set_aside(new.ws_id, known.confirmed_seq, None, "agent changed", now)
    if aside:
        store.events.insert("set_aside", now, new.ws_id, detail=f"{len(aside)} pending: agent changed")
