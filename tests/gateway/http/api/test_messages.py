"""`/v1/messages` and `/v1/broadcasts`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest
from multidict import CIMultiDict

from tests.gateway.http.api.support import KEY, ask, token
from tests.support import RunningGateway, gateway
from ws_manager.forms import BROADCAST_FIELDS, MESSAGE_FIELDS
from ws_manager.models import Rejection

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER_TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"


def three(running: RunningGateway) -> None:
    for ws_id, agent in (("ws-001", "octavia"), ("ws-002", "cipher"), ("ws-003", "octavia")):
        running.ledger.connect(agent, ws_id)


async def test_send_is_in_the_ledger_when_it_is_answered(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        raw = b'{"to":"ws-001","content":{"n":1.10,"text":"\xc3\xbc"},"msg_type":"note"}'
        sent = await ask(running, "POST", "/v1/messages", raw=raw)
        assert (sent.status, tuple(sent.body)) == (201, MESSAGE_FIELDS)
        assert sent.headers["Location"] == f"/v1/messages/{sent.body['msg_id']}"
        assert '"content":{"n":1.10,"text":"ü"}' in sent.text
        message = running.ledger.message(sent.body["msg_id"])
        assert message is not None
        assert (message.content, message.msg_type, message.sender_id) == (
            '{"n":1.10,"text":"ü"}',
            "note",
            None,
        )
        why = "pending: ws-001 was registered by a command: `receive` takes what is pending"
        assert (await ask(running, "GET", sent.headers["Location"])).body == {**sent.body, "why": why}


async def test_send_to_nobody_is_404_and_writes_nothing(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        refused = await ask(running, "POST", "/v1/messages", {"to": "nobody", "content": 1}, key="k")
        assert (refused.status, refused.body["detail"]) == (404, "nobody is not active")
        # A failure is not stored: the key is still free.
        running.ledger.connect("octavia", "nobody")
        assert (
            await ask(running, "POST", "/v1/messages", {"to": "nobody", "content": 1}, key="k")
        ).status == 201


@pytest.mark.parametrize(
    ("raw", "status", "param"),
    [
        (b"", 400, None),
        (b"[1]", 400, None),
        (b'{"to":"ws-001"}', 400, "content"),
        (b'{"content":1}', 400, "to"),
        (b'{"to":1,"content":1}', 400, "to"),
        (b'{"to":"ws-001","content":1,"colour":"red"}', 400, "colour"),
        (b'{"to":"ws-001","content":1,"content":2}', 400, None),
        (b'{"to":"ws-001","content":NaN}', 400, None),
        (b'{"to":"ws-001","content":"\xff"}', 400, None),
        (b'{"to":"ws-001","content":' + b"[" * 200 + b"]" * 200 + b"}", 400, None),
        (b'{"to":"ws-001","content":1,"msg_type":""}', 400, "msg_type"),
        (b'{"to":"ws-001","content":1,"msg_type":"\\n"}', 422, None),
        (b'{"to":"ws-001","content":"' + b"x" * 300_000 + b'"}', 413, None),
        (b'{"to":"ws-001","content":"' + b"x" * 3_000_000 + b'"}', 413, None),
    ],
)
async def test_bodies_that_cannot_be_accepted(database: Path, raw: bytes, status: int, param: str) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        refused = await ask(running, "POST", "/v1/messages", raw=raw)
        assert (refused.status, refused.body.get("param")) == (status, param), refused
        assert refused.headers["Content-Type"].startswith("application/problem+json")
        assert refused.body["status"] == status
        assert running.db.value("SELECT count(*) FROM messages") == 0


async def test_wait_ends_with_the_confirmation(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        agent = await running.agent("octavia", "ws-001", ack="explicit", access_token=token("connect"))
        body = {"to": "ws-001", "content": 1}
        asking = asyncio.ensure_future(ask(running, "POST", "/v1/messages?wait=20s", body))
        await agent.ack((await agent.message())["seq"])
        confirmed = await asking
        # The body is that of after the wait.
        assert (confirmed.status, confirmed.body["delivered"]) == (201, True)
        late = await ask(running, "POST", "/v1/messages?wait=10ms", body)
        assert late.status == 202
        aside = asyncio.ensure_future(ask(running, "POST", "/v1/messages?wait=20s", body))
        await agent.message()
        rejected = await agent.message()
        await agent.say(type="reject", seq=rejected["seq"], reason="no")
        rejection = await aside
        assert (rejection.status, rejection.body["reject_reason"]) == (202, "no")
        broadcast = asyncio.ensure_future(ask(running, "POST", "/v1/broadcasts?wait=20s", {"content": 1}))
        await agent.ack((await agent.message())["seq"])
        assert ((await broadcast).body["confirmed"], (await broadcast).body["pending"]) == (1, 0)


async def test_broadcast_to_those_that_fit(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        dry = await ask(running, "POST", "/v1/broadcasts?dry_run=true", {"content": 1, "agent": "octavia"})
        assert (dry.status, dry.body) == (
            200,
            {"recipients": 2, "ws_ids": ["ws-001", "ws-003"], "dry_run": True},
        )
        assert running.db.value("SELECT count(*) FROM messages") == 0
        body = {
            "content": {"event": "deploy"},
            "where": ["agent=octavia", "ws_id!=ws-001"],
            "msg_type": "note",
        }
        sent = await ask(running, "POST", "/v1/broadcasts", body)
        assert (sent.status, tuple(sent.body)) == (201, (*BROADCAST_FIELDS, "ws_ids"))
        assert (sent.body["ws_ids"], sent.body["recipients"], sent.body["msg_type"]) == (
            ["ws-003"],
            1,
            "note",
        )
        shown = await ask(running, "GET", sent.headers["Location"])
        assert [one["ws_id"] for one in shown.body["unconfirmed"]] == ["ws-003"]
        bad = await ask(running, "POST", "/v1/broadcasts", {"content": 1, "where": ["colour=red"]})
        assert bad.status == 422


async def test_fifty_at_once_with_one_key_are_one_message(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        body = {"to": "ws-001", "content": {"a": 1, "b": [2]}}
        answers = await asyncio.gather(
            *(ask(running, "POST", "/v1/messages", body, key="same") for _ in range(50))
        )
        assert {answer.status for answer in answers} == {201}
        assert len({answer.body["msg_id"] for answer in answers}) == 1
        assert sorted(answer.headers.get("Idempotency-Replayed", "") for answer in answers) == [
            "",
            *["true"] * 49,
        ]
        assert running.db.value("SELECT count(*) FROM messages") == 1
        # The same request, written otherwise.
        again = await ask(
            running, "POST", "/v1/messages", raw=b'{ "content": {"a":1, "b":[2]}, "to":"ws-001" }', key="same"
        )
        assert (again.status, again.body["msg_id"]) == (201, answers[0].body["msg_id"])
        other = await ask(running, "POST", "/v1/messages", {"to": "ws-001", "content": 2}, key="same")
        assert (other.status, other.body["code"]) == (422, "key_reused")
        # Another subject has keys of its own.
        own = token("send", agent="octavia")
        assert (await ask(running, "POST", "/v1/messages", body, key="same", bearer=own)).body[
            "msg_id"
        ] != again.body["msg_id"]


async def test_a_key_is_one_on_the_socket_and_over_http(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        own = token("connect", "send", "broadcast", agent="octavia", ws_id="ws-004")
        speaker = await running.agent(ws_id="ws-004", access_token=own)
        await speaker.say(type="send", ref=1, to="ws-002", content={"a": [1.50]}, key="one")
        await speaker.say(type="broadcast", ref=2, agent="cipher", content="all", key="many")
        sent, all_of_them = await speaker.json(), await speaker.json()
        body = {"to": "ws-002", "content": {"a": [1.50]}}
        again = await ask(running, "POST", "/v1/messages", body, key="one", bearer=own)
        assert again.body["msg_id"] == sent["msg_id"]
        body = {"agent": "cipher", "content": "all"}
        again = await ask(running, "POST", "/v1/broadcasts", body, key="many", bearer=own)
        assert again.body["broadcast_id"] == all_of_them["broadcast_id"]
        assert again.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("key", ["", "x" * 256, "ü"])
async def test_keys_that_cannot_be(database: Path, key: str) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        headers = {"Idempotency-Key": key}
        refused = await ask(running, "POST", "/v1/messages", {"to": "ws-001", "content": 1}, headers=headers)
        assert refused.status in (400, 422)


async def test_history_filters_and_pages(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        for number in range(5):
            running.ledger.send("ws-001", {"n": number}, "note" if number % 2 else "data", "ws-002")
        broadcast = running.ledger.broadcast("all")
        running.ledger.delivery.settle([Rejection("ws-001", 1, 1, "no")])

        async def seqs(query: str = "") -> list[int]:
            answer = await ask(running, "GET", f"/v1/messages{query}")
            assert answer.status == 200, answer
            return [item["seq"] for item in answer.body["items"]]

        assert await seqs() == [8, 7, 6, 5, 4, 3, 2, 1]
        assert await seqs("?ws_id=ws-001&type=note") == [4, 2]
        assert await seqs("?agent=cipher") == [7, 5, 4, 3, 2, 1]
        assert await seqs("?set_aside=true") == [1]
        assert await seqs("?pending=true&limit=2") == [8, 7]
        assert await seqs(f"?broadcast={broadcast.broadcast_id}") == [8, 7, 6]
        assert await seqs("?search=%22n%22:3") == [4]
        assert await seqs("?since=1h&before=2099-01-01T00:00:00Z") == [8, 7, 6, 5, 4, 3, 2, 1]
        assert await seqs("?before=2020-01-01T00:00:00Z") == []
        page = await ask(running, "GET", "/v1/messages?limit=3&ws_id=ws-001")
        assert page.body["next"] == "4"
        assert await seqs("?limit=3&ws_id=ws-001&after=4") == [3, 2, 1]
        assert (await ask(running, "GET", "/v1/messages?broadcast=nothing")).status == 404
        assert (await ask(running, "GET", "/v1/messages/nothing")).status == 404


async def test_broadcasts_page(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        sent = [running.ledger.broadcast(number).broadcast_id for number in range(5)]
        first = await ask(running, "GET", "/v1/broadcasts?limit=3")
        assert [item["broadcast_id"] for item in first.body["items"]] == sent[:1:-1]
        rest = await ask(running, "GET", f"/v1/broadcasts?limit=3&after={first.body['next']}")
        assert [item["broadcast_id"] for item in rest.body["items"]] == [sent[1], sent[0]]
        assert rest.body["next"] is None


async def test_retry_repeated_returns_the_same(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        for number in range(2):
            running.ledger.send("ws-001", number)
            running.ledger.delivery.settle([Rejection("ws-001", 1, number + 1, "no")])
        msg_id = (await ask(running, "GET", "/v1/messages?limit=1")).body["items"][0]["msg_id"]
        first = await ask(running, "POST", f"/v1/messages/{msg_id}/retry")
        again = await ask(running, "POST", f"/v1/messages/{msg_id}/retry")
        assert (first.status, again.status, first.body) == (201, 200, again.body)
        pending = (await ask(running, "GET", "/v1/messages?pending=true")).body["items"][0]["msg_id"]
        assert (await ask(running, "POST", f"/v1/messages/{pending}/retry")).status == 409
        all_of_them = await ask(running, "POST", "/v1/retries", {"agent": "octavia"})
        assert len(all_of_them.body["retried"]) == 1


def set_aside(running: RunningGateway, count: int) -> list[str]:
    """Messages of ws-001 that were rejected."""
    ids = []
    for number in range(count):
        sent = running.ledger.send("ws-001", number)
        assert sent is not None
        running.ledger.delivery.settle([Rejection("ws-001", 1, sent.db_id or 0, "no")])
        ids.append(sent.msg_id)
    return ids


async def test_retry_with_its_key_gives_the_same_answer(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        one, other = set_aside(running, 2)
        path = f"/v1/messages/{one}/retry"
        first = await ask(running, "POST", path, key="k")
        again = await ask(running, "POST", path, key="k")
        assert (first.status, again.status, first.body) == (201, 201, again.body)
        assert "Idempotency-Replayed" not in first.headers
        assert again.headers["Idempotency-Replayed"] == "true"
        # Under another key it was done before: that is answered as it is without a key, and said again too.
        for _ in range(2):
            known = await ask(running, "POST", path, key="k2")
            assert (known.status, known.body) == (200, first.body)
        reused = await ask(running, "POST", f"/v1/messages/{other}/retry", key="k")
        assert (reused.status, reused.body["code"]) == (422, "key_reused")


async def test_retries_with_their_key_send_nothing_more(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        ids = set_aside(running, 2)
        first = await ask(running, "POST", "/v1/retries", {"agent": "octavia"}, key="k")
        assert [each["retry_of"] for each in first.body["retried"]] == ids
        set_aside(running, 1)
        again = await ask(running, "POST", "/v1/retries", {"agent": "octavia"}, key="k")
        assert (again.status, again.body, again.headers["Idempotency-Replayed"]) == (200, first.body, "true")
        reused = await ask(running, "POST", "/v1/retries", {}, key="k")
        assert (reused.status, reused.body["code"]) == (422, "key_reused")
        new = await ask(running, "POST", "/v1/retries", {"agent": "octavia"}, key="k2")
        assert len(new.body["retried"]) == 1


async def test_replay_sends_any_message_again_to_any_connection(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        sent = running.ledger.send("ws-001", {"n": 1}, "note")
        assert sent is not None
        path = f"/v1/messages/{sent.msg_id}/replay"
        first = await ask(running, "POST", path, {"to": "ws-002"}, key="k")
        again = await ask(running, "POST", path, {"to": "ws-002"}, key="k")
        assert (first.status, again.status, first.body) == (201, 201, again.body)
        assert (first.body["retry_of"], first.body["ws_id"]) == (sent.msg_id, "ws-002")
        assert again.headers["Idempotency-Replayed"] == "true"
        shown = (await ask(running, "GET", first.headers["Location"])).body
        assert (shown["content"], shown["msg_type"], shown["recipient_id"], shown["retry_of"]) == (
            {"n": 1},
            "note",
            "ws-002",
            sent.msg_id,
        )
        assert (await ask(running, "POST", path, {"to": "ws-003"}, key="k")).body["code"] == "key_reused"
        assert (await ask(running, "POST", path, {"to": "nobody"})).status == 404
        assert (await ask(running, "POST", "/v1/messages/none/replay", {"to": "ws-002"})).status == 404
        assert running.db.value("SELECT count(*) FROM messages") == 2


async def test_oldest_first_follows_what_is_sent(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        running.ledger.send("ws-001", "before")
        start = await ask(running, "GET", "/v1/messages?order=oldest")
        assert start.body["items"] == []
        after = start.body["next"]
        waiting = asyncio.ensure_future(
            ask(running, "GET", f"/v1/messages?order=oldest&after={after}&wait=60s&ws_id=ws-002")
        )
        with running.db.transaction():
            for number in range(150):
                running.ledger.send("ws-002" if number % 2 else "ws-001", number)
        assert (await waiting).body["items"][0]["content"] == 1
        seen: list[int] = []
        while True:
            page = await ask(running, "GET", f"/v1/messages?order=oldest&after={after}&limit=40")
            if not page.body["items"]:
                break
            seen += [item["content"] for item in page.body["items"]]
            after = page.body["next"]
        assert seen == list(range(150))
        since = await ask(running, "GET", "/v1/messages?order=oldest&since=1h&limit=1")
        assert since.body["items"][0]["content"] == "before"
        refused = await ask(running, "GET", "/v1/messages?order=oldest&pending=true")
        assert refused.status == 422


async def test_an_operator_names_the_sender_and_nobody_else_does(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        body = {"to": "ws-001", "content": 1, "sender_id": "ws-002"}
        sent = await ask(running, "POST", "/v1/messages", body, key="k")
        assert sent.body["sender_id"] == "ws-002"
        other = await ask(running, "POST", "/v1/messages", {**body, "sender_id": "ws-003"}, key="k")
        assert other.status == 422
        broadcast = await ask(running, "POST", "/v1/broadcasts", {"content": 1, "sender_id": "ws-002"})
        assert broadcast.body["sender_id"] == "ws-002"
        for bearer in (token("send", "broadcast"), token("admin", agent="octavia")):
            for path, refused in (("messages", body), ("broadcasts", {"content": 1, "sender_id": "ws-002"})):
                answer = await ask(running, "POST", f"/v1/{path}", refused, bearer=bearer)
                assert (answer.status, answer.body["detail"]) == (
                    403,
                    "only an operator names another sender",
                )


async def test_a_key_of_another_sender_is_another_request(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        body = {"to": "ws-002", "content": 1}
        for path in ("messages", "broadcasts"):
            sent = body if path == "messages" else {"content": 1}
            first, second = (
                token("send", "broadcast", agent="octavia", ws_id=each) for each in ("ws-001", "ws-003")
            )
            assert (await ask(running, "POST", f"/v1/{path}", sent, key="k", bearer=first)).status == 201
            assert (await ask(running, "POST", f"/v1/{path}", sent, key="k", bearer=second)).status == 422


PLACES = [
    "x",
    "-1",
    "9223372036854775808",
    "1:2",
    "5:4://0/",
    "1:2:7//0/",
    "1:2:://0/",
    "1:2://0/yesterday",
    "0:0://0/",
]


@pytest.mark.parametrize("after", PLACES)
@pytest.mark.parametrize("order", ["oldest", "newest"])
async def test_what_is_no_place_is_refused(database: Path, after: str, order: str) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        answer = await ask(running, "GET", f"/v1/messages?order={order}&after={after}")
        assert answer.status == 422, answer


@pytest.mark.sqlite_only("places that are numbers")
@pytest.mark.parametrize("after", [3, 9223372036854775807])
async def test_a_place_that_is_not_reached_yet_stays(database: Path, after: int) -> None:
    async with gateway(database, key=KEY) as running:
        three(running)
        running.ledger.send("ws-001", 1)
        answer = await ask(running, "GET", f"/v1/messages?order=oldest&after={after}")
        assert answer.body == {"items": [], "next": str(after)}


SENDING = [("/v1/messages", {"to": "ws-001", "content": 1}), ("/v1/broadcasts", {"content": 1})]


@pytest.mark.parametrize(("path", "body"), SENDING)
@pytest.mark.parametrize(
    ("own", "header", "kept"),
    [
        (TRACEPARENT, None, TRACEPARENT),
        (None, TRACEPARENT, TRACEPARENT),
        (TRACEPARENT, OTHER_TRACEPARENT, TRACEPARENT),
        (None, f"cc{TRACEPARENT[2:]}-more", TRACEPARENT),
        (None, "nonsense", None),
        (None, f"{TRACEPARENT}, {TRACEPARENT}", None),
        (None, None, None),
    ],
)
async def test_a_trace_comes_from_the_body_or_else_from_the_header(
    database: Path, path: str, body: dict[str, object], own: str, header: str, kept: str
) -> None:
    async with gateway(database, key=KEY) as running:
        running.ledger.connect("octavia", "ws-001")
        headers = {} if header is None else {"Traceparent": header}
        sent = await ask(running, "POST", path, {**body, "traceparent": own}, headers=headers)
        assert (sent.status, sent.body["traceparent"]) == (201, kept)
        assert (await ask(running, "GET", sent.headers["Location"])).body["traceparent"] == kept
        listed = await ask(running, "GET", "/v1/messages")
        assert [item["traceparent"] for item in listed.body["items"]] == [kept]


async def test_two_headers_with_a_trace_are_ignored(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        running.ledger.connect("octavia", "ws-001")
        headers = CIMultiDict([("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)])
        headers["Authorization"] = f"Bearer {token()}"
        async with aiohttp.ClientSession(running.url) as session:
            body = {"to": "ws-001", "content": 1}
            async with session.post("/v1/messages", json=body, headers=headers) as response:
                assert (response.status, (await response.json())["traceparent"]) == (201, None)


@pytest.mark.parametrize(("path", "body"), SENDING)
@pytest.mark.parametrize("text", ["", "nonsense", f"ff{TRACEPARENT[2:]}", 1])
async def test_an_invalid_trace_in_a_body_is_refused(
    database: Path, path: str, body: dict[str, object], text: object
) -> None:
    async with gateway(database, key=KEY) as running:
        running.ledger.connect("octavia", "ws-001")
        refused = await ask(running, "POST", path, {**body, "traceparent": text})
        assert (refused.status, refused.body["code"], refused.body["param"]) == (
            400,
            "invalid",
            "traceparent",
        )
        assert running.db.value("SELECT count(*) FROM messages") == 0


@pytest.mark.parametrize(("path", "body"), SENDING)
async def test_a_repeated_request_may_be_another_span(
    database: Path, path: str, body: dict[str, object]
) -> None:
    async with gateway(database, key=KEY) as running:
        running.ledger.connect("octavia", "ws-001")
        first = await ask(running, "POST", path, body, key="k", headers={"traceparent": TRACEPARENT})
        again = await ask(running, "POST", path, body, key="k", headers={"traceparent": OTHER_TRACEPARENT})
        assert (again.status, again.body) == (201, first.body)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.body["traceparent"] == TRACEPARENT
