"""The HTTP API of real gateways that are killed and started again, and of several workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import aiohttp
import pytest

from tests.acceptance.processes import Program, command, gateway_with_tokens, running
from tests.support import LIMIT, connect
from ws_manager import open_ledger
from ws_manager.core.ledger import Ledger, ledger_over
from ws_manager.models import Receipt
from ws_manager.repository.sqlite.database import Database
from ws_manager.tokens import mint, signing_key, verify

COMMAND = [sys.executable, "-m", "ws_manager"]


def token(database: Path, *scopes: str, agent: str = "*") -> str:
    """A token of the gateway that runs, or ran."""
    key = signing_key(database, create=True)
    assert key is not None
    return mint(key, agent, scopes=scopes or ("admin",))


def as_bearer(token_of_it: str) -> aiohttp.ClientSession:
    """A session that gives a token with each request."""
    return aiohttp.ClientSession(headers={"Authorization": f"Bearer {token_of_it}"})


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def serving(database: Path, port: int) -> Iterator[Program]:
    """A gateway on one port, ready."""
    with running(*COMMAND, "--db", str(database), "serve", "--port", str(port)) as program:
        program.error_line("Ready: ")
        yield program


@pytest.fixture
def ledger(db: Database) -> Ledger:
    return ledger_over(db)


def test_the_same_key_is_one_message_also_after_the_gateway_was_killed(
    database: Path, db: Database, ledger: Ledger
) -> None:
    ledger.connect("octavia", "ws-001")
    headers = {"Authorization": f"Bearer {token(database)}", "Idempotency-Key": "the same"}
    body = {"to": "ws-001", "content": {"n": 1}}

    async def sent(url: str, count: int) -> list[str]:
        async with aiohttp.ClientSession(headers=headers) as session:

            async def one() -> str:
                async with session.post(f"{url}/v1/messages", json=body) as response:
                    assert response.status == 201, await response.text()
                    return str((await response.json())["msg_id"])

            return await asyncio.gather(*(one() for _ in range(count)))

    found: list[str] = []
    for _ in range(2):
        with gateway_with_tokens(database) as (program, url):
            found += asyncio.run(sent(url, 50))
            program.process.kill()
            program.wait()
    assert (len(found), len(set(found))) == (100, 1)
    assert db.value("SELECT count(*) FROM messages") == 1


async def events(url: str, bearer: str, last: Optional[str], count: int) -> tuple[list[Any], str]:
    """Hear events behind a cursor until `count` have come or the gateway is gone; return them and the last id."""
    headers = {"Authorization": f"Bearer {bearer}"}
    if last is not None:
        headers["Last-Event-ID"] = last
    heard: list[Any] = []
    fields: dict[str, str] = {}
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{url}/v1/events?kind=confirmed", headers=headers) as response,
        ):
            assert response.status == 200, await response.text()
            while len(heard) < count:
                line = (await asyncio.wait_for(response.content.readline(), LIMIT)).decode()
                if not line:
                    break
                if line != "\n":
                    name, _, value = line.rstrip("\n").partition(":")
                    fields[name] = value.strip()
                    continue
                # An event counts when it is whole.
                last = fields.get("id", last)
                if "data" in fields:
                    heard.append((fields["event"], json.loads(fields["data"])))
                fields = {}
    except aiohttp.ClientError:
        pass
    assert last is not None
    return heard, last


@pytest.mark.long
def test_a_stream_of_events_over_kills_misses_nothing_and_tells_nothing_twice(database: Path) -> None:
    port, kills, each = free_port(), 20, 150
    with open_ledger(database) as ledger:
        ledger.connect("octavia", "ws-001")
        bearer = token(database, "read")
        last: Optional[str] = ledger.feed.start()
        seen: list[int] = []
        sent: list[int] = []

        def confirm_some() -> None:
            seqs = []
            for number in range(each):
                message = ledger.send("ws-001", number)
                assert message is not None
                seqs.append(message.db_id or 0)
            # Several entries of the journal, one of them long.
            for some in (seqs[:1], seqs[1:4], seqs[4:]):
                ledger.delivery.settle([Receipt("ws-001", 1, some)])
            sent.extend(seqs)

        for number in range(kills):
            with serving(database, port) as program:
                confirm_some()
                wanted = len(sent) - len(seen)
                # It is killed in the middle of what it tells.
                heard, last = asyncio.run(
                    events(f"http://127.0.0.1:{port}", bearer, last, wanted - number % 3 * 40)
                )
                program.process.kill()
                program.wait()
                seen += [data["seq"] for kind, data in heard if kind == "confirmed"]
                assert "gap" not in {kind for kind, _ in heard}
        with serving(database, port):
            heard, _ = asyncio.run(events(f"http://127.0.0.1:{port}", bearer, last, len(sent) - len(seen)))
            seen += [data["seq"] for _, data in heard]
    assert seen == sent


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="several workers need Linux")
class TestWorkers:
    def test_a_barred_agent_is_sent_away_from_all_of_them(self, database: Path, db: Database) -> None:
        async def scene(url: str) -> None:
            bearer = token(database, "connect")
            agents = [
                await connect(url, {"agent": "octavia", "ws_id": f"ws-{number}", "access_token": bearer})
                for number in range(20)
            ]
            for agent in agents:
                agent.greeting = await agent.json()
            assert len({row[0] for row in db.rows("SELECT gateway FROM connections")}) == 2
            assert command(database, "bar", "octavia").returncode == 0
            assert [await agent.closed() for agent in agents] == [4003] * 20
            for agent in agents:
                agent.drop()

        with gateway_with_tokens(database, "--workers", "2") as (_, url):
            asyncio.run(scene(url))

    def test_metrics_and_readiness_speak_for_all_of_them(self, database: Path) -> None:
        async def asked(url: str, path: str, bearer: str) -> tuple[int, str]:
            async with (
                aiohttp.ClientSession(headers={"Authorization": f"Bearer {bearer}"}) as session,
                session.get(url + path) as response,
            ):
                return response.status, await response.text()

        async def scene(url: str) -> None:
            bearer = token(database, "connect", "read")
            named = {"agent": "octavia", "ack": "explicit"}
            agents = [
                await connect(url, {**named, "ws_id": f"ws-{number}", "access_token": bearer})
                for number in range(20)
            ]
            for agent in agents:
                agent.greeting = await agent.json()
            # Whichever of them answers.
            for _ in range(5):
                status, text = await asked(url, "/metrics", bearer)
                assert status == 200
                assert "\nws_manager_sockets 20.0\n" in text
                assert (await asked(url, "/readyz", bearer))[0] == 200
            with open_ledger(database) as ledger:
                ledger.broadcast({"n": 1})
            for agent in agents:
                await agent.ack((await agent.json())["seq"])
            deadline = time.monotonic() + LIMIT
            while "\nws_manager_messages_confirmed_total 20.0\n" not in text:
                assert time.monotonic() < deadline, text
                text = (await asked(url, "/metrics", bearer))[1]
            assert "\nws_manager_receipt_seconds_count 20.0\n" in text
            assert '\nws_manager_receipt_seconds_bucket{le="+Inf"} 20.0\n' in text
            for agent in agents:
                agent.drop()

        with gateway_with_tokens(database, "--workers", "2") as (_, url):
            asyncio.run(scene(url))

    def test_a_revoked_token_is_refused_by_all_of_them(self, database: Path) -> None:
        async def statuses(url: str, bearer: str) -> set[int]:
            found = set()
            for _ in range(10):
                async with (
                    aiohttp.ClientSession(headers={"Authorization": f"Bearer {bearer}"}) as session,
                    session.get(f"{url}/v1/connections") as response,
                ):
                    found.add(response.status)
            return found

        with gateway_with_tokens(database, "--workers", "2") as (_, url):
            bearer = token(database, "read")
            assert asyncio.run(statuses(url, bearer)) == {200}
            key = signing_key(database, create=False)
            assert key is not None
            assert command(database, "token", "--revoke", verify(key, bearer).jti or "").returncode == 0
            assert asyncio.run(statuses(url, bearer)) == {403}


def test_nothing_of_a_token_or_of_content_is_in_a_log(database: Path) -> None:
    async def asked(url: str, bearer: str) -> None:
        async with as_bearer(bearer) as session:
            for path, body in (
                ("/v1/messages", {"to": "ws-001", "content": "a secret"}),
                ("/v1/messages", {"to": "nobody", "content": "a secret"}),
                ("/v1/messages", {"to": "ws-001", "content": "a secret", "colour": "a secret"}),
                ("/v1/broadcasts", {"content": "a secret", "where": ["a secret"]}),
            ):
                async with session.post(f"{url}{path}?access_token_of=x", json=body):
                    pass
                async with session.post(f"{url}{path}", json=body):
                    pass
            async with session.get(f"{url}/v1/stats?access_token={bearer}"):
                pass
        async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/stats?access_token={bearer}x"):
            pass

    with gateway_with_tokens(database, "--log-level", "debug") as (program, url):
        with open_ledger(database) as ledger:
            ledger.connect("octavia", "ws-001")
        bearer = token(database)
        asyncio.run(asked(url, bearer))
        program.end()
        log = "\n".join(program.rest_of_errors())
    assert "a secret" not in log
    assert not any(part in log for part in bearer.split("."))
