"""Routes of an operator: explanations, counts, bars, tokens and care for the ledger."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import aiohttp

from ws_manager.core.doctor import examine_open
from ws_manager.core.ledger import Ledger
from ws_manager.core.once import key_for
from ws_manager.core.read.explain import OF_A_MESSAGE, Explanation
from ws_manager.core.read.overview import OverviewQuery, overview_form
from ws_manager.errors import NotFound
from ws_manager.gateway.http.api.route import Call, Parameter, Reply, Route
from ws_manager.gateway.http.api.schemas import (
    BOOLEAN,
    COUNT,
    EXPLANATION,
    KNOWN_NAME,
    LIMIT,
    NAME,
    SECONDS,
    SNAPSHOT,
    STATS,
    TEXT,
    listed,
    optional,
    thing,
)
from ws_manager.gateway.http.api.view import View
from ws_manager.models import Connection, Message
from ws_manager.repository.findings import OK, ORDERS, PROBLEM, WARNING
from ws_manager.settings import heartbeat_timeout
from ws_manager.strict_json import Json

_ID = Parameter("id", KNOWN_NAME, "a ws_id, a msg_id or a broadcast_id, or a part of one")
_AGENT = Parameter("agent", KNOWN_NAME, "the agent")


def _show(ledger: Ledger, call: Call) -> Reply:
    view, identifier = View(ledger, call.claims), call.given["id"]
    # Others than operators cannot ask by a part of a name: the answer could tell of others' names.
    whole = view.agent is not None or call.claims.ws_id is not None
    found = _own(view, identifier) if whole else ledger.look_up(identifier)
    if isinstance(found, Connection):
        explained = ledger.explain(found.ws_id)
        facts: dict[str, Any] = {**explained.facts, "metadata": Json(explained.facts["metadata"])}
        return _explained(explained, facts)
    if isinstance(found, Message):
        explained = ledger.explain(found.msg_id)
        verdict = view.verdict(found.recipient_id, explained.verdict)
        # What happened to its recipient's connection meanwhile is not the sender's.
        own = view.owns(found.recipient_id)
        timeline = [entry for entry in explained.timeline if own or entry.what in OF_A_MESSAGE]
        explained = replace(explained, verdict=verdict, timeline=timeline)
        return _explained(explained, {**explained.facts, **view.message_form(found)})
    explained = ledger.explain(found.broadcast_id)
    missing = [
        {**one, "why": view.verdict(one["ws_id"], one["why"])} for one in explained.facts["unconfirmed"]
    ]
    return _explained(explained, {**explained.facts, "unconfirmed": missing})


def _explained(explained: Explanation, facts: dict[str, Any]) -> Reply:
    return Reply(
        {
            "kind": explained.kind,
            "standing": explained.standing,
            "verdict": explained.verdict,
            "facts": facts,
            "timeline": [entry._asdict() for entry in explained.timeline],
        }
    )


def _own(view: View, identifier: str) -> Any:  # noqa: ANN401 - a connection, a message or a broadcast
    for find in (view.connection, view.message, view.broadcast):
        try:
            return find(identifier)
        except NotFound:
            pass
    raise NotFound(f"no connection, message or broadcast {identifier}")


def _stats(ledger: Ledger, call: Call) -> Reply:
    View(ledger, call.claims).require_all()
    running = [gateway._asdict() for gateway in ledger.running_gateways()]
    which = {"gateway": running[0] if running else None, "gateways": running}
    return Reply({**ledger.stats(), **ledger.backlog()._asdict(), **which})


def _snapshot(ledger: Ledger, call: Call) -> Reply:
    view, given = View(ledger, call.claims), call.given
    view.require_all()
    query = OverviewQuery(
        order=given["sort"],
        agent=given.get("agent"),
        text=given.get("text"),
        connections=given["limit"],
        after=given.get("after"),
    )
    form = overview_form(ledger.sampler(heartbeat_timeout()).sample(query))
    if not view.content:
        form["messages"] = [{**message, "content_start": None} for message in form["messages"]]
    return Reply(form)


def _doctor(ledger: Ledger, call: Call) -> Reply:
    View(ledger, call.claims).require_all()
    found = examine_open(ledger, aiohttp.__version__)
    return Reply({"checks": [finding._asdict() for finding in found]})


def _barred(ledger: Ledger, call: Call) -> Reply:
    View(ledger, call.claims).require_all()
    return Reply({"items": [{"agent": agent, "at": at} for agent, at in ledger.barred()]})


def _bar(ledger: Ledger, call: Call) -> Reply:
    View(ledger, call.claims).require_all()
    new, ended = ledger.bar(call.given["agent"])
    return Reply({"agent": call.given["agent"], "barred": True, "disconnected": ended}, 201 if new else 200)


def _unbar(ledger: Ledger, call: Call) -> Reply:
    View(ledger, call.claims).require_all()
    agent = call.given["agent"]

    def unbarred() -> str:
        if not ledger.unbar(agent):
            raise NotFound(f"{agent} is not barred")
        return str(agent)

    _, replayed = ledger.once(key_for(call.subject, "unbar", call.key, agent), unbarred)
    return Reply({"agent": agent, "barred": False, "disconnected": []}, replayed=replayed)


def _revoke(ledger: Ledger, call: Call) -> Reply:
    View(ledger, call.claims).require_all()
    new, ended = ledger.revoke(call.given["jti"])
    return Reply({"jti": call.given["jti"], "revoked": True, "disconnected": ended}, 201 if new else 200)


def _heartbeat_check(ledger: Ledger, call: Call) -> Reply:
    View(ledger, call.claims).require_all()
    timeout = call.body.get("timeout")
    report = ledger.heartbeat_check() if timeout is None else ledger.heartbeat_check(timeout)
    return Reply(
        {"active": report.active, "timed_out": list(report.timed_out), "spared": list(report.spared)}
    )


def _prune(ledger: Ledger, call: Call) -> Reply:
    View(ledger, call.claims).require_all()
    older_than = call.body["older_than"]
    if call.body.get("dry_run"):
        pruned = ledger.maintenance.prune(older_than, dry_run=True)
        return Reply({"deleted": vars(pruned), "dry_run": True})
    text, replayed = ledger.once(
        key_for(call.subject, "prune", call.key, float(older_than)),
        lambda: json.dumps(vars(ledger.maintenance.prune(older_than)), separators=(",", ":")),
        many=True,
    )
    return Reply({"deleted": json.loads(text), "dry_run": False}, replayed=replayed)


_BAR = thing({"agent": TEXT, "barred": BOOLEAN, "disconnected": listed(TEXT)})

ROUTES = (
    Route(
        "GET", "/v1/show/{id}", "read", "Explain a connection, message or broadcast.", _show, EXPLANATION,
        path_parameters=(_ID,), errors=(404, 422),
    ),
    Route("GET", "/v1/stats", "read", "Counts of connections and messages, and what has not arrived.", _stats, STATS),
    Route(
        "GET", "/v1/snapshot", "read", "What goes on now: a frame of `top`. Its rates are null.", _snapshot, SNAPSHOT,
        parameters=(
            Parameter("agent", KNOWN_NAME, "only this agent's connections"),
            Parameter("text", {"type": "string", "minLength": 1}, "only connections with this text"),
            Parameter("sort", {"enum": list(ORDERS), "default": ORDERS[0]}, "the order of the connections"),
            Parameter("limit", {**LIMIT, "default": 20}, "how many connections at most"),
            Parameter("after", KNOWN_NAME, "the `cursor` of an earlier one: count what was confirmed since"),
        ),
    ),
    Route(
        "GET", "/v1/doctor", "admin", "Look for problems of the ledger and the gateway.", _doctor,
        thing({
            "checks": listed(thing({
                "check": TEXT, "status": {"enum": [OK, WARNING, PROBLEM]}, "detail": TEXT,
                "advice": optional(TEXT), "remedy": optional(TEXT),
            })),
        }),
    ),
    Route(
        "GET", "/v1/bars", "admin", "List the barred agents.", _barred,
        thing({"items": listed(thing({"agent": TEXT, "at": TEXT}))}),
    ),
    Route(
        "PUT", "/v1/bars/{agent}", "admin", "Stop an agent from connecting, and close its sockets.", _bar, _BAR,
        status=(200, 201), writes=True, path_parameters=(_AGENT,),
    ),
    Route(
        "DELETE", "/v1/bars/{agent}", "admin", "Let a barred agent in again.", _unbar, _BAR,
        writes=True, path_parameters=(_AGENT,), errors=(404, 409), keyed=True,
    ),
    Route(
        "PUT", "/v1/revocations/{jti}", "admin", "Revoke a token by its jti, and close its sockets.", _revoke,
        thing({"jti": TEXT, "revoked": BOOLEAN, "disconnected": listed(TEXT)}),
        status=(200, 201), writes=True, path_parameters=(Parameter("jti", NAME, "the token's name"),),
    ),
    Route(
        "POST", "/v1/heartbeat-checks", "admin", "Disconnect the connections without a recent heartbeat.",
        _heartbeat_check, thing({"active": listed(TEXT), "timed_out": listed(TEXT), "spared": listed(TEXT)}),
        writes=True, body=thing({}, timeout=optional(SECONDS)),
    ),
    Route(
        "POST", "/v1/prunes", "admin", "Delete old messages, logs and connections that are done with.", _prune,
        thing({"deleted": {"type": "object", "additionalProperties": COUNT}, "dry_run": BOOLEAN}),
        writes=True, long=True, keyed=True,
        body=thing({"older_than": SECONDS}, dry_run=BOOLEAN),
    ),
)  # fmt: skip
"""The routes of an operator."""
