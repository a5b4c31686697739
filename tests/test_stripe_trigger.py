"""Events of a test: as Stripe's, for the real package takes them."""

from __future__ import annotations

import json

import pytest
import stripe

from tests.stripe_support import SECRET
from ws_manager import InvalidInput
from ws_manager.stripe_events import verified
from ws_manager.stripe_trigger import SAMPLES, post_event, sample_event, signed

DOCUMENTED = [
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "customer.subscription.created",
    "customer.subscription.deleted",
    "invoice.paid",
    "invoice.payment_failed",
]


def test_there_is_one_of_every_documented_type() -> None:
    assert list(SAMPLES) == DOCUMENTED


@pytest.mark.parametrize("event_type", DOCUMENTED)
def test_the_real_package_takes_it(event_type: str) -> None:
    body = json.dumps(sample_event(event_type))
    event = stripe.Webhook.construct_event(body.encode(), signed(body, SECRET), SECRET)
    assert event["type"] == event_type
    assert event["data"]["object"]["object"] == event_type.split(".")[-2]


@pytest.mark.parametrize("event_type", DOCUMENTED)
def test_so_do_we(event_type: str) -> None:
    body = json.dumps(sample_event(event_type))
    assert verified(body.encode(), signed(body, SECRET), SECRET).type == event_type


def test_each_has_an_id_of_its_own() -> None:
    assert sample_event("invoice.paid")["id"] != sample_event("invoice.paid")["id"]


def test_of_another_type_there_is_none() -> None:
    with pytest.raises(InvalidInput, match="no sample"):
        sample_event("radar.early_fraud_warning.created")


def test_without_a_secret_nothing_is_posted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STRIPE_WEBHOOK_SECRET", raising=False)
    with pytest.raises(InvalidInput, match="STRIPE_WEBHOOK_SECRET"):
        post_event("http://127.0.0.1:1", sample_event("invoice.paid"))


@pytest.mark.parametrize("url", ["", "localhost:8765", "ftp://localhost", "http://"])
def test_what_is_no_address(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", SECRET)
    with pytest.raises(InvalidInput, match="not the address"):
        post_event(url, sample_event("invoice.paid"))
