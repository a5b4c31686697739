"""Events of a test: what Stripe would send, signed with your own secret, and posted to a gateway.

The objects have the fields that https://docs.stripe.com/api documents, and values of Stripe's test mode.
"""

from __future__ import annotations

import http.client
import json
import secrets
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, Optional
from urllib.parse import urlsplit

from ws_manager.client.credentials import trust
from ws_manager.core.webhooks import WebhookOutcome
from ws_manager.errors import (
    Conflict,
    GatewayUnavailable,
    InvalidInput,
    InvalidSignature,
    NotAuthorised,
    WsManagerError,
)
from ws_manager.proxies import proxy_for, unreachable
from ws_manager.remedies import CHECK_URL_AND_PROXY, SERVE_PUBLIC_HOST
from ws_manager.settings import stripe_secrets
from ws_manager.stripe.events import load_stripe

PATH = "stripe/webhook"
_PATIENCE = 15.0
_LONGEST_ANSWER = 64 * 1024
_API_VERSION = "2024-06-20"


def sample_event(event_type: str, now: Optional[float] = None) -> dict[str, Any]:
    """Make an event as Stripe sends it.

    Args:
        event_type: one of `SAMPLES`.
        now: seconds since 1970; the present time if None.

    Raises:
        InvalidInput: there is no sample of that type.
    """
    make = SAMPLES.get(event_type)
    if make is None:
        raise InvalidInput(f"no sample of {event_type!r}", hint=f"one of {', '.join(SAMPLES)}")
    created = int(time.time() if now is None else now)
    return {
        "id": _id("evt"),
        "object": "event",
        "api_version": _API_VERSION,
        "created": created,
        "data": {"object": make(created)},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": _id("req"), "idempotency_key": None},
        "type": event_type,
    }


def signed(body: str, secret: str, now: Optional[float] = None) -> str:
    """Return the `Stripe-Signature` of a body.

    Raises:
        MissingExtra: the package `stripe` is not installed.
    """
    at = int(time.time() if now is None else now)
    signature: str = load_stripe().WebhookSignature._compute_signature(f"{at}.{body}", secret)
    return f"t={at},v1={signature}"


def post_event(
    url: str, event: dict[str, Any], ca: Optional[Path] = None, *, direct: bool = False
) -> WebhookOutcome:
    """Sign an event with the first secret in `STRIPE_WEBHOOK_SECRET`, and post it to a gateway.

    Args:
        url: the gateway's base address.
        event: as `sample_event` makes it.
        ca: PEM certificates to check an https gateway's with, instead of the system's.
        direct: never use a proxy; otherwise see `proxy_for`.

    Raises:
        InvalidInput: there is no secret, or the address or the proxy cannot be used.
        InvalidSignature: the gateway has another secret.
        NotAuthorised: the gateway is not served under this name.
        GatewayUnavailable: it does not answer, or takes no events, or what answers is not a gateway.
    """
    known = stripe_secrets()
    if not known:
        raise InvalidInput("STRIPE_WEBHOOK_SECRET is not set", hint="set it to what serve was started with")
    parts = urlsplit(url.replace("ws", "http", 1) if url.startswith("ws") else url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(f"not the address of a gateway: {url}", hint="for example http://127.0.0.1:8765")
    body = json.dumps(event, indent=2)
    request = urllib.request.Request(  # noqa: S310 - of the schemes above
        f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/{PATH}",
        body.encode("utf-8"),
        {"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": signed(body, known[0])},
    )
    proxy = None if direct else proxy_for(url)
    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.ProxyHandler({} if proxy is None else {parts.scheme: proxy})
    ]
    if ca is not None:
        handlers.append(urllib.request.HTTPSHandler(context=trust(ca)))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=_PATIENCE) as response:
            status, answer = response.status, response.read(_LONGEST_ANSWER)
    except urllib.error.HTTPError as error:
        with error:
            status, answer = error.code, error.read(_LONGEST_ANSWER)
    except (OSError, http.client.HTTPException) as error:
        raise unreachable(getattr(error, "reason", error), url, proxy) from None
    outcome = _outcome(answer, event)
    if outcome is None or status not in (200, 503):
        raise _refused(status, answer, url)
    return outcome


def _outcome(answer: bytes, event: dict[str, Any]) -> Optional[WebhookOutcome]:
    """Return the outcome of an event that a gateway has answered; None if the answer is not a gateway's."""
    try:
        outcome = json.loads(answer)
        return WebhookOutcome(
            outcome["event_id"],
            event["type"],
            outcome["msg_type"],
            outcome["agent"],
            outcome["status"],
            outcome["recipients"],
            outcome["duplicate"],
            outcome["broadcast_id"],
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _refused(status: int, answer: bytes, url: str) -> WsManagerError:
    try:
        problem = json.loads(answer)
        code, message = problem["code"], str(problem["detail"])
    except (ValueError, KeyError, TypeError, RecursionError):
        if status == 404:
            return GatewayUnavailable(
                f"the gateway at {url} takes no events of Stripe",
                hint="start it with STRIPE_WEBHOOK_SECRET in its environment",
            )
        return _not_a_gateway(url, str(status))
    if code == InvalidSignature.code:
        return InvalidSignature(
            "the gateway was started with another STRIPE_WEBHOOK_SECRET", hint="give both the same"
        )
    if status == 403:
        return NotAuthorised(f"the gateway refuses it: {message}", remedy=SERVE_PUBLIC_HOST)
    kind = {"conflict": Conflict, "invalid": InvalidInput}.get(code, GatewayUnavailable)
    return kind(f"the gateway refuses it: {message}", hint="its log says more")


def _not_a_gateway(url: str, status: str) -> GatewayUnavailable:
    """Return the error for an answer that is a proxy's, or of whatever else is there."""
    return GatewayUnavailable(
        f"{url} answered {status}, and not as a gateway does",
        remedy=CHECK_URL_AND_PROXY,
    )


def _id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


def _payment_intent(created: int, **changes: object) -> dict[str, Any]:
    return {
        "id": _id("pi"),
        "object": "payment_intent",
        "amount": 2000,
        "amount_capturable": 0,
        "amount_received": 2000,
        "capture_method": "automatic",
        "client_secret": None,
        "confirmation_method": "automatic",
        "created": created,
        "currency": "usd",
        "customer": _id("cus"),
        "description": "Subscription creation",
        "last_payment_error": None,
        "latest_charge": _id("ch"),
        "livemode": False,
        "metadata": {"order_id": "6735"},
        "payment_method": _id("pm"),
        "payment_method_types": ["card"],
        "receipt_email": "jenny.rosen@example.com",
        "status": "succeeded",
        **changes,
    }


def _failed_payment(created: int) -> dict[str, Any]:
    return _payment_intent(
        created,
        amount_received=0,
        payment_method=None,
        status="requires_payment_method",
        last_payment_error={
            "code": "card_declined",
            "decline_code": "insufficient_funds",
            "message": "Your card has insufficient funds.",
            "type": "card_error",
        },
    )


def _price() -> dict[str, Any]:
    return {
        "id": _id("price"),
        "object": "price",
        "active": True,
        "currency": "usd",
        "product": _id("prod"),
        "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"},
        "type": "recurring",
        "unit_amount": 2000,
    }


def _subscription(created: int, **changes: object) -> dict[str, Any]:
    subscription, month = _id("sub"), 30 * 86400
    return {
        "id": subscription,
        "object": "subscription",
        "billing_cycle_anchor": created,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "collection_method": "charge_automatically",
        "created": created,
        "currency": "usd",
        "current_period_end": created + month,
        "current_period_start": created,
        "customer": _id("cus"),
        "ended_at": None,
        "items": {
            "object": "list",
            "data": [
                {
                    "id": _id("si"),
                    "object": "subscription_item",
                    "price": _price(),
                    "quantity": 1,
                    "subscription": subscription,
                }
            ],
            "has_more": False,
        },
        "latest_invoice": _id("in"),
        "livemode": False,
        "metadata": {},
        "start_date": created,
        "status": "active",
        **changes,
    }


def _ended_subscription(created: int) -> dict[str, Any]:
    return _subscription(created, status="canceled", canceled_at=created, ended_at=created)


def _invoice(created: int, **changes: object) -> dict[str, Any]:
    return {
        "id": _id("in"),
        "object": "invoice",
        "amount_due": 2000,
        "amount_paid": 2000,
        "amount_remaining": 0,
        "attempt_count": 1,
        "attempted": True,
        "billing_reason": "subscription_cycle",
        "collection_method": "charge_automatically",
        "created": created,
        "currency": "usd",
        "customer": _id("cus"),
        "customer_email": "jenny.rosen@example.com",
        "livemode": False,
        "metadata": {},
        "number": "B9F4A7C1-0001",
        "status": "paid",
        "subtotal": 2000,
        "total": 2000,
        **changes,
    }


def _unpaid_invoice(created: int) -> dict[str, Any]:
    return _invoice(
        created, amount_paid=0, amount_remaining=2000, status="open", next_payment_attempt=created + 3 * 86400
    )


SAMPLES: dict[str, Callable[[int], dict[str, Any]]] = {
    "payment_intent.succeeded": _payment_intent,
    "payment_intent.payment_failed": _failed_payment,
    "customer.subscription.created": _subscription,
    "customer.subscription.deleted": _ended_subscription,
    "invoice.paid": _invoice,
    "invoice.payment_failed": _unpaid_invoice,
}
"""The types of which there are samples."""
