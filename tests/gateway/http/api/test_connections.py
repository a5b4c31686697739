"""`/v1/connections`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.http.api.support import KEY, ask, part, token
from tests.support import RunningGateway, gateway
from ws_manager.forms import CONNECTION_FIELDS
from ws_manager.gateway.http.api import connections


def three(running: RunningGateway) -> None:
    running.ledger.connect("octavia", "ws-001", {"region": "us"})
    running.ledger.connect("cipher", "ws-002", {"region": "eu"})
    running.ledger.connect("octavia", "ws-003")


async def ids(running: RunningGateway, query: str = "", **options: str) -> list[str]:
    answer = await ask(running, "GET", f"/v1/connections{query}", **options)  # type: ignore[arg-type]
    assert answer.status == 200, answer
    return [item["ws_id"] for item in answer.body["items"]]


async def test_list_filters_orders_and_pages(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        running.ledger.send("ws-003", 1)
        running.ledger.disconnect("ws-002")
        assert await ids(running) == ["ws-001", "ws-003"]
        assert await ids(running, "?status=all&sort=pending") == ["ws-003", "ws-001", "ws-002"]
        assert await ids(running, "?status=disconnected") == ["ws-002"]
        assert await ids(running, "?where=metadata.region=us&where=agent=octavia") == ["ws-001"]
        assert await ids(running, "?agent=cipher&status=all") == ["ws-002"]
        assert await ids(running, "?stale=0") == ["ws-001", "ws-003"]
        for sort in ("age", "pending", "idle", "sent", "agent"):
            seen, after = [], ""
            while True:
                page = await ask(running, "GET", f"/v1/connections?status=all&limit=1&sort={sort}{after}")
                seen += [item["ws_id"] for item in page.body["items"]]
                if page.body["next"] is None:
                    break
                after = f"&after={page.body['next']}"
            assert seen == await ids(running, f"?status=all&sort={sort}")


async def test_more_than_one_page_of_the_largest_size(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        with running.db.transaction():
            for number in range(1003):
                running.ledger.connect("octavia", f"ws-{number:04d}")
        first = await ask(running, "GET", "/v1/connections?limit=1000")
        assert (len(first.body["items"]), first.body["next"]) == (1000, "ws-0999")
        assert await ids(running, "?limit=1000&after=ws-0999") == ["ws-1000", "ws-1001", "ws-1002"]


async def test_one_has_every_field_and_says_whether_a_socket_is_open(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        await running.agent("octavia", "ws-001", access_token=token("connect"))
        running.ledger.connect("octavia", "ws-002", {"n": 1})
        running.ledger.send("ws-002", 1)
        open_one = await ask(running, "GET", "/v1/connections/ws-001")
        assert open_one.body["socket_open"] is True
        other = await ask(running, "GET", "/v1/connections/ws-002")
        assert tuple(other.body) == (*CONNECTION_FIELDS, "socket_open")
        assert (other.body["socket_open"], other.body["pending"], other.body["metadata"]) == (
            False,
            1,
            {"n": 1},
        )
        missing = await ask(running, "GET", "/v1/connections/nobody")
        assert (missing.status, missing.body["code"]) == (404, "not_found")


@pytest.mark.parametrize("ws_id", ["a/b", "a b", "ü", "a?b#c", "100%", "a%2Fb", "+", "a;b=c"])
async def test_names_in_a_path(database: Path, ws_id: str) -> None:
    async with gateway(database, key=KEY) as running:
        path = f"/v1/connections/{part(ws_id)}"
        made = await ask(running, "PUT", path, {"agent": "octavia"})
        assert (made.status, made.body["ws_id"]) == (201, ws_id)
        assert (await ask(running, "GET", path)).body["ws_id"] == ws_id


async def test_put_registers_and_reactivates(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        body = {"agent": "octavia", "metadata": {"a": 1.10}}
        assert (await ask(running, "PUT", "/v1/connections/ws-001", body)).status == 201
        running.ledger.disconnect("ws-001")
        again = await ask(running, "PUT", "/v1/connections/ws-001", {"agent": "octavia"})
        assert (again.status, again.body["status"], again.body["epoch"]) == (200, "active", 2)
        assert again.body["metadata"] == {"a": 1.1}
        own = token("connect", agent="cipher")
        taken = await ask(running, "PUT", "/v1/connections/ws-001", {"agent": "cipher"}, bearer=own)
        assert (taken.status, taken.body["code"]) == (409, "conflict")
        assert (await ask(running, "PUT", "/v1/connections/ws-001", {"agent": "cipher"})).status == 200


async def test_post_makes_one_for_each_key(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        first = await ask(running, "POST", "/v1/connections", {"agent": "octavia"}, key="k1")
        again = await ask(running, "POST", "/v1/connections", {"agent": "octavia"}, key="k1")
        assert (first.status, again.status) == (201, 201)
        assert first.body["ws_id"] == again.body["ws_id"]
        assert "Idempotency-Replayed" not in first.headers
        assert again.headers["Idempotency-Replayed"] == "true"
        other = await ask(running, "POST", "/v1/connections", {"agent": "octavia"})
        assert other.body["ws_id"] != first.body["ws_id"]
        reused = await ask(running, "POST", "/v1/connections", {"agent": "cipher"}, key="k1")
        assert (reused.status, reused.body["code"]) == (422, "key_reused")


async def test_delete_ends_one_and_its_repetition_succeeds_with_its_key(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        path = "/v1/connections/ws-001?reason=maintenance"
        assert (await ask(running, "DELETE", path, key="k")).body == {
            "ws_id": "ws-001",
            "status": "disconnected",
        }
        assert running.connection("ws-001").close_reason == "maintenance"
        assert (await ask(running, "DELETE", path, key="k")).status == 200
        assert (await ask(running, "DELETE", path)).status == 404
        assert (await ask(running, "DELETE", "/v1/connections/nobody")).status == 404


async def test_delete_many_needs_a_filter(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        assert (await ask(running, "DELETE", "/v1/connections")).status == 422
        dry = await ask(running, "DELETE", "/v1/connections?agent=octavia&dry_run=true")
        assert dry.body == {"ws_ids": ["ws-001", "ws-003"], "dry_run": True}
        assert running.ledger.count() == 3
        done = await ask(running, "DELETE", "/v1/connections?where=metadata.region=us")
        assert done.body == {"ws_ids": ["ws-001"], "dry_run": False}
        assert running.ledger.count() == 2


async def test_heartbeat(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        own = token("connect", agent="octavia")
        path = "/v1/connections/{}/heartbeat"
        assert (
            await ask(running, "POST", path.format("ws-001"), {"latency_ms": 12}, bearer=own)
        ).status == 200
        assert running.db.value("SELECT latency_ms FROM heartbeat_log") == 12
        assert (await ask(running, "POST", path.format("ws-002"), {}, bearer=own)).status == 404


async def test_named_ones_end_once_for_a_key(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        path = "/v1/connections?ws_id=ws-001&ws_id=ws-003&ws_id=nobody"
        assert (await ask(running, "DELETE", f"{path}&dry_run=true")).body["ws_ids"] == ["ws-001", "ws-003"]
        for replayed in (None, "true"):
            ended = await ask(running, "DELETE", path, key="k")
            assert (ended.body["ws_ids"], ended.headers.get("Idempotency-Replayed")) == (
                ["ws-001", "ws-003"],
                replayed,
            )
        assert (await ask(running, "DELETE", "/v1/connections?ws_id=ws-002", key="k")).status == 422
        assert await ids(running) == ["ws-002"]


async def test_a_heartbeat_for_an_earlier_registration_is_refused(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        path = "/v1/connections/ws-001/heartbeat"
        assert (await ask(running, "POST", path, {"epoch": 1})).status == 200
        running.ledger.connect("octavia", "ws-001")
        assert (await ask(running, "POST", path, {"epoch": 1})).status == 409


async def test_an_agents_own_token_registers_a_bounded_number(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MOST_OF_AN_AGENT", 2)
    async with gateway(database, key=KEY) as running:
        own, body = token("connect", agent="octavia"), {"agent": "octavia"}
        for ws_id, status in (("a", 201), ("b", 201), ("c", 409), ("b", 200)):
            answer = await ask(running, "PUT", f"/v1/connections/{ws_id}", body, bearer=own)
            assert answer.status == status
        assert (await ask(running, "PUT", "/v1/connections/c", body)).status == 201
        running.ledger.disconnect_all(["a", "c"])
        assert (await ask(running, "PUT", "/v1/connections/a", body, bearer=own)).status == 200
