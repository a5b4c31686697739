"""Stripe's webhook events become messages: verified, routed by their type, and once.

https://docs.stripe.com/webhooks: an event is a POST whose body is signed. Whoever does not answer it with a 2xx gets
it again, for up to three days. No error text contains a secret, a signature or a body.
"""

from __future__ import annotations

import fnmatch
import json
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

from ws_manager.core.ledger import Ledger, ledger_over, open_ledger
from ws_manager.core.pool import ConnectionPool, check_same_ledger
from ws_manager.core.validation import check_name
from ws_manager.core.webhooks import IncomingEvent, WebhookOutcome
from ws_manager.errors import InvalidInput, InvalidSignature, MissingExtra
from ws_manager.remedies import CHECK_STRIPE_ROUTES
from ws_manager.settings import stripe_secrets
from ws_manager.strict_json import NotJson, decode_json, is_json, member_pairs, members
from ws_manager.text import read_text

if TYPE_CHECKING:
    import sqlite3
    from types import ModuleType

TOLERANCE = 300
"""Seconds that a signature's timestamp may lie in the past or in the future; Stripe's own default for the past."""

MAX_BODY = 256 * 1024
"""Bytes of an event's body."""

QUOTED = "STRIPE_WEBHOOK_SECRET is in quotes, so no signature will match: remove them"
"""The advice when a secret was read with its quotes, which a shell would have removed."""

_MOST_CHARACTERS = 255
# The order of what agents get; whatever else the event has comes behind it.
_FIRST = ("type", "data", "id", "created", "livemode")
_MOST_ROUTES = 1024 * 1024


@dataclass(frozen=True)
class EventRoute:
    """Where events of a type go.

    Attributes:
        event: the type, in which `*` stands for anything: `payment_intent.*`.
        agent: to whose connections; None for all.
        msg_type: of the messages; None for the recommended one of the event's type.

    Raises:
        InvalidInput: a name cannot be accepted.
    """

    event: str
    agent: Optional[str] = None
    msg_type: Optional[str] = None

    def __post_init__(self) -> None:
        check_name(self.event, "event pattern")
        if self.agent is not None:
            check_name(self.agent, "agent")
        if self.msg_type is not None:
            check_name(self.msg_type, "message type")

    def takes(self, event_type: str) -> bool:
        """Return whether events of a type take this route."""
        return fnmatch.fnmatchcase(event_type, self.event)


RECOMMENDED = (
    EventRoute("payment_intent.*", msg_type="stripe_payment"),
    EventRoute("customer.subscription.*", msg_type="stripe_subscription"),
    EventRoute("invoice.*", msg_type="stripe_invoice"),
    EventRoute("*", msg_type="stripe_event"),
)
"""The default routes. Events that no configured route takes go to every connection."""


@dataclass(frozen=True)
class StripeEvent:
    """A verified event: https://docs.stripe.com/api/events/object, or https://docs.stripe.com/api/v2/core/events.

    Attributes:
        id: Stripe's identifier.
        type: such as `invoice.paid`.
        payload: the body, as text.
        content: what agents get, as JSON text.
    """

    id: str
    type: str
    payload: str
    content: str


def handle_stripe_webhook(
    request_body: bytes,
    stripe_signature: str,
    *,
    pool: Optional[ConnectionPool] = None,
    db_conn: Union[sqlite3.Connection, Ledger, None] = None,
    routes: Optional[Iterable[EventRoute]] = None,
    secret: Union[str, Sequence[str], None] = None,
    tolerance: int = TOLERANCE,
) -> WebhookOutcome:
    """Verify a webhook's request, and turn its event into messages, once. For any web framework.

    Answer it with 400 where this raises `InvalidInput`; with 503, so that Stripe sends it again, where it raises
    `LedgerError` or the outcome's status is `unrouted` without a `reason`; and with 200 otherwise.

    Args:
        request_body: as it came, unchanged.
        stripe_signature: the header `Stripe-Signature`.
        pool: whose ledger the event goes into.
        db_conn: a connection to that ledger. With neither, `BLACKROAD_WS_DB` is opened, and closed again.
        routes: where which events go; the first that matches decides. What none takes goes to everyone.
        secret: the endpoint's signing secret, or several during a rotation; None for `STRIPE_WEBHOOK_SECRET`.
        tolerance: seconds that the timestamp may lie in the past or in the future.

    Returns:
        The outcome.

    Raises:
        InvalidSignature: (an InvalidInput, and so a ValueError) it is not from Stripe, or too old.
        InvalidInput: it is signed, and no event; or the pool is on another file than `db_conn`.
        MissingExtra: the package `stripe` is not installed.
        LedgerError: the file cannot be written. Nothing was half written.
    """
    event = verified(request_body, stripe_signature, secret, tolerance)
    incoming = addressed(event, routes or ())
    if pool is not None:
        if db_conn is not None:
            check_same_ledger(pool, ledger_over(db_conn))
        outcome = pool.ledger.webhooks.take(incoming)
        pool.deliver_pending()
        return outcome
    if db_conn is not None:
        return ledger_over(db_conn).webhooks.take(incoming)
    with open_ledger() as ledger:
        return ledger.webhooks.take(incoming)


def verified(
    body: bytes,
    signature: str,
    secret: Union[str, Sequence[str], None] = None,
    tolerance: int = TOLERANCE,
    now: Optional[float] = None,
) -> StripeEvent:
    """Verify a webhook's request, and return its event.

    Args:
        body: as it came, unchanged.
        signature: the header `Stripe-Signature`.
        secret: one or several; None for `STRIPE_WEBHOOK_SECRET`.
        tolerance: seconds that the timestamp may lie in the past or in the future.
        now: seconds since 1970; the present time if None.

    Raises:
        InvalidSignature, InvalidInput, MissingExtra: as `handle_stripe_webhook`.
    """
    stripe = load_stripe()
    secrets = [secret] if isinstance(secret, str) else list(secret or stripe_secrets())
    if not any(secrets):
        raise InvalidInput(
            "there is no secret to check webhooks with", hint="set STRIPE_WEBHOOK_SECRET to whsec_…"
        )
    if len(body) > MAX_BODY:
        raise InvalidInput(f"the event has {len(body)} bytes", hint=f"at most {MAX_BODY} are allowed")
    if not any(_is_signed(stripe, body, signature, each, tolerance) for each in secrets if each):
        raise InvalidSignature(
            "the signature is not Stripe's, or too old",
            hint=QUOTED
            if any(map(is_quoted, secrets))
            else "check STRIPE_WEBHOOK_SECRET, the clock, and that the body comes unchanged",
        )
    # The package refuses what is too old, and accepts what comes from the future.
    if _timestamp(signature) > (time.time() if now is None else now) + tolerance:
        raise InvalidSignature("the signature is from the future", hint="check the clock")
    return _parsed(body)


def is_quoted(secret: str) -> bool:
    """Return whether a secret begins or ends with a quote, which no secret of Stripe's does."""
    return secret.startswith(("'", '"')) or secret.endswith(("'", '"'))


def addressed(event: StripeEvent, routes: Iterable[EventRoute]) -> IncomingEvent:
    """Return an event with where it goes: the first route that takes it decides."""
    route = next(route for route in (*routes, *RECOMMENDED) if route.takes(event.type))
    return IncomingEvent(
        event.id,
        event.type,
        event.payload,
        event.content,
        route.agent,
        route.msg_type or recommended_type(event.type),
    )


def recommended_type(event_type: str) -> str:
    """Return the message type that is recommended for an event's type."""
    return next(route.msg_type for route in RECOMMENDED if route.msg_type and route.takes(event_type))


def content_of(payload: str) -> str:
    """Return what agents get of an event that was stored, as JSON text.

    Raises:
        InvalidInput: it is no event: somebody else has written it.
    """
    return _parsed(payload.encode("utf-8")).content


def parse_route(text: str) -> EventRoute:
    """Read `PATTERN=AGENT` or `PATTERN=AGENT:MSG_TYPE`; the agent `*` is everyone.

    Raises:
        InvalidInput: it is not of that form.
    """
    event, equals, target = text.partition("=")
    agent, colon, msg_type = target.partition(":")
    if not (event and equals and agent) or (colon and not msg_type):
        raise InvalidInput(
            f"not a route: {text!r}", hint="write 'payment_intent.*=billing', or '…=billing:my_type'"
        )
    return EventRoute(event, None if agent == "*" else agent, msg_type or None)


def load_routes(path: Path) -> list[EventRoute]:
    """Read routes from a TOML file: tables `[[route]]` with `event`, and perhaps `agent` and `msg_type`.

    Raises:
        InvalidInput: it cannot be read, or something in it is no route.
    """
    toml = _load_toml()
    try:
        with path.open("rb") as file:
            text = read_text(file, str(path), _MOST_ROUTES)
        tables = toml.loads(text).get("route", [])
    except InvalidInput:
        raise
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}", remedy=CHECK_STRIPE_ROUTES) from None
    except ValueError as error:
        raise InvalidInput(f"{path} is not TOML: {error}", hint="see https://toml.io") from None
    if not isinstance(tables, list) or not tables:
        raise InvalidInput(
            f"there are no routes in {path}", hint='begin each with [[route]], then event = "…"'
        )
    routes = []
    for number, table in enumerate(tables, start=1):
        known = (
            isinstance(table, dict) and "event" in table and table.keys() <= {"event", "agent", "msg_type"}
        )
        if not known or not all(isinstance(value, str) for value in table.values()):
            raise InvalidInput(
                f"route {number} in {path} is not a route",
                hint="it has event, and perhaps agent and msg_type, as text",
            )
        routes.append(EventRoute(**table))
    return routes


def load_stripe() -> ModuleType:
    """Import the package `stripe`.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import stripe
    except ImportError:
        raise MissingExtra(
            "the package stripe is not installed",
            hint=f"{shlex.quote(sys.executable)} -m pip install 'stripe>=7.0'",
        ) from None
    module: ModuleType = stripe
    return module


def _is_signed(stripe: ModuleType, body: bytes, signature: str, secret: str, tolerance: int) -> bool:
    try:
        stripe.WebhookSignature.verify_header(body.decode("utf-8"), signature, secret, tolerance)
    except UnicodeDecodeError:
        return False
    except Exception as error:
        # Its class has moved from version to version.
        if type(error).__name__ == "SignatureVerificationError":
            return False
        raise
    return True


def _timestamp(signature: str) -> int:
    # Verified, so there is one; and as the package reads it, the first one counts.
    parts = (part.split("=", 2) for part in signature.split(","))
    return next(int(part[1]) for part in parts if part[0] == "t")


def _parsed(body: bytes) -> StripeEvent:
    try:
        payload = body.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput("the body is not UTF-8") from None
    try:
        decode_json(payload, "body")
    except InvalidInput as error:
        # One that is JSON, and that no message can have, is stored with the reason.
        if isinstance(error, NotJson) or not is_json(payload):
            raise InvalidInput("the body is not JSON") from None
    return StripeEvent(_named(payload, "id"), _named(payload, "type"), payload, _content(payload))


def _named(payload: str, name: str) -> str:
    # With two of them it is unclear which one counts.
    texts = [text for key, text in member_pairs(payload) if key == name]
    text = texts[0] if len(texts) == 1 else ""
    value = json.loads(text) if text.startswith('"') else ""
    if not 0 < len(value) <= _MOST_CHARACTERS or not value.isprintable():
        raise InvalidInput(f"the body is not an event of Stripe: it needs one {name}")
    return str(value)


def _content(payload: str) -> str:
    """Build the agents' content from the text of the event's members, so that numbers stay as Stripe wrote them.

    An event with a key twice is returned unchanged: it cannot be a message, and the check for that gives the reason.
    """
    try:
        texts = members(payload)
        request = members(texts.get("request", ""))
    except InvalidInput:
        return payload
    if request:
        # Whoever has this key can have the answer to your request to Stripe.
        request.pop("idempotency_key", None)
        texts["request"] = _object(request)
    texts.pop("source", None)
    first = {name: texts.pop(name) for name in _FIRST if name in texts}
    return _object({"source": '"stripe"', **first, **texts})


def _object(texts: dict[str, str]) -> str:
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in texts.items()) + "}"


def _load_toml() -> ModuleType:
    if sys.version_info >= (3, 11):
        import tomllib as toml
    else:
        import tomli as toml
    return toml
