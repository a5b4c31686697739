"""`POST /stripe/webhook` on a running gateway, over HTTP, with signatures of the real package."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Optional

import aiohttp
import pytest

from tests.stripe_support import SECRET, event, signature
from tests.support import RunningGateway, gateway, handshake, run
from ws_manager import get_message_history
from ws_manager.core.ledger import ledger_over
from ws_manager.gateway.http.stripe import PATH, StripeOptions
from ws_manager.gateway.limits import Limits
from ws_manager.stripe.events import MAX_BODY, EventRoute, content_of
from ws_manager.tokens import mint

KEY = b"the key of this test, not a secret"


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]
    headers: Any


class Stripe:
    """Posts to one gateway, as Stripe does."""

    def __init__(self, running: RunningGateway, http: aiohttp.ClientSession) -> None:
        self.running = running
        self._http = http

    async def post(
        self, body: bytes, header: Optional[str] = None, *, path: str = PATH, **headers: str
    ) -> Answer:
        """Post a body; `header` is its signature, made here unless it is given, and "" for none."""
        signed = signature(body) if header is None else header
        sent = {**({"Stripe-Signature": signed} if signed else {}), **headers}
        async with self._http.post(self.running.url + path, data=body, headers=sent) as response:
            text = await response.text()
            return Answer(
                response.status,
                json.loads(text) if "json" in response.content_type else {},
                response.headers,
            )


@asynccontextmanager
async def stripe(
    database: Path,
    *routes: EventRoute,
    secrets: tuple[str, ...] = (SECRET,),
    accept_unrouted: bool = False,
    **options: Any,
) -> AsyncIterator[Stripe]:
    """A gateway that takes events."""
    taking = StripeOptions(secrets, routes, accept_unrouted)
    async with gateway(database, stripe=taking, **options) as running:
        async with aiohttp.ClientSession() as http:
            yield Stripe(running, http)
        # aiohttp's client closes its connections in the loop's next turns.
        await asyncio.sleep(0)


class TestWhatNoMessageCanHold:
    @pytest.mark.parametrize("value", [b"1e400", b"[" * 200 + b"]" * 200, b"1" * 1001, b'{"a":1,"a":1}'])
    async def test_is_200_and_stored_with_the_reason(self, database: Path, value: bytes) -> None:
        async with stripe(database) as it:
            await it.running.agent()
            for _ in range(2):
                answer = await it.post(event().replace(b"2000", value))
                assert (answer.status, answer.body["status"]) == (200, "unrouted")
                assert answer.body["reason"]
            (row,) = ledger_over(it.running.db).webhooks.events()
            assert (row.status, row.reason) == ("unrouted", answer.body["reason"])
            assert it.running.db.value("SELECT count(*) FROM messages") == 0

    async def test_its_values_are_not_in_the_log(
        self, database: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)

        async with stripe(database) as it:
            await it.post(event().replace(b"2000", b'{"secret-key":1e4567,"secret-key":2}'))
        assert "4567" not in caplog.text
        assert "secret-key" not in caplog.text


class TestTaken:
    async def test_valid_event_is_200_and_reaches_the_agent(self, database: Path) -> None:
        async with stripe(database) as it:
            agent = await it.running.agent(ack="explicit")
            answer = await it.post(event())
            assert answer.status == 200
            assert answer.body.items() >= {"status": "routed", "recipients": 1, "duplicate": False}.items()
            message = await agent.message()
            assert (message["msg_type"], message["content"]["id"]) == ("stripe_payment", "evt_1")
            await agent.ack(message["seq"])
            await it.running.confirmed(message["seq"])

    async def test_needs_a_signature_and_no_token(self, database: Path) -> None:
        async with stripe(database, key=KEY) as it:
            _, writer, status = await handshake(
                it.running.url, f"agent=octavia&access_token={mint(KEY, 'octavia')}"
            )
            assert status == 101
            assert (await it.post(event())).status == 200
            writer.close()

    async def test_goes_where_its_route_says(self, database: Path) -> None:
        async with stripe(database, EventRoute("payment_intent.*", "billing", "paid")) as it:
            await it.running.agent("octavia", "ws-001")
            billing = await it.running.agent("billing", "ws-002")
            assert (await it.post(event())).body["recipients"] == 1
            assert (await billing.message())["msg_type"] == "paid"

    async def test_unknown_type_goes_to_everyone(self, database: Path) -> None:
        async with stripe(database, EventRoute("payment_intent.*", "billing")) as it:
            agent = await it.running.agent()
            assert (await it.post(event("radar.early_fraud_warning.created"))).status == 200
            assert (await agent.message())["msg_type"] == "stripe_event"

    async def test_two_signatures_during_a_rotation(self, database: Path) -> None:
        async with stripe(database) as it:
            await it.running.agent()
            body = event()
            assert (await it.post(body, signature(body, "whsec_old", SECRET))).status == 200

    async def test_two_secrets_during_a_rotation(self, database: Path) -> None:
        async with stripe(database, secrets=("whsec_new", SECRET)) as it:
            await it.running.agent()
            for number, secret in enumerate(("whsec_new", SECRET)):
                body = event(event_id=f"evt_{number}")
                assert (await it.post(body, signature(body, secret))).status == 200


class TestRefused:
    """Each is a 4xx, and nothing is stored."""

    def refused(
        self, database: Path, status: int, body: bytes, header: Optional[str], **headers: str
    ) -> None:
        async def scenario() -> None:
            async with stripe(database) as it:
                await it.running.agent()
                answer = await it.post(body, header, **headers)
                assert answer.status == status
                assert SECRET not in json.dumps(answer.body)
                assert it.running.ledger.webhooks.events() == []

        run(scenario())

    def test_tampered_body(self, database: Path) -> None:
        body = event()
        self.refused(database, 400, body.replace(b"2000", b"9000"), signature(body))

    def test_another_secret(self, database: Path) -> None:
        body = event()
        self.refused(database, 400, body, signature(body, "whsec_of_somebody_else"))

    def test_old_timestamp(self, database: Path) -> None:
        body = event()
        self.refused(database, 400, body, signature(body, at=time.time() - 301))

    def test_future_timestamp(self, database: Path) -> None:
        body = event()
        # A minute to spare: the gateway may begin late. The exact limit is tested with `verified`.
        self.refused(database, 400, body, signature(body, at=time.time() + 360))

    def test_missing_header(self, database: Path) -> None:
        self.refused(database, 400, event(), "")

    def test_body_that_is_not_json(self, database: Path) -> None:
        self.refused(database, 400, b"amount=2000", None)

    def test_300_kib(self, database: Path) -> None:
        self.refused(database, 413, event(padding="x" * 300 * 1024), None)

    def test_foreign_host(self, database: Path) -> None:
        self.refused(database, 403, event(), None, Host="evil.example.com")

    def test_page_of_a_foreign_origin(self, database: Path) -> None:
        self.refused(database, 403, event(), None, Origin="https://evil.example.com")

    async def test_256_kib_are_taken(self, database: Path) -> None:
        async with stripe(database) as it:
            await it.running.agent()
            body = event(padding="")
            body = body.replace(b'"padding": ""', b'"padding": "%s"' % (b"x" * (MAX_BODY - len(body))))
            assert len(body) == MAX_BODY
            assert (await it.post(body)).status == 200

    async def test_without_a_secret_there_is_no_such_address(self, database: Path) -> None:
        async with gateway(database) as running, aiohttp.ClientSession() as http:
            response = await http.post(running.url + PATH, data=event())
            response.close()
            assert response.status == 404


class TestOnce:
    async def test_the_same_event_50_times_at_once_is_one_broadcast(self, database: Path) -> None:
        async with stripe(database) as it:
            await it.running.agent()
            body = event()
            answers = await asyncio.gather(*(it.post(body) for _ in range(50)))
            assert {answer.status for answer in answers} == {200}
            assert sorted(answer.body["duplicate"] for answer in answers) == [False] + [True] * 49
            assert it.running.db.value("SELECT count(*) FROM messages") == 1
            assert it.running.db.value("SELECT count(*) FROM broadcasts") == 1

    async def test_what_replay_has_sent_is_not_sent_again(self, database: Path) -> None:
        async with stripe(database) as it:
            assert (await it.post(event())).status == 503
            await it.running.agent()
            assert it.running.ledger.webhooks.replay("evt_1", content_of).recipients == 1
            answer = await it.post(event())
            assert (answer.status, answer.body["duplicate"]) == (200, True)
            assert it.running.db.value("SELECT count(*) FROM messages") == 1


class TestNobodyListening:
    async def test_is_503_and_stored_and_delivered_when_it_comes_again(self, database: Path) -> None:
        async with stripe(database, EventRoute("payment_intent.*", "billing")) as it:
            await it.running.agent("octavia", "ws-001")
            refused = await it.post(event())
            assert (refused.status, refused.body["status"]) == (503, "unrouted")
            assert "Retry-After" in refused.headers
            assert it.running.ledger.webhooks.waiting() == ["evt_1"]
            assert (await it.post(event())).status == 503
            billing = await it.running.agent("billing", "ws-002")
            assert (await it.post(event())).status == 200
            assert (await billing.message())["content"]["id"] == "evt_1"
            assert (await it.post(event())).body["duplicate"]

    async def test_is_200_where_that_is_said_and_waits(self, database: Path) -> None:
        async with stripe(database, accept_unrouted=True) as it:
            answer = await it.post(event())
            assert (answer.status, answer.body["status"]) == (200, "unrouted")
            assert it.running.ledger.webhooks.waiting() == ["evt_1"]


class TestLedgerInTrouble:
    async def test_is_503_and_written_in_the_end(self, database: Path) -> None:
        async with stripe(database, limits=Limits(handshake_seconds=1)) as it:
            await it.running.agent()
            it.running.db.execute("BEGIN IMMEDIATE")
            refused = await it.post(event())
            it.running.db.execute("ROLLBACK")
            assert (refused.status, refused.body["code"]) == (503, "busy")
            assert str(database) not in json.dumps(refused.body)
            answer = await it.post(event())
            assert (answer.status, answer.body["duplicate"]) == (200, True)
            assert it.running.db.value("SELECT count(*) FROM messages") == 1


def test_no_secret_signature_or_card_data_is_logged(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario() -> list[str]:
        async with stripe(database) as it:
            await it.running.agent()
            body = event(
                data={"object": {"last4": "4242", "exp_year": 2031, "receipt_email": "j@example.com"}}
            )
            header = signature(body)
            assert (await it.post(body, header)).status == 200
            assert (await it.post(body + b" ", header)).status == 400
            assert (await it.post(b"{", None)).status == 400
            return [header.partition("v1=")[2]]

    signatures = asyncio.run(scenario())
    assert any("evt_1" in record.getMessage() for record in caplog.records)
    for secret in (SECRET, "4242", "2031", "j@example.com", *signatures):
        assert secret not in caplog.text


async def test_registry_is_the_gateways_own(database: Path) -> None:
    """A message of an event is one like any other: in the history, and shown."""

    async with stripe(database) as it:
        await it.running.agent()
        answer = await it.post(event())
        history = get_message_history(it.running.ledger)
        assert [row["msg_type"] for row in history] == ["stripe_payment"]
        assert it.running.db.value("SELECT broadcast_id FROM broadcasts") == answer.body["broadcast_id"]
