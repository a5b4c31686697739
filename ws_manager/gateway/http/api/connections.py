"""Routes of connections: who is connected, and registering and ending them."""

from __future__ import annotations

import json
from typing import Any

from ws_manager.core.delivery import MOST_COUNTED
from ws_manager.core.ledger import Ledger
from ws_manager.core.once import key_for
from ws_manager.core.read.conditions import all_of
from ws_manager.core.read.listings import ORDERS
from ws_manager.core.registry import BY_AN_OPERATOR
from ws_manager.errors import Conflict, InvalidInput, NotFound
from ws_manager.gateway.http.api.route import Call, Parameter, Reply, Route
from ws_manager.gateway.http.api.schemas import (
    BOOLEAN,
    CONNECTION,
    COUNT,
    KNOWN_NAME,
    LIMIT,
    METADATA,
    NAME,
    SECONDS,
    TEXT,
    listed,
    page,
    thing,
)
from ws_manager.gateway.http.api.view import View
from ws_manager.models import ACTIVE, Connection, new_id
from ws_manager.tokens import ANY_AGENT

MOST_OF_AN_AGENT = 1000
"""Active connections of one agent, if its own token registers them: sockets have such a bound too."""

WS_ID = Parameter("ws_id", KNOWN_NAME, "the connection")
_NEW_WS_ID = Parameter("ws_id", NAME, "the connection")
AGENT = Parameter("agent", KNOWN_NAME, "only this agent's")
WHERE = Parameter(
    "where", TEXT, "only where this condition holds, such as metadata.region=us-west", repeated=True
)
DRY_RUN = Parameter("dry_run", BOOLEAN, "change nothing, and say what would be done")
_REASON = Parameter("reason", NAME, "the reason in the close frame of its socket")


def _list(ledger: Ledger, call: Call) -> Reply:
    view, given = View(ledger, call.claims), call.given
    limit = given["limit"]
    if view.agent is not None and given.get("agent", view.agent) != view.agent:
        return _page([], limit)
    after = given.get("after")
    if after is not None:
        view.connection(after)
    status = given.get("status", "active")
    found = ledger.connections(
        include_disconnected=status != "active",
        agent=view.agent or given.get("agent"),
        silent_for=given.get("stale"),
        where=all_of(given["where"]) if "where" in given else None,
        order=given.get("sort", "age"),
        after=after,
        limit=None if status == "disconnected" or call.claims.ws_id else limit + 1,
    )
    chosen = [
        each
        for each in found
        if (status == "all" or each.connection.status == status) and view.owns(each.connection.ws_id)
    ]
    return _page(
        [view.connection_form(connection, pending) for connection, pending in chosen[: limit + 1]], limit
    )


def _page(items: list[dict[str, Any]], limit: int) -> Reply:
    following = items[limit - 1]["ws_id"] if len(items) > limit else None
    return Reply({"items": items[:limit], "next": following})


def _one(ledger: Ledger, call: Call) -> Reply:
    view = View(ledger, call.claims)
    connection = view.connection(call.given["ws_id"])
    return Reply({**view.connection_form(connection), "socket_open": ledger.has_socket(connection)})


def _put(ledger: Ledger, call: Call) -> Reply:
    return _register(ledger, call, call.given["ws_id"])


def _post(ledger: Ledger, call: Call) -> Reply:
    key = key_for(call.subject, "connect", call.key, dict(call.body))
    ws_id, replayed = ledger.once(key, lambda: str(_register(ledger, call, new_id()).body["ws_id"]))
    connection = ledger.find(ws_id)
    if connection is None:
        raise NotFound(f"no connection {ws_id}")
    return Reply(_registered(ledger, call, connection), 201, replayed=replayed)


def _register(ledger: Ledger, call: Call, ws_id: str) -> Reply:
    agent = call.body["agent"]
    call.claims.check(agent, ws_id)
    ledger.check_bars(agent, None)
    known = ledger.find(ws_id)
    # An operator may move a connection to another agent; nobody else may.
    operates = call.claims.allows("admin") and call.claims.agent == ANY_AGENT
    if known is not None and known.agent != agent and not operates:
        raise Conflict(f"{ws_id} belongs to another agent", hint="use another ws_id")
    # An operator's own are not counted: whoever may end connections may make them.
    new = known is None or known.status != ACTIVE
    if new and not call.claims.allows("admin") and ledger.count(agent) >= MOST_OF_AN_AGENT:
        raise Conflict(f"{agent} has {MOST_OF_AN_AGENT} active connections", hint="use one of them")
    connection = ledger.connect(agent, ws_id, call.body.get("metadata"))
    return Reply(_registered(ledger, call, connection), 201 if known is None else 200)


def _registered(ledger: Ledger, call: Call, connection: Connection) -> dict[str, Any]:
    # It is counted on the writing thread: counting very many would keep receipts waiting.
    pending = ledger.count_pending(connection, MOST_COUNTED)
    return View(ledger, call.claims).connection_form(connection, pending)


def _end(ledger: Ledger, call: Call) -> Reply:
    ws_id, reason = call.given["ws_id"], call.given.get("reason", BY_AN_OPERATOR)
    View(ledger, call.claims).connection(ws_id)

    def ended() -> str:
        if not ledger.disconnect(ws_id, reason):
            raise NotFound(f"{ws_id} is not active")
        return str(ws_id)

    _, replayed = ledger.once(key_for(call.subject, "disconnect", call.key, ws_id, reason), ended)
    return Reply({"ws_id": ws_id, "status": "disconnected"}, replayed=replayed)


def _end_many(ledger: Ledger, call: Call) -> Reply:
    View(ledger, call.claims).require_all()
    given = call.given
    if not given.keys() & {"agent", "where", "ws_id"}:
        raise InvalidInput("agent, where or ws_id is required", hint="say which connections end")
    reason = given.get("reason", BY_AN_OPERATOR)
    if given.get("dry_run"):
        return Reply({"ws_ids": _chosen(ledger, call), "dry_run": True})
    key = key_for(call.subject, "disconnect_all", call.key, dict(given))
    ended, replayed = ledger.once(
        key, lambda: json.dumps(ledger.disconnect_all(_chosen(ledger, call), reason))
    )
    return Reply({"ws_ids": json.loads(ended), "dry_run": False}, replayed=replayed)


def _chosen(ledger: Ledger, call: Call) -> list[str]:
    """Return the ws_ids of the active connections that are chosen."""
    given = call.given
    where = all_of(given["where"]) if "where" in given else None
    found = ledger.connections(agent=given.get("agent"), where=where, count_pending=False)
    named = given.get("ws_id")
    return [connection.ws_id for connection, _ in found if named is None or connection.ws_id in named]


def _heartbeat(ledger: Ledger, call: Call) -> Reply:
    ws_id = call.given["ws_id"]
    View(ledger, call.claims).connection(ws_id)
    epoch = call.body.get("epoch")
    if epoch is not None:
        # A receiver without a socket must not keep a registration alive that came after its own.
        connection = View(ledger, call.claims).connection(ws_id)
        if connection.epoch != epoch:
            raise Conflict(f"{ws_id} was registered again meanwhile", hint="it is somebody else's now")
    if not ledger.heartbeat(ws_id, call.body.get("latency_ms")):
        raise NotFound(f"{ws_id} is not active")
    return Reply({"ws_id": ws_id})


_REGISTRATION = thing({"agent": NAME}, metadata=METADATA)
_ENDED = thing({"ws_id": TEXT, "status": {"enum": ["disconnected"]}})
_ENDED_MANY = thing({"ws_ids": listed(TEXT), "dry_run": BOOLEAN})

ROUTES = (
    Route(
        "GET",
        "/v1/connections",
        "read",
        "List connections.",
        _list,
        page(CONNECTION),
        parameters=(
            AGENT,
            Parameter("status", {"enum": ["active", "disconnected", "all"]}, "active if left out"),
            Parameter("stale", SECONDS, "only those without a sign of life for this many seconds"),
            WHERE,
            Parameter("sort", {"enum": list(ORDERS)}, "the order; age if left out"),
            Parameter("limit", LIMIT, "how many connections at most"),
            Parameter("after", KNOWN_NAME, "only those behind this ws_id"),
        ),
        errors=(404, 422),
    ),
    Route(
        "GET", "/v1/connections/{ws_id}", "read", "Show a connection.", _one, CONNECTION,
        path_parameters=(WS_ID,), errors=(404,),
    ),
    Route(
        "PUT", "/v1/connections/{ws_id}", "connect", "Register a connection, or reactivate it.", _put, CONNECTION,
        status=(200, 201), writes=True, path_parameters=(_NEW_WS_ID,), body=_REGISTRATION, errors=(409, 413),
    ),
    Route(
        "POST", "/v1/connections", "connect", "Register a connection under a new ws_id.", _post, CONNECTION,
        status=(201,), writes=True, body=_REGISTRATION, errors=(404, 409, 413), keyed=True,
    ),
    Route(
        "DELETE", "/v1/connections/{ws_id}", "admin", "Mark a connection as disconnected.", _end, _ENDED,
        writes=True, path_parameters=(WS_ID,), parameters=(_REASON,), errors=(404, 409), keyed=True,
    ),
    Route(
        "DELETE", "/v1/connections", "admin", "Mark the connections of an agent, or those that fit, as disconnected.",
        _end_many, _ENDED_MANY, writes=True, errors=(409, 422), keyed=True,
        parameters=(AGENT, WHERE, WS_ID._replace(text="only this connection", repeated=True), _REASON, DRY_RUN),
    ),
    Route(
        "POST", "/v1/connections/{ws_id}/heartbeat", "connect", "Record a sign of life.", _heartbeat,
        thing({"ws_id": TEXT}), writes=True, path_parameters=(WS_ID,),
        errors=(404, 409),
        body=thing({}, latency_ms={"type": ["number", "null"], "minimum": 0, "maximum": 86_400_000}, epoch=COUNT),
    ),
)  # fmt: skip
"""The routes of connections."""
