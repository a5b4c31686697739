"""`/v1/snapshot`, `/v1/doctor` and `/v1/bars`."""

from __future__ import annotations

from pathlib import Path

from tests.gateway.http.api.support import KEY, ask, token
from tests.support import gateway
from ws_manager.models import Receipt


async def test_snapshot_is_a_frame_of_top(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        for number in range(3):
            running.ledger.connect("octavia", f"ws-{number}")
        running.ledger.connect("cipher", "ws-c")
        running.ledger.send("ws-1", {"secret": 1})
        whole = (await ask(running, "GET", "/v1/snapshot")).body
        assert (whole["active_connections"], whole["gateway_runs"], whole["gateway"]["url"]) == (
            4,
            True,
            running.url,
        )
        assert (whole["backlog"]["pending"], whole["sent_per_second"]) == (1, None)
        assert whole["connections"][0]["ws_id"] == "ws-1"
        assert whole["messages"][0]["content_start"] == '{"secret":1}'
        some = (await ask(running, "GET", "/v1/snapshot?agent=octavia&sort=age&limit=1")).body
        assert (some["matching_connections"], [row["ws_id"] for row in some["connections"]]) == (3, ["ws-0"])
        assert (await ask(running, "GET", "/v1/snapshot?sort=colour")).status == 400


async def test_snapshot_without_the_scope_content_has_none(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        running.ledger.connect("octavia", "ws-1")
        running.ledger.send("ws-1", {"secret": 1})
        shown = await ask(running, "GET", "/v1/snapshot", bearer=token("read"))
        assert (shown.status, shown.body["messages"][0]["content_start"]) == (200, None)
        assert "secret" not in shown.text


async def test_doctor_looks_at_the_ledger_that_the_gateway_holds(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        checks = {
            each["check"]: each["status"] for each in (await ask(running, "GET", "/v1/doctor")).body["checks"]
        }
        own = ("contents", "gateway") if isinstance(database, Path) else ("server", "gateways")
        assert {checks[check] for check in ("database", "schema", *own)} == {"ok"}
        # The gateway still holds it.
        assert running.ledger.running_gateway() is not None


async def test_unbarring_again_with_its_key_succeeds(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        assert (await ask(running, "PUT", "/v1/bars/octavia")).status == 201
        first = await ask(running, "DELETE", "/v1/bars/octavia", key="k")
        again = await ask(running, "DELETE", "/v1/bars/octavia", key="k")
        assert (first.status, again.status, first.body) == (200, 200, again.body)
        assert "Idempotency-Replayed" not in first.headers
        assert again.headers["Idempotency-Replayed"] == "true"
        assert (await ask(running, "DELETE", "/v1/bars/octavia")).status == 404


async def test_a_snapshot_counts_what_was_confirmed_since_an_earlier_one(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        running.ledger.connect("octavia", "ws-001")
        seqs = running.send_many(5)
        first = (await ask(running, "GET", "/v1/snapshot")).body
        assert first["confirmed"] is None
        running.ledger.delivery.settle([Receipt("ws-001", 1, seqs[:3])])
        second = (await ask(running, "GET", f"/v1/snapshot?after={first['cursor']}")).body
        assert second["confirmed"] == 3
        assert (await ask(running, "GET", f"/v1/snapshot?after={second['cursor']}")).body["confirmed"] == 0
        assert (await ask(running, "GET", "/v1/snapshot?after=nonsense")).body["confirmed"] is None


async def test_prune_with_its_key_says_again_what_it_has_deleted(database: Path) -> None:
    async with gateway(database, key=KEY) as running:

        def broadcast_long_ago() -> None:
            running.ledger.broadcast("to nobody")
            running.db.execute("UPDATE broadcasts SET sent_at = '2020-01-01T00:00:00.000000+00:00'")

        broadcast_long_ago()
        body = {"older_than": 86400}
        would = await ask(running, "POST", "/v1/prunes", {**body, "dry_run": True}, key="k")
        first = await ask(running, "POST", "/v1/prunes", body, key="k")
        assert would.body == {**first.body, "dry_run": True}
        assert (first.body["deleted"]["broadcasts"], first.body["dry_run"]) == (1, False)
        broadcast_long_ago()
        again = await ask(running, "POST", "/v1/prunes", body, key="k")
        assert (again.status, again.body, again.headers["Idempotency-Replayed"]) == (200, first.body, "true")
        assert running.db.value("SELECT count(*) FROM broadcasts") == 1
        reused = await ask(running, "POST", "/v1/prunes", {"older_than": 3600}, key="k")
        assert (reused.status, reused.body["code"]) == (422, "key_reused")


async def test_what_is_shown_has_json_and_not_its_text(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        running.ledger.connect("octavia", "ws-001", {"region": "us"})
        sent = running.ledger.send("ws-001", {"a": 1})
        assert sent is not None
        facts = (await ask(running, "GET", "/v1/show/ws-001")).body["facts"]
        assert facts["metadata"] == {"region": "us"}
        assert (await ask(running, "GET", f"/v1/show/{sent.msg_id}")).body["facts"]["content"] == {"a": 1}
