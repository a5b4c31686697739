"""`/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.http.api.support import KEY, ask, token
from tests.support import Clock, Refused, RunningGateway, gateway, within

TYPES = {
    "ws_manager_sockets": "gauge",
    "ws_manager_event_streams": "gauge",
    "ws_manager_connections": "gauge",
    "ws_manager_messages_committed": "counter",
    "ws_manager_messages_confirmed": "counter",
    "ws_manager_messages_set_aside": "counter",
    "ws_manager_messages_pending": "gauge",
    "ws_manager_messages_aside": "gauge",
    "ws_manager_oldest_pending_seconds": "gauge",
    "ws_manager_receipt_seconds": "histogram",
    "ws_manager_heartbeat_rtt_seconds": "histogram",
    "ws_manager_socket_closes": "counter",
    "ws_manager_handshake_refusals": "counter",
    "ws_manager_pump_lag_seconds": "gauge",
    "ws_manager_commit_seconds": "histogram",
    "ws_manager_wal_bytes": "gauge",
    "ws_manager_ledger_bytes": "gauge",
    "ws_manager_http_requests": "counter",
    "ws_manager_http_request_seconds": "histogram",
    "ws_manager_build_info": "gauge",
}


async def scraped(running: RunningGateway) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample: by its name, the values by the values of its labels."""
    answer = await ask(running, "GET", "/metrics", bearer=token("read"))
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


async def test_names_and_types(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        await ask(running, "GET", "/v1/stats")
        answer = await ask(running, "GET", "/metrics")
        families = {family.name: family for family in text_string_to_metric_families(answer.text)}
        assert {name: family.type for name, family in families.items()} == TYPES
        assert all(family.documentation for family in families.values())


async def test_count_what_happens(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        agent = await running.agent("octavia", "ws-001", ack="explicit", access_token=token("connect"))
        with pytest.raises(Refused):
            await running.agent("octavia", "ws-002", access_token="nonsense")
        first, second = running.send(), running.send()
        await agent.messages(2)
        await agent.ack(first)
        await agent.say(type="reject", seq=second, reason="no")
        await running.confirmed(first)
        await running.until(lambda: running.ledger.backlog().set_aside == 1)
        await running.server.settled()
        seen = await scraped(running)
        assert seen["ws_manager_sockets"] == {(): 1}
        assert seen["ws_manager_connections"] == {("active",): 1, ("disconnected",): 0}
        assert seen["ws_manager_messages_committed_total"] == {(): 2}
        assert seen["ws_manager_messages_confirmed_total"] == {(): 1}
        assert seen["ws_manager_messages_set_aside_total"] == {("rejected",): 1}
        assert seen["ws_manager_handshake_refusals_total"] == {("401",): 1}
        assert seen["ws_manager_commit_seconds_count"][()] >= 1
        await agent.say_goodbye()
        await running.until(lambda: not len(running.server._hub))
        assert (await scraped(running))["ws_manager_socket_closes_total"] == {("1000",): 1}


async def test_last_attempt_that_failed_is_counted_as_set_aside(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        agent = await running.agent(
            ack="explicit", worker="w-1", max_attempts="1", access_token=token("connect")
        )
        seq = running.send()
        await agent.message()
        await agent.say(type="started", ref=1, seq=seq)
        await agent.say(type="failed", ref=2, seq=seq, reason="exit code 1")
        # Counted when it is answered, which is later than the commit.
        while (await agent.json())["ref"] != 2:
            pass
        await running.server.settled()
        assert (await scraped(running))["ws_manager_messages_set_aside_total"] == {("failed",): 1}


@pytest.mark.parametrize("waits", [False, True], ids=["live", "backlog"])
async def test_time_a_message_to_its_receipt(database: Path, waits: bool) -> None:
    clock = Clock()
    async with gateway(database, key=KEY, now=clock, heartbeat_timeout=300) as running:
        if waits:
            running.offline()
            running.send()
        agent = await running.agent("octavia", "ws-001", ack="explicit", access_token=token("connect"))
        if not waits:
            running.send()
        (seq,) = await agent.messages(1)
        assert (await scraped(running))["ws_manager_receipt_seconds_count"] == {(): 0}
        clock.forward(20)
        await agent.ack(seq)
        await running.confirmed(seq)
        await running.server.settled()
        seen = await scraped(running)
        assert seen["ws_manager_receipt_seconds_sum"] == {(): 20}
        buckets = {bound: count for (bound,), count in seen["ws_manager_receipt_seconds_bucket"].items()}
        assert {bound for bound, count in buckets.items() if count == 0} == {
            bound for bound in buckets if float(bound) < 20
        }
        assert all(buckets[bound] == 1 for bound in ("30.0", "60.0", "300.0", "+Inf"))


async def test_count_the_streams_of_events(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        headers = {"Authorization": f"Bearer {token('read')}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            streams = [await within(session.get(running.url + "/v1/events")) for _ in range(2)]
            assert (await scraped(running))["ws_manager_event_streams"] == {(): 2}
            for stream in streams:
                stream.close()


async def test_no_label_is_made_up_by_a_client(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        for number in range(5):
            await ask(running, "GET", f"/nothing/{number}")
            await ask(running, "GET", f"/v1/connections/ws-{number}")
        requests = (await scraped(running))["ws_manager_http_requests_total"]
        assert requests == {
            ("GET", "", "404"): 5,
            ("GET", "/v1/connections/{ws_id}", "404"): 5,
        }


async def test_metrics_need_the_scope_read(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        assert (await ask(running, "GET", "/metrics", bearer="")).status == 401
        assert (await ask(running, "GET", "/metrics", bearer=token("send"))).status == 403


async def test_health_needs_no_token_but_a_host(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        for path in ("/healthz", "/readyz"):
            answer = await ask(running, "GET", path, bearer="")
            assert answer.status == 200, answer
            foreign = await ask(running, "GET", path, bearer="", headers={"Host": "evil.example"})
            assert foreign.status == 403


async def test_not_ready_while_the_ledger_cannot_be_written(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        running.server._receipts.failing = "the ledger cannot be written"
        answer = await ask(running, "GET", "/readyz", bearer="")
        assert (answer.status, answer.body["detail"]) == (503, "the ledger cannot be written")
        assert (await ask(running, "GET", "/healthz", bearer="")).status == 200
        running.server._receipts.failing = None
        running.server._access.closed = "the gateway waits: the disk is full"
        assert (await ask(running, "GET", "/readyz", bearer="")).body[
            "detail"
        ] == "the gateway waits: the disk is full"
