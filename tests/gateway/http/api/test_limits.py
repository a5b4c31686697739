"""How much a token may ask of the API, and what requests are refused for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.gateway.http.api.support import KEY, NOTHING, ask, token
from tests.support import PONG, Clock, gateway, until
from ws_manager.core.ledger import Ledger
from ws_manager.core.maintenance import Maintenance
from ws_manager.gateway.http.api import api
from ws_manager.gateway.limits import Limits
from ws_manager.tokens import mint


async def test_more_requests_than_a_token_may_make_are_429(database: Path) -> None:
    clock = Clock()
    async with gateway(database, key=KEY, now=clock, limits=Limits(requests_per_second=3)) as running:
        mine = token("read")
        answers = [await ask(running, "GET", "/v1/connections", bearer=mine) for _ in range(5)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
        assert answers[0].headers["RateLimit-Policy"] == '"requests";q=3;w=1'
        assert answers[0].headers["RateLimit"] == '"requests";r=2;t=1'
        assert (answers[3].body["code"], answers[3].headers["Retry-After"]) == ("busy", "1")
        assert (await ask(running, "GET", "/v1/connections", bearer=token("read"))).status == 200
        clock.forward(1)
        assert (await ask(running, "GET", "/v1/connections", bearer=mine)).status == 200


async def test_what_is_sent_is_charged_for_each_recipient(database: Path) -> None:
    clock = Clock()
    async with gateway(database, key=KEY, now=clock, limits=Limits(send_bytes_per_second=10_000)) as running:
        for number in range(10):
            running.ledger.connect("octavia", f"ws-{number}")
        mine, body = token("send", "broadcast"), {"content": "x" * 1000}
        assert (await ask(running, "POST", "/v1/broadcasts", body, bearer=mine)).status == 201
        refused = await ask(running, "POST", "/v1/broadcasts", body, bearer=mine)
        assert refused.status == 429
        assert running.db.value("SELECT count(*) FROM broadcasts") == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://example.com"}, 403),
        ({"Host": "example.com"}, 403),
        ({"Authorization": "Bearer nonsense"}, 401),
        ({"Authorization": "Basic eDp5"}, 401),
    ],
)
async def test_refused_as_handshakes_are(database: Path, headers: dict[str, str], status: int) -> None:
    async with gateway(database, key=KEY) as running:
        bearer = "" if "Authorization" in headers else None
        answer = await ask(running, "GET", "/v1/connections", bearer=bearer, headers=headers)
        assert answer.status == status, answer


async def test_several_tokens_are_refused(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        answer = await ask(running, "GET", f"/v1/connections?access_token={token()}")
        assert answer.status == 400


async def test_ledger_that_is_busy_is_503_and_the_request_can_be_sent_again(database: Path) -> None:
    async with gateway(database, key=KEY, limits=Limits(handshake_seconds=0.1)) as running:
        running.ledger.connect("octavia", "ws-001")
        running.db.execute("BEGIN IMMEDIATE")
        body = {"to": "ws-001", "content": 1}
        answer = await ask(running, "POST", "/v1/messages", body, key="k")
        running.db.execute("ROLLBACK")
        assert (answer.status, answer.body["code"], answer.headers["Retry-After"]) == (503, "busy", "1")
        while answer.status == 503:
            answer = await ask(running, "POST", "/v1/messages", body, key="k")
        assert answer.status == 201
        assert running.db.value("SELECT count(*) FROM messages") == 1


WHAT_TAKES_LONG = pytest.mark.parametrize(
    ("owner", "name", "method", "path", "body"),
    [
        (Ledger, "messages", "GET", "/v1/messages?search=x", NOTHING),
        (Maintenance, "prune", "POST", "/v1/prunes", {"older_than": 86400}),
    ],
)


@WHAT_TAKES_LONG
async def test_what_takes_long_does_not_delay_messages_and_receipts(
    database: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, method: str, path: str, body: Any
) -> None:
    asked, answered = threading.Event(), threading.Event()
    work = getattr(owner, name)

    def long(*arguments: Any, **options: Any) -> Any:
        asked.set()
        assert answered.wait(30)
        return work(*arguments, **options)

    monkeypatch.setattr(owner, name, long)
    async with gateway(database, key=KEY) as running:
        agent = await running.agent(pongs=False, access_token=token("connect", agent="octavia"))
        asking = asyncio.create_task(ask(running, method, path, body))
        try:
            assert await asyncio.get_running_loop().run_in_executor(None, asked.wait, 30)
            sent = await ask(running, "POST", "/v1/messages", {"to": "ws-001", "content": "now"})
            assert (await agent.message())["msg_id"] == sent.body["msg_id"]
            await agent.send(PONG, await agent.ping())
            await running.confirmed(sent.body["seq"])
        finally:
            answered.set()
        assert (await asking).status == 200


@WHAT_TAKES_LONG
async def test_what_takes_long_does_not_keep_the_gateway_from_stopping(
    database: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, method: str, path: str, body: Any
) -> None:
    asked = threading.Event()

    def endless(self: Any, *_: Any, **_options: Any) -> Any:
        db = self._store.db
        asked.set()
        return db.value(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        )

    monkeypatch.setattr(owner, name, endless)
    async with gateway(database, key=KEY) as running:
        asking = asyncio.create_task(ask(running, method, path, body))
        assert await asyncio.get_running_loop().run_in_executor(None, asked.wait, 30)
    # It has stopped: otherwise the test would never come here.
    with pytest.raises(aiohttp.ClientError):
        await asking


async def test_requests_that_wait_are_bounded_for_each_token(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "MOST_OF_A_TOKEN", 2)
    async with gateway(database, key=KEY) as running:
        mine, path = token("read"), "/v1/messages?order=oldest&wait=60s"
        waiting = [asyncio.ensure_future(ask(running, "GET", path, bearer=mine)) for _ in range(2)]
        await until(lambda: len(running.server._api._waits) == 2)
        refused = await ask(running, "GET", path, bearer=mine)
        assert (refused.status, refused.body["detail"]) == (503, "there are too many waiting requests")
        # Another's may, and what does not wait may too.
        running.ledger.connect("octavia", "ws-001")
        await until(lambda: running.ledger.send("ws-001", 1) and all(each.done() for each in waiting))
        assert [(await each).status for each in waiting] == [200, 200]
        assert (await ask(running, "GET", path.replace("60s", "1ms"), bearer=mine)).status == 200


async def test_a_client_that_has_gone_is_not_waited_for(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        asking = asyncio.ensure_future(ask(running, "GET", "/v1/messages?order=oldest&wait=60s"))
        await until(lambda: len(running.server._api._waits) == 1)
        asking.cancel()
        await until(lambda: len(running.server._api._waits) == 0)


@pytest.mark.parametrize("path", ["/v1/export", "/v1/backup", "/v1/events"])
async def test_a_stream_has_no_head(database: Path, path: str) -> None:
    async with gateway(database, key=KEY) as running:
        answer = await ask(running, "HEAD", path)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")


async def test_what_does_not_exist_is_a_problem_too(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        unknown = await ask(running, "GET", "/v1/message")
        assert (unknown.status, unknown.body["detail"]) == (404, "there is no such path")
        wrong = await ask(running, "PATCH", "/v1/messages")
        assert (wrong.status, wrong.body["hint"]) == (405, "use GET, POST")


class TestExpiry:
    """A token that expires in the middle."""

    async def test_of_a_wait(self, database: Path) -> None:
        clock = Clock()
        clock.seconds = 1_000_000.0
        async with gateway(database, key=KEY, clock=clock) as running:
            running.ledger.connect("octavia", "ws-001")
            short = mint(KEY, "*", scopes=["read", "content"], ttl=60, now=clock.seconds)
            path = "/v1/messages?order=oldest&wait=60s"
            asking = asyncio.ensure_future(ask(running, "GET", path, bearer=short))
            await until(lambda: len(running.server._api._waits) == 1)
            clock.forward(61)
            running.ledger.send("ws-001", "too late")
            assert (await asking).status == 401

    async def test_of_a_batch(self, database: Path) -> None:
        clock = Clock()
        clock.seconds = 1_000_000.0
        async with gateway(database, key=KEY, clock=clock) as running:
            running.ledger.connect("octavia", "ws-001")
            short = mint(KEY, "*", scopes=["send"], ttl=60, now=clock.seconds)
            more = asyncio.Event()

            async def lines() -> AsyncIterator[bytes]:
                yield b'{"to":"ws-001","content":1}\n'
                await more.wait()
                yield b'{"to":"ws-001","content":2}\n'

            headers = {"Authorization": f"Bearer {short}"}
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{running.url}/v1/batches", data=lines(), headers=headers) as response,
            ):
                assert b'"ok":true' in await response.content.readline()
                clock.forward(61)
                more.set()
                with pytest.raises(aiohttp.ClientError):
                    await response.read()
            assert running.ledger.stats()["total_messages"] == 1
