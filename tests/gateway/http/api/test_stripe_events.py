"""`/v1/stripe-events` and `/v1/stripe-replays`."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import pytest

from tests.gateway.http.api.support import KEY, ask, token
from tests.stripe_support import event
from tests.support import RunningGateway, gateway
from ws_manager.core.webhooks import IncomingEvent
from ws_manager.forms import WEBHOOK_EVENT_FIELDS, WEBHOOK_OUTCOME_FIELDS
from ws_manager.stripe.events import content_of


def take(
    running: RunningGateway, event_id: str, agent: str = "billing", event_type: str = "invoice.paid"
) -> None:
    """An event that comes."""
    payload = event(event_type, event_id).decode()
    running.ledger.webhooks.take(
        IncomingEvent(event_id, event_type, payload, content_of(payload), agent, "stripe_invoice")
    )


async def listed(running: RunningGateway, query: str = "") -> tuple[list[str], Optional[str]]:
    answer = await ask(running, "GET", f"/v1/stripe-events{query}")
    assert answer.status == 200, answer
    return [item["event_id"] for item in answer.body["items"]], answer.body["next"]


async def test_events_are_listed_as_the_command_lists_them(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        take(running, "evt_1")
        running.ledger.connect("billing", "ws-1")
        take(running, "evt_2", event_type="charge.refunded")
        take(running, "evt_3", "octavia")
        assert await listed(running) == (["evt_3", "evt_2", "evt_1"], None)
        assert await listed(running, "?status=unrouted") == (["evt_3", "evt_1"], None)
        assert await listed(running, "?event=invoice.*") == (["evt_3", "evt_1"], None)
        assert await listed(running, "?since=1h&status=routed") == (["evt_2"], None)
        assert await listed(running, "?since=2999-01-01T00:00:00Z") == ([], None)
        assert await listed(running, "?limit=2") == (["evt_3", "evt_2"], "evt_2")
        assert await listed(running, "?limit=2&after=evt_2") == (["evt_1"], None)
        (routed,) = (await ask(running, "GET", "/v1/stripe-events?status=routed")).body["items"]
        assert tuple(routed) == WEBHOOK_EVENT_FIELDS
        assert (routed["event_type"], routed["recipients"], routed["agent"]) == (
            "charge.refunded",
            1,
            "billing",
        )
        for query, status in (("?after=evt_9", 404), ("?status=lost", 400), ("?limit=0", 400)):
            assert (await ask(running, "GET", f"/v1/stripe-events{query}")).status == status


async def test_events_that_wait_are_sent_and_arrive(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        take(running, "evt_1")
        take(running, "evt_2", "octavia")
        billing = await running.agent("billing", access_token=token("connect"))
        body = {"since": "1h"}
        would = await ask(running, "POST", "/v1/stripe-replays", {**body, "dry_run": True})
        assert [(item["status"], item["recipients"]) for item in would.body["items"]] == [
            ("routed", 1),
            ("unrouted", 0),
        ]
        assert would.body["dry_run"] is True
        done = await ask(running, "POST", "/v1/stripe-replays", body)
        assert (done.status, done.body["failed"], done.body["dry_run"]) == (200, [], False)
        first, second = done.body["items"]
        assert tuple(first) == WEBHOOK_OUTCOME_FIELDS
        assert (first["event_id"], first["status"], first["recipients"]) == ("evt_1", "routed", 1)
        assert (second["event_id"], second["status"], second["recipients"]) == ("evt_2", "unrouted", 0)
        message = await billing.message()
        assert (message["broadcast_id"], message["content"]["id"]) == (first["broadcast_id"], "evt_1")


async def test_one_that_cannot_be_sent_does_not_stop_the_others(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        take(running, "evt_1")
        running.ledger.connect("octavia", "ws-1")
        body = {"event_ids": ["evt_9", "evt_1", "evt_1"], "to": "octavia"}
        done = await ask(running, "POST", "/v1/stripe-replays", body)
        assert done.status == 200
        assert [(item["event_id"], item["agent"]) for item in done.body["items"]] == [("evt_1", "octavia")]
        assert [(each["event_id"], each["code"]) for each in done.body["failed"]] == [
            ("evt_9", "not_found"),
            ("evt_1", "conflict"),
        ]
        assert done.body["failed"][0]["detail"] == "no event evt_9"
        assert running.db.value("SELECT count(*) FROM messages") == 1


async def test_with_its_key_the_answer_is_the_same(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        take(running, "evt_1")
        body = {"event_ids": ["evt_1"]}
        first = await ask(running, "POST", "/v1/stripe-replays", body, key="k")
        running.ledger.connect("billing", "ws-1")
        again = await ask(running, "POST", "/v1/stripe-replays", body, key="k")
        assert (again.status, again.body, again.headers["Idempotency-Replayed"]) == (200, first.body, "true")
        other = await ask(running, "POST", "/v1/stripe-replays", {**body, "to": "octavia"}, key="k")
        assert (other.status, other.body["code"]) == (422, "key_reused")
        assert (await listed(running, "?status=unrouted"))[0] == ["evt_1"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"event_ids": ["evt_1"], "since": "1h"}, 422),
        ({"event_ids": [], "since": "1h"}, 400),
        ({"event_ids": ["evt_1"] * 1001}, 400),
    ],
)
async def test_what_is_to_be_sent_is_said_in_one_way(
    database: Path, body: dict[str, object], status: int
) -> None:
    async with gateway(database, key=KEY) as running:
        refused = await ask(running, "POST", "/v1/stripe-replays", body)
        assert (refused.status, refused.body["code"]) == (status, "invalid"), refused
