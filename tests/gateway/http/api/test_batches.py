"""`POST /v1/batches`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.gateway.http.api.support import KEY, ask, token
from tests.support import Clock, RunningGateway, gateway, until
from ws_manager.gateway.http.api.batches import MOST_OF_A_TOKEN
from ws_manager.gateway.limits import Limits


async def answers(running: RunningGateway, *lines: object, bearer: str = "") -> list[Any]:
    """Send lines at once, and return the answers."""
    raw = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    answer = await ask(running, "POST", "/v1/batches", raw=raw.encode(), bearer=bearer or token())
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/x-ndjson"), answer
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_each_line_is_answered_in_order(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        running.ledger.connect("octavia", "ws-001", {"region": "us"})
        running.ledger.connect("cipher", "ws-002", {"region": "eu"})
        got = await answers(
            running,
            '{"to":"ws-001","content":1.10,"msg_type":"note"}',
            {"content": "all"},
            {"content": "one", "where": ["metadata.region=eu"]},
            {"content": "none", "agent": "nobody"},
        )
        assert [each["line"] for each in got] == [1, 2, 3, 4]
        assert all(each["ok"] for each in got)
        message = running.ledger.message(got[0]["msg_id"])
        assert message is not None
        assert (message.content, message.msg_type) == ("1.10", "note")
        assert [each["recipients"] for each in got[1:]] == [2, 1, 0]
        assert running.ledger.addressed(got[2]["broadcast_id"]) == ["ws-002"]


async def test_a_bad_line_gets_an_error_and_the_others_are_sent(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        running.ledger.connect("octavia", "ws-001")
        got = await answers(
            running,
            {"to": "nobody", "content": 1},
            "not JSON",
            {"to": "ws-001"},
            {"to": "ws-001", "content": 1, "agent": "octavia"},
            {"content": 1, "where": ["nonsense"]},
            json.dumps({"to": "ws-001", "content": "x" * 2_000_000}),
            "",
            {"to": "ws-001", "content": "good"},
        )
        assert [(each["line"], each["ok"]) for each in got] == [
            *((number, False) for number in range(1, 7)),
            (8, True),
        ]
        assert [each["error"]["code"] for each in got[:-1]] == ["not_found", *["invalid"] * 5]
        assert got[0]["error"]["message"] == "nobody is not active"
        assert running.ledger.stats()["total_messages"] == 1


async def test_lines_with_keys_are_sent_once(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        running.ledger.connect("octavia", "ws-001")
        lines = [{"to": "ws-001", "content": number, "key": f"k{number}"} for number in range(1200)]
        lines.append({"content": 1, "key": "b"})
        first = await answers(running, *lines)
        again = await answers(running, *lines)
        assert again == [{**each, "replayed": True} for each in first]
        (other,) = await answers(running, {"to": "ws-001", "content": "other", "key": "k1"})
        assert other["error"]["code"] == "key_reused"
        # The key is the one of the other routes.
        single = await ask(running, "POST", "/v1/messages", {"to": "ws-001", "content": 7}, key="k7")
        assert single.body["msg_id"] == first[7]["msg_id"]
        assert running.ledger.stats()["total_messages"] == 1201


async def test_a_line_has_its_own_trace_or_that_of_the_request(database: Path) -> None:
    own, its = (f"00-{'a' * 32}-{digit * 16}-01" for digit in "12")
    async with gateway(database, key=KEY) as running:
        running.ledger.connect("octavia", "ws-001")
        lines: list[dict[str, object]] = [
            {"to": "ws-001", "content": 1, "traceparent": own},
            {"to": "ws-001", "content": 2},
            {"to": "ws-001", "content": 3, "traceparent": "nonsense"},
            {"content": 4, "traceparent": own},
            {"content": 5},
        ]
        raw = "\n".join(map(json.dumps, lines)).encode()
        answer = await ask(running, "POST", "/v1/batches", raw=raw, headers={"traceparent": its})
        got = [json.loads(line) for line in answer.text.splitlines()]
        assert [each["ok"] for each in got] == [True, True, False, True, True]
        assert "traceparent" in got[2]["error"]["message"]
        rows = running.db.rows("SELECT content, traceparent FROM messages ORDER BY id")
        assert rows == [("1", own), ("2", its), ("4", own), ("5", its)]


@pytest.mark.parametrize(
    ("scope", "outcomes"), [("send", [True, False]), ("broadcast", [False, True]), ("read", None)]
)
async def test_each_line_needs_its_scope(database: Path, scope: str, outcomes: object) -> None:
    async with gateway(database, key=KEY) as running:
        running.ledger.connect("octavia", "ws-001")
        lines = {"to": "ws-001", "content": 1}, {"content": 1}
        if outcomes is None:
            assert (await ask(running, "POST", "/v1/batches", raw=b"{}", bearer=token(scope))).status == 403
            return
        got = await answers(running, *lines, bearer=token(scope))
        assert [each["ok"] for each in got] == outcomes


async def test_answers_come_while_lines_still_do(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        running.ledger.connect("octavia", "ws-001")
        more = asyncio.Event()

        async def lines() -> AsyncIterator[bytes]:
            yield b'{"to":"ws-001","content":1}\n{"to":"ws-0'
            await more.wait()
            yield b'01","content":2}'

        headers = {"Authorization": f"Bearer {token()}"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{running.url}/v1/batches", data=lines(), headers=headers) as response,
        ):
            assert json.loads(await response.content.readline())["line"] == 1
            assert running.ledger.stats()["total_messages"] == 1
            more.set()
            assert json.loads(await response.content.readline())["line"] == 2


async def test_a_token_that_is_too_fast_is_slowed_down(database: Path) -> None:
    limits = Limits(send_bytes_per_second=200_000)
    async with gateway(database, key=KEY, limits=limits) as running:
        running.ledger.connect("octavia", "ws-001")
        got = await answers(running, *[{"to": "ws-001", "content": "x" * 60_000}] * 5)
        assert [each["ok"] for each in got] == [True] * 5


async def test_a_batch_without_lines_is_refused(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        for raw in (b"", None):
            refused = await ask(running, "POST", "/v1/batches", raw=raw)
            assert (refused.status, refused.body["detail"]) == (400, "a batch has lines")


async def test_a_barred_agent_is_refused(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        running.ledger.bar("octavia")
        refused = await ask(running, "POST", "/v1/batches", raw=b"{}", bearer=token("send", agent="octavia"))
        assert refused.status == 403


async def test_lines_that_say_nothing_cost_too(database: Path) -> None:
    clock = Clock()
    async with gateway(database, key=KEY, now=clock, limits=Limits(send_bytes_per_second=100_000)) as running:
        running.ledger.connect("octavia", "ws-001")
        mine = token("send")
        # Each line costs as 200 bytes: 500 of them are free at the start, and the other 500 take a second.
        raw = b"\n" * 999 + b'{"to":"ws-001","content":1}'
        asking = asyncio.ensure_future(ask(running, "POST", "/v1/batches", raw=raw, bearer=mine))
        others = await ask(
            running, "POST", "/v1/messages", {"to": "ws-001", "content": 2}, bearer=token("send")
        )
        assert others.status == 201
        began = clock()

        def answered() -> bool:
            clock.forward(0.01)
            return asking.done()

        await until(answered)
        assert [json.loads(line)["line"] for line in (await asking).text.splitlines()] == [1000]
        assert clock() - began >= 0.9


async def test_batches_are_bounded_for_each_token(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        mine = token("send")
        more = asyncio.Event()

        async def lines() -> AsyncIterator[bytes]:
            yield b"\n"
            await more.wait()

        headers = {"Authorization": f"Bearer {mine}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            url = f"{running.url}/v1/batches"
            opened = [await session.post(url, data=lines()) for _ in range(MOST_OF_A_TOKEN)]
            refused = await ask(running, "POST", "/v1/batches", raw=b"{}", bearer=mine)
            assert (refused.status, refused.body["detail"]) == (503, "there are too many batches")
            assert (await ask(running, "POST", "/v1/batches", raw=b"{}", bearer=token("send"))).status == 200
            more.set()
            for each in opened:
                assert await each.read() == b""
