"""Routes of a receiver without a socket: it holds a connection, takes what is pending, and confirms it."""

from __future__ import annotations

from ws_manager.core.attempts import worker_of
from ws_manager.core.ledger import Ledger
from ws_manager.errors import Conflict, InvalidInput
from ws_manager.forms import wire_form
from ws_manager.gateway.http.api.connections import WS_ID
from ws_manager.gateway.http.api.messages import WAIT
from ws_manager.gateway.http.api.route import Call, Parameter, Reply, Route
from ws_manager.gateway.http.api.schemas import (
    BOOLEAN,
    CONTENT,
    COUNT,
    LIMIT,
    NAME,
    SEQ,
    TEXT,
    WIRE_MESSAGE,
    Schema,
    listed,
    thing,
)
from ws_manager.gateway.http.api.view import View
from ws_manager.models import ACTIVE, DISCONNECTED, MOST_ATTEMPTS, Connection
from ws_manager.protocol.attempt_frames import LONGEST_REASON

_HOLD = Parameter("hold", NAME, "the hold", required=True)
_REASON: Schema = {"type": "string", "description": f"why; {LONGEST_REASON:,} characters of it are kept"}


def _take(ledger: Ledger, call: Call) -> Reply:
    ws_id, given = call.given["ws_id"], call.given
    View(ledger, call.claims).connection(ws_id)
    worker = worker_of(given.get("worker"), given.get("max_attempts"))
    hold, connection = ledger.delivery.take_hold(ws_id, given.get("hold"), worker)
    return Reply({"hold": hold, "epoch": connection.epoch}, 201)


def _release(ledger: Ledger, call: Call) -> Reply:
    ws_id, hold = call.given["ws_id"], call.given["hold"]
    View(ledger, call.claims).connection(ws_id)
    return Reply({"released": ledger.delivery.release_hold(ws_id, hold)})


def _pending(ledger: Ledger, call: Call) -> Reply:
    given = call.given
    connection = _held(ledger, call, given["hold"])
    after = max(connection.confirmed_seq, given.get("after", 0))
    found = ledger.delivery.pending_held(connection, after, given["limit"])
    items = [wire_form(message) for message in found]
    waits = not items and connection.status == ACTIVE
    body = {"epoch": connection.epoch, "status": connection.status, "items": items}
    return Reply(body, resume={} if waits else None)


def _settle(ledger: Ledger, call: Call) -> Reply:
    body, delivery = call.body, ledger.delivery
    if sum(name in body for name in ("ack", "reject", "reply")) != 1:
        raise InvalidInput("a receipt has either ack, reject or reply", hint="send them one after the other")
    if ("reply" in body) != ("content" in body):
        raise InvalidInput("a reply has a content, and nothing else has one", hint="leave it out, or answer")
    connection = _held(ledger, call, body["hold"])
    if connection.epoch != body["epoch"]:
        raise Conflict(
            f"{connection.ws_id} was registered again meanwhile; the messages stay pending",
            hint="take what is pending again",
        )
    if "ack" in body:
        return Reply({"confirmed": delivery.confirm_up_to(connection, body["ack"]), "set_aside": 0})
    if "reply" in body:
        answer_id = delivery.reply_held(connection, body["reply"], body["content"])
        return Reply({"confirmed": 1, "set_aside": 0, "answer_id": answer_id})
    delivery.reject_held(connection, body["reject"], _reason(call, "rejected by its receiver"))
    return Reply({"confirmed": 0, "set_aside": 1})


def _attempt(ledger: Ledger, call: Call) -> Reply:
    body, delivery = call.body, ledger.delivery
    if ("started" in body) == ("failed" in body):
        raise InvalidInput("an attempt has either started or failed", hint="send them one after the other")
    ws_id = _held(ledger, call, body["hold"]).ws_id
    if "started" in body:
        attempt = delivery.begin(ws_id, body["epoch"], body["started"])
    else:
        attempt = delivery.fail(ws_id, body["epoch"], body["failed"], _reason(call, "its receiver failed"))
    return Reply({"attempt": attempt.number, "set_aside": attempt.set_aside})


def _reason(call: Call, default: str) -> str:
    return str(call.body.get("reason", default))[:LONGEST_REASON]


def _held(ledger: Ledger, call: Call, hold: str) -> Connection:
    ws_id = call.given["ws_id"]
    View(ledger, call.claims).connection(ws_id)
    return ledger.delivery.renew_hold(ws_id, hold)


_PENDING = thing({"epoch": COUNT, "status": {"enum": [ACTIVE, DISCONNECTED]}, "items": listed(WIRE_MESSAGE)})

ROUTES = (
    Route(
        "POST", "/v1/connections/{ws_id}/hold", "connect",
        "Hold a connection's messages, alone, for 30 s; each further request of the holder renews it.", _take,
        thing({"hold": TEXT, "epoch": COUNT}), status=(201,), writes=True, path_parameters=(WS_ID,),
        parameters=(
            Parameter("hold", NAME, "the name of the hold: whoever has it already renews it; a new one if left out"),
            Parameter("worker", NAME, "the receiver's process, the same for all its holds; needs `max_attempts`"),
            Parameter(
                "max_attempts",
                {"type": "integer", "minimum": 1, "maximum": MOST_ATTEMPTS},
                "a message is set aside after this number of attempts; needs `worker`",
            ),
        ),
        errors=(404, 409),
    ),
    Route(
        "DELETE", "/v1/connections/{ws_id}/hold", "connect", "End a hold.", _release,
        thing({"released": {"type": "boolean"}}), writes=True, path_parameters=(WS_ID,), parameters=(_HOLD,),
        errors=(404,),
    ),
    Route(
        "GET", "/v1/connections/{ws_id}/pending", "connect", "Take what is pending, the oldest first.", _pending,
        _PENDING, writes=True, long=True, path_parameters=(WS_ID,),
        parameters=(
            _HOLD,
            Parameter("after", SEQ, "only messages behind this seq"),
            Parameter("limit", LIMIT, "how many messages at most; together they have at most 1 MiB"),
            WAIT,
        ),
        errors=(404, 409),
    ),
    Route(
        "POST", "/v1/connections/{ws_id}/receipts", "connect",
        "Confirm the messages up to a seq, reject one (it is set aside), or answer one.", _settle,
        thing({"confirmed": COUNT, "set_aside": COUNT}, answer_id=TEXT), writes=True, path_parameters=(WS_ID,),
        body=thing(
            {"hold": NAME, "epoch": COUNT}, ack=SEQ, reject=SEQ, reason=_REASON, reply=SEQ, content=CONTENT
        ),
        errors=(404, 409, 413, 422),
    ),
    Route(
        "POST", "/v1/connections/{ws_id}/attempts", "connect",
        "Begin a message, or say that the attempt has failed: the last one sets the message aside.", _attempt,
        thing({"attempt": {"type": "integer", "minimum": 1}, "set_aside": BOOLEAN}), writes=True,
        path_parameters=(WS_ID,),
        body=thing({"hold": NAME, "epoch": COUNT}, started=SEQ, failed=SEQ, reason=_REASON), errors=(404, 409),
    ),
)  # fmt: skip
"""The routes of a receiver."""
