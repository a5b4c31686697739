"""Events of a test: as Stripe's, for the real package takes them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import stripe

from tests.stripe_support import SECRET
from ws_manager import InvalidInput
from ws_manager.errors import GatewayUnavailable
from ws_manager.stripe.events import verified
from ws_manager.stripe.trigger import SAMPLES, post_event, sample_event, signed

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


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that answers everything with one status and one body, at the address given."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, b'<p>the backend is "unrouted"</p>'),
        (503, b'{"status":"unrouted"}'),
        (503, b'{"code":"busy","detail":"\\"unrouted\\""}'),
        (200, b"<p>welcome</p>"),
        (200, b"[" * 100_000),
    ],
    ids=["page", "half", "error", "another server", "deep"],
)
def test_an_answer_that_only_has_the_words_of_a_gateway(
    status: int, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", SECRET)
    with (
        answering(status, body) as url,
        pytest.raises(GatewayUnavailable, match=r"not as a gateway does|refuses it"),
    ):
        post_event(url, sample_event("invoice.paid"))


def test_an_event_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", SECRET)
    told = {"event_id": "evt_1", "msg_type": "stripe_invoice", "agent": None, "status": "unrouted"}
    body = json.dumps({**told, "recipients": 0, "duplicate": False, "broadcast_id": None}).encode()
    with answering(503, body) as url:
        assert post_event(url, sample_event("invoice.paid")).status == "unrouted"
