"""The route of tokens: an operator's token makes others, none of which allows more than it does itself."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timezone
from typing import Any

from ws_manager.core.ledger import Ledger
from ws_manager.core.once import key_for
from ws_manager.core.validation import check_name
from ws_manager.errors import NotAuthorised
from ws_manager.gateway.http.api.route import Call, Reply, Route
from ws_manager.gateway.http.api.schemas import NAME, TEXT, TIME, Schema, listed, optional, thing
from ws_manager.models import timestamp
from ws_manager.settings import MAX_TIMEOUT
from ws_manager.tokens import ANY_AGENT, DEFAULT_TTL, SCOPES, Claims, new_claims


def _make(ledger: Ledger, call: Call) -> Reply:
    body, now = call.body, call.access.now()
    agent, ws_id = check_name(body["agent"], "agent"), body.get("ws_id")
    if ws_id is not None:
        check_name(ws_id, "ws_id")
    _check_owner(call.claims, agent, ws_id)
    ttl = body.get("ttl")
    # Left out, it is not what the caller asked for: then it is as long as it can be.
    seconds = min(DEFAULT_TTL, call.claims.expires_at - now) if ttl is None else int(ttl)
    new = new_claims(agent, ws_id=ws_id, scopes=body.get("scopes", ("connect",)), ttl=seconds, now=now)
    _check_end(call.claims, new)
    # Before a key is written for it: a gateway without tokens makes none.
    token = call.access.sign(new)
    key = key_for(
        call.subject, "token", call.key, agent, ws_id, sorted(new.scopes), None if ttl is None else seconds
    )
    # The ledger gets what makes the token again, but not the token.
    stored = [new.jti, new.issued_at, new.expires_at]
    text, replayed = ledger.once(key, lambda: json.dumps(stored))
    if replayed:
        jti, issued, expires = json.loads(text)
        new = dataclasses.replace(new, jti=jti, key=jti, issued_at=issued, expires_at=expires)
        # The first caller's token may have lasted longer than this one's.
        _check_end(call.claims, new)
        token = call.access.sign(new)
    return Reply(_form(token, new), 201, replayed=replayed)


def _check_owner(own: Claims, agent: str, ws_id: Any) -> None:  # noqa: ANN401 - text or None
    if own.agent not in (ANY_AGENT, agent):
        raise NotAuthorised("the token belongs to another agent", hint="ask for one whose agent is *")
    if own.ws_id not in (None, ws_id):
        raise NotAuthorised("the token is for one ws_id", hint="ask for one that is for every ws_id")


def _check_end(own: Claims, new: Claims) -> None:
    if new.expires_at > own.expires_at:
        raise NotAuthorised(
            f"the new token would outlast your own, which ends at {_time(own.expires_at)}",
            hint="ask for a shorter ttl, or leave it out",
        )


def _form(token: str, claims: Claims) -> dict[str, Any]:
    return {
        "token": token,
        "jti": claims.jti,
        "agent": claims.agent,
        "ws_id": claims.ws_id,
        "scopes": [scope for scope in SCOPES if scope in claims.scopes],
        "expires_at": _time(claims.expires_at),
    }


def _time(seconds: float) -> str:
    return timestamp(datetime.fromtimestamp(seconds, timezone.utc))


_SCOPE: Schema = {"enum": list(SCOPES)}
_TTL: Schema = {
    "type": ["integer", "null"],
    "minimum": 1,
    "maximum": int(MAX_TIMEOUT),
    "description": "seconds; left out, it is 24 hours, or until the caller's own token ends",
}

ROUTES = (
    Route(
        "POST", "/v1/tokens", "admin", "Make a token. It ends with the caller's own at the latest.",
        _make,
        thing({
            "token": TEXT, "jti": TEXT, "agent": TEXT, "ws_id": optional(TEXT), "scopes": listed(_SCOPE),
            "expires_at": TIME,
        }),
        status=(201,), writes=True, keyed=True, errors=(409,),
        body=thing({"agent": NAME}, ws_id=optional(NAME), scopes=listed(_SCOPE, minItems=1), ttl=_TTL),
    ),
)  # fmt: skip
"""The route of tokens."""
