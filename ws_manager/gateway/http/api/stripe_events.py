"""Routes of what Stripe has sent: listing the stored events, and sending those again that had no recipients."""

from __future__ import annotations

import json
from typing import Any, Optional

from ws_manager.core.ledger import Ledger
from ws_manager.core.moments import parse_moment
from ws_manager.core.once import key_for
from ws_manager.errors import Conflict, InvalidInput, NotFound
from ws_manager.forms import webhook_event_form
from ws_manager.gateway.http.api.route import Call, Parameter, Reply, Route
from ws_manager.gateway.http.api.schemas import (
    BOOLEAN,
    COUNT,
    KNOWN_NAME,
    LIMIT,
    MOMENT,
    MOST_ROWS,
    TEXT,
    WITHOUT_NUL,
    Schema,
    listed,
    optional,
    page,
    thing,
)
from ws_manager.gateway.http.api.view import View
from ws_manager.gateway.http.errors import hint_of
from ws_manager.models import ROUTED, UNROUTED
from ws_manager.stripe.events import content_of


def _list(ledger: Ledger, call: Call) -> Reply:
    View(ledger, call.claims).require_all()
    given, limit = call.given, call.given["limit"]
    found = ledger.webhooks.events(
        status=given.get("status"),
        since=parse_moment(given["since"]) if "since" in given else "",
        pattern=given.get("event"),
        limit=limit + 1,
        after=given.get("after"),
    )
    items = [webhook_event_form(event) for event in found[:limit]]
    return Reply({"items": items, "next": items[-1]["event_id"] if len(found) > limit else None})


def _replay(ledger: Ledger, call: Call) -> Reply:
    View(ledger, call.claims).require_all()
    event_ids, since, to = (call.body.get(name) for name in ("event_ids", "since", "to"))
    if (event_ids is None) == (since is None):
        raise InvalidInput("a replay takes event_ids or since", hint="give one of the two")
    start = "" if since is None else parse_moment(since)
    if call.body.get("dry_run"):
        return Reply({**_replayed(ledger, event_ids, start, to, dry_run=True), "dry_run": True})
    # An event is routed once, whatever happens: done twice, the second time finds nothing more to send.
    text, again = ledger.once(
        key_for(call.subject, "stripe replay", call.key, event_ids, since, to),
        lambda: json.dumps(_replayed(ledger, event_ids, start, to), separators=(",", ":")),
        many=True,
    )
    return Reply({**json.loads(text), "dry_run": False}, replayed=again)


def _replayed(
    ledger: Ledger, event_ids: Optional[list[str]], since: str, to: Optional[str], *, dry_run: bool = False
) -> dict[str, Any]:
    """Route events that wait, each in a transaction of its own, and return what became of each."""
    items, failed = [], []
    for event_id in event_ids or ledger.webhooks.waiting(since):
        try:
            outcome = ledger.webhooks.replay(event_id, content_of, agent=to, dry_run=dry_run)
        except (NotFound, Conflict, InvalidInput) as error:
            # An event that cannot be sent does not stop the others.
            failed.append(
                {
                    "event_id": event_id,
                    "code": error.code,
                    "detail": error.public_message,
                    "hint": hint_of(error),
                }
            )
        else:
            items.append(outcome.form())
    return {"items": items, "failed": failed}


_STATUS: Schema = {"enum": [ROUTED, UNROUTED]}
_PATTERN: Schema = {"type": "string", "minLength": 1, "pattern": WITHOUT_NUL}
_EVENT_ID: Schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": WITHOUT_NUL}
_OUTCOME: dict[str, Schema] = {
    "event_id": TEXT, "event_type": TEXT, "status": _STATUS, "agent": optional(TEXT), "msg_type": TEXT,
    "recipients": COUNT, "broadcast_id": optional(TEXT), "reason": optional(TEXT),
}  # fmt: skip
_EVENT = thing({**_OUTCOME, "received_at": TEXT, "routed_at": optional(TEXT)})
_FAILURE = thing({"event_id": TEXT, "code": TEXT, "detail": TEXT, "hint": optional(TEXT)})

ROUTES = (
    Route(
        "GET", "/v1/stripe-events", "admin", "List the events that Stripe has sent, newest first.", _list,
        page(_EVENT),
        parameters=(
            Parameter("status", _STATUS, "only events with this status; an unrouted one waits for a recipient"),
            Parameter("event", _PATTERN, "only these types: invoice.paid, or invoice.*"),
            Parameter("since", MOMENT, "only events received since then: 2h (ago), or RFC 3339 in UTC"),
            Parameter("limit", LIMIT, "how many events at most"),
            Parameter("after", _EVENT_ID, "only events behind this one: the `next` of the page before"),
        ),
        errors=(404,),
    ),
    Route(
        "POST", "/v1/stripe-replays", "admin", "Send stored events again that had no recipients.", _replay,
        thing({"items": listed(thing(_OUTCOME)), "failed": listed(_FAILURE), "dry_run": BOOLEAN}),
        writes=True, long=True, keyed=True,
        body=thing(
            {}, event_ids=listed(_EVENT_ID, minItems=1, maxItems=MOST_ROWS), since=optional(MOMENT),
            to=optional(KNOWN_NAME), dry_run=BOOLEAN,
        ),
    ),
)  # fmt: skip
"""The routes of Stripe's events."""
