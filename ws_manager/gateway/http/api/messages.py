"""Routes of messages and broadcasts: sending them, and what became of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable, Optional

from ws_manager.core.ledger import Ledger
from ws_manager.core.moments import parse_moment
from ws_manager.core.once import broadcasting_key, key_for, sending_key
from ws_manager.core.read.conditions import all_of
from ws_manager.core.retry import Retried
from ws_manager.core.validation import check_name, encode_content
from ws_manager.errors import InvalidInput, NotAuthorised, NotFound
from ws_manager.gateway.http.api.connections import AGENT, DRY_RUN
from ws_manager.gateway.http.api.route import Call, Parameter, Reply, Route
from ws_manager.gateway.http.api.schemas import (
    BOOLEAN,
    BROADCAST,
    CONTENT,
    KNOWN_NAME,
    LIMIT,
    MESSAGE,
    MOMENT,
    NAME,
    SEQ,
    TEXT,
    TRACEPARENT,
    listed,
    optional,
    page,
    thing,
)
from ws_manager.gateway.http.api.schemas import WAIT as WAIT_SCHEMA
from ws_manager.gateway.http.api.view import View
from ws_manager.models import Message
from ws_manager.repository.findings import BroadcastState, MessageFilter
from ws_manager.repository.records import NO_PLACE
from ws_manager.tokens import ANY_AGENT

if TYPE_CHECKING:
    from ws_manager.core.sending import Sent

WAIT = Parameter("wait", WAIT_SCHEMA, "how long to wait for the confirmations, such as 5s; at most 60 s")
_MSG_ID = Parameter("msg_id", KNOWN_NAME, "the message")
_BROADCAST_ID = Parameter("broadcast_id", KNOWN_NAME, "the broadcast")


def _send(ledger: Ledger, call: Call) -> Reply:
    body = call.body
    to, msg_type = body["to"], body.get("msg_type", "data")

    def sent() -> str:
        message = ledger.send(
            to, body["content"], msg_type, sender(call), traceparent=trace_of(call), admit=call.admit
        )
        if message is None:
            raise NotFound(f"{to} is not active")
        return message.msg_id

    key = sending_key(call.subject, call.key, to, body["content"], msg_type, sender(call))
    msg_id, replayed = ledger.once(key, sent)
    message = _found(ledger, msg_id)

    def anew(ledger: Ledger) -> Mapping[str, Any]:
        return View(ledger, call.claims).message_form(_found(ledger, msg_id))

    headers = {"Location": f"/v1/messages/{msg_id}"}
    return Reply(anew(ledger), 201, headers, replayed, _confirmed([message]), anew)


def _found(ledger: Ledger, msg_id: str) -> Message:
    message = ledger.message(msg_id)
    if message is None:
        raise NotFound(f"message {msg_id} was sent, and is no longer in the ledger")
    return message


def _confirmed(sent: Sent) -> Callable[[Ledger], Optional[bool]]:
    """Return what says whether everything that was sent is confirmed; None while something is pending."""

    def confirmed(ledger: Ledger) -> Optional[bool]:
        counts = ledger.wait(sent, 0)
        return None if counts.pending else not counts.set_aside

    return confirmed


def sender(call: Call) -> Optional[str]:
    """Return who sends: the connection that the token is for, or, for an operator, one that the body names."""
    named: Optional[str] = call.body.get("sender_id")
    if named is None:
        return call.claims.ws_id
    if named != call.claims.ws_id and not (call.claims.allows("admin") and call.claims.agent == ANY_AGENT):
        raise NotAuthorised("only an operator names another sender", hint="leave out sender_id")
    return named


def trace_of(call: Call) -> Optional[str]:
    """Return the trace that a message belongs to: the body's, or else the request's own."""
    own: Optional[str] = call.body.get("traceparent")
    return call.traceparent if own is None else own


def _broadcast(ledger: Ledger, call: Call) -> Reply:
    body, view = call.body, View(ledger, call.claims)
    conditions = all_of(body["where"]) if body.get("where") else None
    agent, msg_type = body.get("agent"), body.get("msg_type", "broadcast")
    if call.given.get("dry_run"):
        view.require_all()
        check_name(msg_type, "message type")
        encode_content(body["content"], ledger.sizes.content)
        found = [
            each.connection.ws_id for each in ledger.recipients(agent, conditions) if each.refusal is None
        ]
        return Reply({"recipients": len(found), "ws_ids": found, "dry_run": True})

    def sent() -> str:
        return ledger.broadcast(
            body["content"],
            agent=agent,
            filter_fn=conditions,
            msg_type=msg_type,
            sender_id=sender(call),
            traceparent=trace_of(call),
            admit=call.admit,
        ).broadcast_id

    where = body.get("where")
    key = broadcasting_key(call.subject, call.key, agent, where, body["content"], msg_type, sender(call))
    broadcast_id, replayed = ledger.once(key, sent)

    def state(ledger: Ledger) -> BroadcastState:
        found = ledger.find_broadcast(broadcast_id)
        if found is None:
            raise NotFound(f"broadcast {broadcast_id} was sent, and is no longer in the ledger")
        return found

    def anew(ledger: Ledger) -> Mapping[str, Any]:
        form = View(ledger, call.claims).broadcast_form(state(ledger))
        return {**form, "ws_ids": ledger.addressed(broadcast_id)}

    headers = {"Location": f"/v1/broadcasts/{broadcast_id}"}
    return Reply(anew(ledger), 201, headers, replayed, _confirmed(state(ledger)), anew)


def _messages(ledger: Ledger, call: Call) -> Reply:
    view, given = View(ledger, call.claims), call.given
    limit, oldest_first = given["limit"], given["order"] == "oldest"
    if "search" in given:
        # Whether something is found would tell of the content.
        call.claims.require("content")
    agent, ws_id = given.get("agent"), given.get("ws_id") or call.claims.ws_id
    if (agent is not None and view.agent not in (None, agent)) or (
        ws_id is not None and not view.owns(ws_id)
    ):
        return Reply({"items": [], "next": _place(ledger, given) if oldest_first else None})
    wanted = MessageFilter(
        ws_id=ws_id,
        agent=view.agent if ws_id is None and view.agent is not None else agent,
        msg_type=given.get("type"),
        pending=bool(given.get("pending")),
        set_aside=bool(given.get("set_aside")),
        since=parse_moment(given["since"]) if "since" in given else None,
        before=parse_moment(given["before"]) if "before" in given else None,
        text=given.get("search"),
        broadcast_id=given.get("broadcast"),
        below=None if oldest_first else _below(given),
    )
    if wanted.broadcast_id is not None:
        view.broadcast(wanted.broadcast_id)
    if oldest_first:
        found, reached = ledger.messages_after(given.get("after"), wanted, limit)
        return Reply(
            {"items": [view.message_form(message) for message in found], "next": reached},
            resume=None if found else {"after": reached},
        )
    found = ledger.messages(wanted, limit + 1)
    items = [view.message_form(message) for message in found[:limit]]
    return Reply({"items": items, "next": str(items[-1]["seq"]) if len(found) > limit else None})


def _place(ledger: Ledger, given: Mapping[str, Any]) -> str:
    """Return the place of a reader who may see nothing: where it was, or now."""
    return str(given.get("after") or ledger.messages_after(None, MessageFilter(), 1)[1])


def _below(given: Mapping[str, Any]) -> Optional[int]:
    """Return the number behind which a list goes on that begins with the newest."""
    after = given.get("after")
    if after is None:
        return None
    if not re.fullmatch("[0-9]{1,19}", after) or int(after) > SEQ["maximum"]:
        raise InvalidInput(NO_PLACE)
    return int(after)


def _message(ledger: Ledger, call: Call) -> Reply:
    view = View(ledger, call.claims)
    message = view.message(call.given["msg_id"])
    missing = ledger.unconfirmed([message])
    why = view.verdict(message.recipient_id, missing[0].why) if missing else None
    return Reply({**view.message_form(message), "why": why})


def _broadcasts(ledger: Ledger, call: Call) -> Reply:
    view, limit = View(ledger, call.claims), call.given["limit"]
    after = call.given.get("after")
    if after is not None:
        view.broadcast(after)
    found = ledger.broadcasts(limit + 1, after, sender_agent=view.agent, sender_id=call.claims.ws_id)
    items = [view.broadcast_form(state) for state in found[:limit]]
    return Reply({"items": items, "next": items[-1]["broadcast_id"] if len(found) > limit else None})


def _one_broadcast(ledger: Ledger, call: Call) -> Reply:
    view = View(ledger, call.claims)
    state = view.broadcast(call.given["broadcast_id"])
    missing = [
        one._replace(why=view.verdict(one.ws_id, one.why))._asdict() for one in ledger.unconfirmed(state)
    ]
    return Reply({**view.broadcast_form(state), "unconfirmed": missing})


def _retry(ledger: Ledger, call: Call) -> Reply:
    view = View(ledger, call.claims)
    view.require_all()
    message = view.message(call.given["msg_id"])

    def sent() -> str:
        known = ledger.retry_of(message.msg_id)
        again = known or ledger.retry(message.msg_id)
        return json.dumps([200 if known else 201, again])

    text, replayed = ledger.once(key_for(call.subject, "retry", call.key, message.msg_id), sent)
    status, again = json.loads(text)
    return Reply(Retried(*again)._asdict(), status, replayed=replayed)


def _retries(ledger: Ledger, call: Call) -> Reply:
    View(ledger, call.claims).require_all()
    since, agent = call.body.get("since"), call.body.get("agent")
    start = parse_moment(since) if since else ""

    def sent() -> str:
        return json.dumps(ledger.retry_all(start, agent), separators=(",", ":"))

    text, replayed = ledger.once(key_for(call.subject, "retries", call.key, agent, since), sent)
    retried, beyond = json.loads(text)
    form = {"retried": [Retried(*each)._asdict() for each in retried], "beyond_limits": beyond}
    return Reply(form, replayed=replayed)


def _replay(ledger: Ledger, call: Call) -> Reply:
    view, to = View(ledger, call.claims), call.body["to"]
    view.require_all()
    message = view.message(call.given["msg_id"])

    def sent() -> str:
        again = ledger.replay(message, to)
        if again is None:
            raise NotFound(f"{to} is not active")
        return again.msg_id

    msg_id, replayed = ledger.once(key_for(call.subject, "replay", call.key, message.msg_id, to), sent)
    form = {"retry_of": message.msg_id, "msg_id": msg_id, "ws_id": to}
    return Reply(form, 201, {"Location": f"/v1/messages/{msg_id}"}, replayed)


_RETRIED = thing({"retry_of": TEXT, "msg_id": TEXT, "ws_id": TEXT})
_SENT = thing(
    {"to": KNOWN_NAME, "content": CONTENT},
    msg_type=NAME,
    sender_id=optional(KNOWN_NAME),
    traceparent=TRACEPARENT,
)
_BROADCASTED = thing(
    {"content": CONTENT},
    agent=optional(KNOWN_NAME),
    where=listed(TEXT),
    msg_type=NAME,
    sender_id=optional(KNOWN_NAME),
    traceparent=TRACEPARENT,
)
_DRY = thing({"recipients": {"type": "integer"}, "ws_ids": listed(TEXT), "dry_run": BOOLEAN})

ROUTES = (
    Route(
        "POST", "/v1/messages", "send", "Send a message to one connection.", _send, MESSAGE,
        status=(201, 202), writes=True, parameters=(WAIT,), body=_SENT, errors=(404, 409, 413, 422), keyed=True,
    ),
    Route(
        "POST", "/v1/broadcasts", "broadcast", "Send a message to all active connections, or to those that fit.",
        _broadcast, BROADCAST, status=(201, 202), writes=True, parameters=(WAIT, DRY_RUN), body=_BROADCASTED,
        errors=(404, 409, 413, 422), keyed=True, other={200: _DRY},
    ),
    Route(
        "GET", "/v1/messages", "read", "List messages, newest first.", _messages, page(MESSAGE),
        parameters=(
            Parameter("ws_id", KNOWN_NAME, "only messages to or from this connection"),
            AGENT,
            Parameter("type", KNOWN_NAME, "only messages of this type"),
            Parameter("pending", BOOLEAN, "only messages that are not confirmed yet"),
            Parameter("set_aside", BOOLEAN, "only messages that were set aside; with `pending` both kinds"),
            Parameter("since", MOMENT, "only messages sent since then: 2h (ago), or RFC 3339 in UTC"),
            Parameter("before", MOMENT, "only messages sent before then"),
            Parameter("search", {"type": "string", "minLength": 1}, "only messages whose content has this text"),
            Parameter("broadcast", KNOWN_NAME, "only messages of this broadcast"),
            Parameter("limit", LIMIT, "how many messages at most"),
            Parameter(
                "order",
                {"enum": ["newest", "oldest"], "default": "newest"},
                "`oldest` follows what is sent: it begins at `since` or now, and `next` is always given",
            ),
            Parameter("after", {"type": "string", "minLength": 1}, "go on behind a page: its `next`"),
            WAIT._replace(text="with `oldest`: how long to wait for the next message, such as 5s; at most 60 s"),
        ),
        errors=(404, 422),
    ),
    Route(
        "GET", "/v1/messages/{msg_id}", "read", "Show a message.", _message, MESSAGE,
        path_parameters=(_MSG_ID,), errors=(404,),
    ),
    Route(
        "POST", "/v1/messages/{msg_id}/retry", "admin", "Send a message again that was set aside.", _retry, _RETRIED,
        status=(200, 201), writes=True, path_parameters=(_MSG_ID,), errors=(404, 409, 422), keyed=True,
    ),
    Route(
        "POST", "/v1/messages/{msg_id}/replay", "admin", "Send the content of any message again, to any connection.",
        _replay, _RETRIED, status=(201,), writes=True, path_parameters=(_MSG_ID,), body=thing({"to": KNOWN_NAME}),
        errors=(404, 409, 422), keyed=True,
    ),
    Route(
        "POST", "/v1/retries", "admin", "Send everything again that was set aside.", _retries,
        thing({"retried": listed(_RETRIED), "beyond_limits": {"type": "integer"}}), writes=True, keyed=True,
        body=thing({}, agent=optional(KNOWN_NAME), since=optional(MOMENT)),
    ),
    Route(
        "GET", "/v1/broadcasts", "read", "List broadcasts, newest first.", _broadcasts, page(BROADCAST),
        parameters=(
            Parameter("limit", LIMIT, "how many broadcasts at most"),
            Parameter("after", KNOWN_NAME, "only broadcasts that are older than this one"),
        ),
        errors=(404,),
    ),
    Route(
        "GET", "/v1/broadcasts/{broadcast_id}", "read", "Show a broadcast, and who has not confirmed it.",
        _one_broadcast, BROADCAST, path_parameters=(_BROADCAST_ID,), errors=(404,),
    ),
)  # fmt: skip
"""The routes of messages and broadcasts."""
