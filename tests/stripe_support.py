"""Events as Stripe posts them, signed by the real package."""

from __future__ import annotations

import json
import time
from typing import Any, Optional

import stripe

SECRET = "whsec_of_this_test"


def event(event_type: str = "payment_intent.succeeded", event_id: str = "evt_1", **changes: object) -> bytes:
    """The body of an event."""
    value: dict[str, Any] = {
        "id": event_id,
        "object": "event",
        "api_version": "2024-06-20",
        "created": 1764000000,
        "data": {"object": {"id": "pi_1", "object": "payment_intent", "amount": 2000}},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": event_type,
        **changes,
    }
    return json.dumps(value, indent=2).encode()


def signature(body: bytes, *secrets: str, at: Optional[float] = None) -> str:
    """The `Stripe-Signature` of a body: with a `v1` for each secret, as during a rotation."""
    when = int(time.time() if at is None else at)
    signed = [
        stripe.WebhookSignature._compute_signature(f"{when}.{body.decode()}", secret)
        for secret in secrets or (SECRET,)
    ]
    return ",".join([f"t={when}", *(f"v1={each}" for each in signed)])
