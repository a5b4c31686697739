"""Routes of asks: asking, and what was answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from ws_manager.core.ledger import Ledger
from ws_manager.core.once import sending_key
from ws_manager.errors import NotFound
from ws_manager.forms import ask_form
from ws_manager.gateway.http.api.messages import sender, trace_of
from ws_manager.gateway.http.api.route import Call, Parameter, Reply, Route
from ws_manager.gateway.http.api.schemas import ASK, CONTENT, KNOWN_NAME, NAME, TRACEPARENT, optional, thing
from ws_manager.gateway.http.api.schemas import WAIT as WAIT_SCHEMA
from ws_manager.repository.working import ANSWERED, Ask
from ws_manager.tokens import ANY_AGENT

_WAIT = Parameter("wait", WAIT_SCHEMA, "how long to wait for the answer, such as 10s; at most 60 s")
_MSG_ID = Parameter("msg_id", KNOWN_NAME, "the ask")


def _ask(ledger: Ledger, call: Call) -> Reply:
    body, asker = call.body, sender(call)
    to, msg_type = body["to"], body.get("msg_type", "data")

    def sent() -> str:
        message = ledger.ask(
            to,
            body["content"],
            msg_type,
            asker,
            subject=call.subject,
            traceparent=trace_of(call),
            admit=call.admit,
        )
        if message is None:
            raise NotFound(f"{to} is not active")
        return message.msg_id

    key = sending_key(call.subject, call.key, to, body["content"], msg_type, asker, "ask")
    msg_id, replayed = ledger.once(key, sent)
    asked = ledger.asked(msg_id)

    def reached(ledger: Ledger) -> Optional[bool]:
        now = ledger.asked(msg_id)
        return now.state == ANSWERED if now.is_over else None

    def anew(ledger: Ledger) -> Mapping[str, Any]:
        return ask_form(ledger.asked(msg_id))

    status, headers = 201 if asked.state == ANSWERED else 202, {"Location": f"/v1/asks/{msg_id}"}
    return Reply(ask_form(asked), status, headers, replayed, reached, anew)


def _asked(ledger: Ledger, call: Call) -> Reply:
    msg_id = call.given["msg_id"]
    asked = ledger.asked(msg_id)
    if not _is_own(asked, call):
        # As what does not exist.
        raise NotFound(f"no ask {msg_id}", hint="an ask and its answer are kept for 24 h")
    return Reply(ask_form(asked), resume=None if asked.is_over else {})


def _is_own(asked: Ask, call: Call) -> bool:
    """Return whether a token may see an ask: it has asked, or it may see every content."""
    claims = call.claims
    if claims.ws_id is not None:
        return asked.sender_id == claims.ws_id
    return asked.subject == claims.agent or (claims.agent == ANY_AGENT and claims.allows("content"))


ROUTES = (
    Route(
        "POST", "/v1/asks", "send",
        "Ask a connection, or an agent: its connection that was heard last gets a message that wants an answer.",
        _ask, ASK, status=(201, 202), writes=True, parameters=(_WAIT,), keyed=True, errors=(404, 409, 413, 422),
        body=thing(
            {"to": KNOWN_NAME, "content": CONTENT},
            msg_type=NAME, sender_id=optional(KNOWN_NAME), traceparent=TRACEPARENT,
        ),
    ),
    Route(
        "GET", "/v1/asks/{msg_id}", "send", "Show an ask and its answer, for 24 h after it was made.", _asked, ASK,
        path_parameters=(_MSG_ID,), parameters=(_WAIT,), errors=(404,),
    ),
)  # fmt: skip
"""The routes of asks."""
