"""Stripe's webhooks in Python: verified with the real package, routed, and once."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import stripe

from tests.stripe_support import SECRET, event, signature
from ws_manager import (
    ConnectionPool,
    EventRoute,
    InvalidInput,
    InvalidSignature,
    MissingExtra,
    add_connection,
    broadcast,
    get_db,
    get_message_history,
    handle_stripe_webhook,
)
from ws_manager.repository.sqlite.database import Database
from ws_manager.stripe.events import (
    MAX_BODY,
    content_of,
    load_routes,
    parse_route,
    recommended_type,
    verified,
)

DOCUMENTED = {
    "payment_intent.succeeded": "stripe_payment",
    "payment_intent.payment_failed": "stripe_payment",
    "customer.subscription.created": "stripe_subscription",
    "customer.subscription.deleted": "stripe_subscription",
    "invoice.paid": "stripe_invoice",
    "invoice.payment_failed": "stripe_invoice",
    "charge.refunded": "stripe_event",
}


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", SECRET)


@pytest.fixture
def connected(pool: ConnectionPool) -> ConnectionPool:
    add_connection(pool, "ws-1", "billing")
    add_connection(pool, "ws-2", "mailer")
    return pool


def contents(db: Database) -> list[Any]:
    return [json.loads(message["content"]) for message in get_message_history(db)][::-1]


class TestHandle:
    def test_relays_to_everyone_with_the_documented_content(
        self, connected: ConnectionPool, db: Database
    ) -> None:
        body = event()
        outcome = handle_stripe_webhook(body, signature(body), pool=connected, db_conn=db)
        assert (outcome.status, outcome.recipients, outcome.msg_type) == ("routed", 2, "stripe_payment")
        assert contents(db)[0] == {
            "source": "stripe",
            "type": "payment_intent.succeeded",
            "data": {"object": {"id": "pi_1", "object": "payment_intent", "amount": 2000}},
            "id": "evt_1",
            "created": 1764000000,
            "livemode": False,
            "object": "event",
            "api_version": "2024-06-20",
            "pending_webhooks": 1,
            "request": {"id": None},
        }

    def test_hands_on_all_that_is_not_secret(self, connected: ConnectionPool, db: Database) -> None:
        body = event(account="acct_1", context="ctx", request={"id": "req_1", "idempotency_key": "key"})
        handle_stripe_webhook(body, signature(body), pool=connected)
        content = contents(db)[0]
        assert (content["account"], content["context"], content["request"]) == (
            "acct_1",
            "ctx",
            {"id": "req_1"},
        )

    def test_text_of_numbers_is_kept(self, connected: ConnectionPool, db: Database) -> None:
        body = event().replace(b"2000", b"20.00").replace(b"1764000000", b"17640e5")
        handle_stripe_webhook(body, signature(body), pool=connected)
        content = get_message_history(db, limit=1)[0]["content"]
        assert '"amount":20.00' in content
        assert '"created":17640e5' in content

    @pytest.mark.parametrize("value", [b"1e400", b"[" * 200 + b"]" * 200, b"9" * 5000, b'{"a":1,"a":1}'])
    def test_what_no_message_can_have_is_stored_with_the_reason(
        self, connected: ConnectionPool, db: Database, value: bytes
    ) -> None:
        body = event().replace(b"2000", value)
        outcome = handle_stripe_webhook(body, signature(body), pool=connected)
        assert (outcome.status, outcome.recipients) == ("unrouted", 0)
        assert outcome.reason
        stored = db.value("SELECT payload FROM webhook_events")
        assert stored == body.decode()
        with pytest.raises(InvalidInput):
            connected.ledger.webhooks.replay("evt_1", content_of)

    @pytest.mark.parametrize(
        ("part", "twice"),
        [(b'"livemode"', b'"livemode": true, "livemode"'), (b'"id": null', b'"id": null, "\\u0069d": null')],
        ids=["of the event", "of its request"],
    )
    def test_a_key_twice_is_stored_with_the_reason(
        self, connected: ConnectionPool, db: Database, part: bytes, twice: bytes
    ) -> None:
        body = event().replace(part, twice)
        assert body != event()
        outcome = handle_stripe_webhook(body, signature(body), pool=connected)
        assert outcome.status == "unrouted"
        assert "twice" in (outcome.reason or "")
        assert db.value("SELECT payload FROM webhook_events") == body.decode()
        with pytest.raises(InvalidInput, match="twice"):
            connected.ledger.webhooks.replay("evt_1", content_of)

    def test_thin_event_of_the_other_api(self, connected: ConnectionPool, db: Database) -> None:
        thin = {
            "id": "evt_1",
            "object": "v2.core.event",
            "type": "v1.billing.meter.error_report_triggered",
            "created": "2026-11-22T17:15:18.000Z",
            "related_object": {"id": "mtr_1", "type": "billing.meter"},
        }
        body = json.dumps(thin).encode()
        assert handle_stripe_webhook(body, signature(body), pool=connected).recipients == 2
        assert contents(db)[0] == {"source": "stripe", **thin}

    def test_opens_the_database_of_the_environment_by_itself(
        self, database: Path, connected: ConnectionPool, db: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BLACKROAD_WS_DB", str(database))
        body = event()
        assert handle_stripe_webhook(body, signature(body)).recipients == 2
        assert len(contents(db)) == 2

    def test_takes_a_connection_alone(self, connected: ConnectionPool, db: Database) -> None:
        body = event()
        assert handle_stripe_webhook(body, signature(body), db_conn=db).recipients == 2

    def test_delivers_inside_the_process_at_once(self, connected: ConnectionPool) -> None:
        received = []
        connected.attach("ws-1", lambda message: received.append(message.payload["id"]))
        body = event()
        handle_stripe_webhook(body, signature(body), pool=connected)
        assert received == ["evt_1"]

    def test_pool_and_connection_of_two_files_are_refused(
        self, connected: ConnectionPool, tmp_path: Path
    ) -> None:
        other = get_db(tmp_path / "other.db")
        body = event()
        with pytest.raises(InvalidInput):
            handle_stripe_webhook(body, signature(body), pool=connected, db_conn=other)
        other.close()

    def test_the_same_event_twice_is_one_broadcast(self, connected: ConnectionPool, db: Database) -> None:
        body = event()
        handle_stripe_webhook(body, signature(body), pool=connected)
        assert handle_stripe_webhook(body, signature(body), pool=connected).duplicate
        assert len(contents(db)) == 2

    @pytest.mark.parametrize(("event_type", "msg_type"), DOCUMENTED.items())
    def test_the_documented_types(self, connected: ConnectionPool, event_type: str, msg_type: str) -> None:
        body = event(event_type)
        assert handle_stripe_webhook(body, signature(body), pool=connected).msg_type == msg_type

    def test_the_first_route_that_matches_decides(self, connected: ConnectionPool, db: Database) -> None:
        routes = [EventRoute("payment_intent.*", "billing", "paid"), EventRoute("*", "mailer")]
        for number, event_type in enumerate(("payment_intent.succeeded", "invoice.paid")):
            body = event(event_type, f"evt_{number}")
            handle_stripe_webhook(body, signature(body), pool=connected, routes=routes)
        rows = db.rows("SELECT recipient_id, msg_type FROM messages ORDER BY id")
        assert rows == [("ws-1", "paid"), ("ws-2", "stripe_invoice")]

    def test_what_no_route_takes_goes_to_everyone(self, connected: ConnectionPool) -> None:
        body = event("charge.refunded")
        routes = [EventRoute("payment_intent.*", "billing")]
        assert handle_stripe_webhook(body, signature(body), pool=connected, routes=routes).recipients == 2


class TestRefusals:
    def refused(
        self, body: bytes, header: str, kind: type[Exception] = InvalidSignature, **options: Any
    ) -> str:
        with pytest.raises(kind) as error:
            handle_stripe_webhook(body, header, **options)
        told = str(error.value)
        assert SECRET not in told
        assert header not in told or not header
        return told

    def test_tampered_body(self) -> None:
        body = event()
        self.refused(body.replace(b"2000", b"9000"), signature(body))

    def test_another_secret(self) -> None:
        body = event()
        self.refused(body, signature(body, "whsec_of_somebody_else"))

    def test_too_old(self) -> None:
        body = event()
        self.refused(body, signature(body, at=time.time() - 301))

    def test_from_the_future(self) -> None:
        body = event()
        assert "future" in self.refused(body, signature(body, at=time.time() + 360))

    def test_from_over_300_seconds_in_the_future(self) -> None:
        now = int(time.time())
        body = event()
        header = signature(body, at=now + 300)
        assert verified(body, header, now=now).id == "evt_1"
        with pytest.raises(InvalidSignature, match="future"):
            verified(body, header, now=now - 1)

    def test_a_clock_that_is_a_little_wrong_is_no_reason(self, pool: ConnectionPool) -> None:
        for number, skew in enumerate((-250, 250)):
            body = event(event_id=f"evt_{number}")
            handle_stripe_webhook(body, signature(body, at=time.time() + skew), pool=pool)

    @pytest.mark.parametrize(
        "header", ["", "t=1", "v1=00", "t=x,v1=00", "nonsense", "t=,v1=", "t=1,v1=" + "0" * 64, "\udc80"]
    )
    def test_header_that_is_none(self, header: str) -> None:
        self.refused(event(), header)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"no JSON",
            b"[]",
            b"null",
            b"{}",
            b'{"id":"evt_1"}',
            b"[" * 100_000,
            b'{"data":{},"id":1,"type":"x"}',
            b'{"data":{},"id":"evt_1","id":"evt_2","type":"x"}',
            b'{"data":{},"id":"evt_1","type":"x","\\u0074ype":"y"}',
        ],
    )
    def test_signed_and_no_event(self, body: bytes) -> None:
        self.refused(body, signature(body), InvalidInput)

    @pytest.mark.parametrize("changes", [{"event_id": ""}, {"event_id": "e" * 256}, {"event_type": "a\nb"}])
    def test_id_or_type_that_are_none(self, changes: dict[str, str]) -> None:
        body = event(**changes)
        self.refused(body, signature(body), InvalidInput)

    def test_not_utf_8(self) -> None:
        self.refused(b"\xff\xfe", signature(b"x"))

    def test_too_large(self) -> None:
        body = event(padding="x" * MAX_BODY)
        self.refused(body, signature(body), InvalidInput)

    @pytest.mark.parametrize("secret", [f'"{SECRET}"', f"'{SECRET}'", f'{SECRET}"'])
    def test_a_secret_in_quotes_is_named(self, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", secret)
        with pytest.raises(InvalidSignature) as error:
            handle_stripe_webhook(event(), signature(event()))
        assert "is in quotes" in str(error.value.hint)

    def test_without_a_secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("STRIPE_WEBHOOK_SECRET")
        assert "no secret" in self.refused(event(), signature(event()), InvalidInput)

    def test_without_the_package_it_says_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "stripe", None)
        with pytest.raises(MissingExtra) as error:
            handle_stripe_webhook(b"", "")
        assert "-m pip install" in str(error.value.hint)


class TestRotation:
    def test_a_body_signed_with_two_secrets(self, pool: ConnectionPool) -> None:
        body = event()
        handle_stripe_webhook(body, signature(body, "whsec_of_before", SECRET), pool=pool)

    @pytest.mark.parametrize("signed_with", [SECRET, "whsec_of_after"])
    def test_two_secrets_in_the_environment(
        self, pool: ConnectionPool, signed_with: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", f"{SECRET}, whsec_of_after")
        body = event()
        handle_stripe_webhook(body, signature(body, signed_with), pool=pool)

    @pytest.mark.parametrize("secret", [SECRET, ["whsec_of_after", SECRET]])
    def test_secrets_as_an_argument(
        self, pool: ConnectionPool, secret: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("STRIPE_WEBHOOK_SECRET")
        body = event()
        handle_stripe_webhook(body, signature(body), pool=pool, secret=secret)


class TestRoutes:
    @pytest.mark.parametrize(
        ("text", "route"),
        [
            ("payment_intent.*=billing", EventRoute("payment_intent.*", "billing")),
            ("invoice.paid=billing:paid", EventRoute("invoice.paid", "billing", "paid")),
            ("*=*", EventRoute("*")),
            ("*=*:anything", EventRoute("*", None, "anything")),
        ],
    )
    def test_are_written_as_pattern_agent_and_type(self, text: str, route: EventRoute) -> None:
        assert parse_route(text) == route

    @pytest.mark.parametrize(
        "text", ["", "billing", "=billing", "invoice.*=", "a=b:", "a=" + "x" * 129, "a=b\n"]
    )
    def test_what_is_none_is_invalid(self, text: str) -> None:
        with pytest.raises(InvalidInput):
            parse_route(text)

    def test_come_from_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "routes.toml"
        path.write_text(
            '[[route]]\nevent = "invoice.*"\nagent = "billing"\nmsg_type = "invoice"\n\n[[route]]\nevent = "*"\n'
        )
        assert load_routes(path) == [EventRoute("invoice.*", "billing", "invoice"), EventRoute("*")]

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "no TOML",
            "route = 1",
            "[[route]]\n",
            "[[route]]\nevent = 1\n",
            '[[route]]\nevent = "a"\nto = "b"\n',
        ],
    )
    def test_file_that_has_none_is_invalid(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "routes.toml"
        path.write_text(text)
        with pytest.raises(InvalidInput, match=r"routes\.toml"):
            load_routes(path)

    def test_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="cannot read"):
            load_routes(tmp_path / "routes.toml")

    def test_patterns_tell_capitals_apart(self) -> None:
        assert not EventRoute("invoice.*").takes("Invoice.paid")

    def test_every_type_has_a_recommended_one(self) -> None:
        assert {name: recommended_type(name) for name in DOCUMENTED} == DOCUMENTED


class TestDocumentedExamples:
    """The two examples of the documentation, on `broadcast`: a verified event's parts go in as they are."""

    def test_relay_to_every_agent(self, connected: ConnectionPool, db: Database) -> None:
        body = event()
        verified = stripe.Webhook.construct_event(body, signature(body), SECRET)
        addressed = broadcast(
            connected,
            db,
            {"source": "stripe", "type": verified["type"], "data": verified["data"]},
            msg_type="stripe_event",
        )
        assert addressed == ["ws-1", "ws-2"]
        assert contents(db)[0]["data"]["object"]["amount"] == 2000

    def test_target_one_agent(self, connected: ConnectionPool, db: Database) -> None:
        body = event()
        verified = stripe.Webhook.construct_event(body, signature(body), SECRET)
        assert verified["type"].startswith("payment_intent.")
        addressed = broadcast(
            connected,
            db,
            {"source": "stripe", "type": verified["type"], "data": verified["data"]},
            filter_fn=lambda c: c.agent == "billing",
            msg_type="stripe_payment",
        )
        assert addressed == ["ws-1"]
