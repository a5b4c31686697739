"""`/v1/events`: server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

import aiohttp
import pytest

from tests.gateway.http.api.support import KEY, ask, token
from tests.support import RunningGateway, gateway, within
from ws_manager.gateway.http.api import events
from ws_manager.models import Receipt
from ws_manager.tokens import verify


class Event(NamedTuple):
    """One event: its kind, its data and its id."""

    kind: str
    data: Any
    id: str


class Stream:
    """An open stream."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.last = ""

    async def block(self) -> dict[str, str]:
        """The fields of the next block."""
        fields: dict[str, str] = {}
        while True:
            line = (await within(self.response.content.readline())).decode()
            if not line:
                raise EOFError
            if line == "\n":
                return fields
            name, _, value = line.rstrip("\n").partition(":")
            fields[name] = value.lstrip(" ")

    async def next(self) -> Event:
        """The next event, comments left out."""
        while True:
            fields = await self.block()
            self.last = fields.get("id", self.last)
            if "data" in fields:
                return Event(fields["event"], json.loads(fields["data"]), fields["id"])


@contextlib.asynccontextmanager
async def stream(
    running: RunningGateway, query: str = "", *, bearer: Optional[str] = None, last: Optional[str] = None
) -> AsyncIterator[Stream]:
    """Open a stream that has begun."""
    headers = {"Authorization": f"Bearer {bearer or token('read')}"}
    if last is not None:
        headers["Last-Event-ID"] = last
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{running.url}/v1/events{query}", headers=headers) as response,
    ):
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"] == "text/event-stream"
        opened = Stream(response)
        first = await opened.block()
        assert first["retry"] == "1000"
        opened.last = first["id"]
        yield opened


def confirm(running: RunningGateway, ws_id: str, *seqs: int) -> None:
    """Confirm messages."""
    running.ledger.delivery.settle([Receipt(ws_id, running.connection(ws_id).epoch, seqs)])


async def test_tells_what_happens_from_now_on(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        running.ledger.connect("octavia", "ws-000")
        async with stream(running) as open_one:
            running.ledger.connect("octavia", "ws-001")
            event = await open_one.next()
            assert (event.kind, event.data["ws_id"], event.data["agent"]) == (
                "registered",
                "ws-001",
                "octavia",
            )
            sent = [running.send(number, "ws-001") for number in range(3)]
            confirm(running, "ws-001", *sent)
            told = [await open_one.next() for _ in sent]
            assert [(one.kind, one.data["seq"], one.data["ws_id"]) for one in told] == [
                ("confirmed", seq, "ws-001") for seq in sent
            ]
            running.ledger.disconnect("ws-001")
            assert (await open_one.next()).kind == "disconnected"


async def test_goes_on_behind_the_last_id_and_tells_nothing_twice(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        running.ledger.connect("octavia", "ws-001")
        async with stream(running) as first:
            seqs = [running.send(number, "ws-001") for number in range(1200)]
            confirm(running, "ws-001", *seqs)
            seen = [(await first.next()).data["seq"] for _ in range(701)]
            last = first.last
        async with stream(running, last=last) as second:
            seen += [(await second.next()).data["seq"] for _ in range(499)]
            assert seen == seqs
            confirm(running, "ws-001", running.send("more", "ws-001"))
            assert (await second.next()).data["seq"] == seqs[-1] + 1
            last = second.last
        async with stream(running, last=last) as third:
            running.ledger.disconnect("ws-001")
            assert (await third.next()).kind == "disconnected"


async def test_begins_at_a_time(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        running.ledger.connect("octavia", "ws-001")
        confirm(running, "ws-001", running.send(1, "ws-001"))
        async with stream(running, "?since=1h&kind=confirmed") as open_one:
            assert (await open_one.next()).data["seq"] == 1
        async with stream(running, "?since=1h") as open_one:
            assert [(await open_one.next()).kind for _ in range(2)] == ["registered", "confirmed"]


async def test_filters(database: Path) -> None:
    async with (
        gateway(database, key=KEY) as running,
        stream(running, "?agent=cipher") as of_agent,
        stream(running, "?ws_id=ws-001") as of_connection,
    ):
        for ws_id, agent in (("ws-001", "octavia"), ("ws-002", "cipher"), ("ws-003", "octavia")):
            running.ledger.connect(agent, ws_id)
        running.ledger.disconnect("ws-001")
        running.ledger.disconnect("ws-002")
        assert [(await of_agent.next()).data["ws_id"] for _ in range(2)] == ["ws-002", "ws-002"]
        assert [(await of_connection.next()).kind for _ in range(2)] == ["registered", "disconnected"]


@pytest.mark.sqlite_only("cursors that are numbers")
async def test_cursor_that_is_too_old_gets_a_gap_and_what_is_left(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        for number in range(5):
            running.ledger.connect("octavia", f"ws-{number}")
        running.db.execute("DELETE FROM events WHERE id <= 3")
        for last in ("0-0-0", "1-0-0", "99-0-0", "0-99-0", "nonsense"):
            async with stream(running, last=last) as open_one:
                assert (await open_one.next()).kind == "gap"
                again = open_one.last
                assert [(await open_one.next()).data["ws_id"] for _ in range(2)] == ["ws-3", "ws-4"]
            async with stream(running, last=again) as open_one:
                assert (await open_one.next()).data["ws_id"] == "ws-3"
        async with stream(running, last="3-0-0") as open_one:
            assert (await open_one.next()).data["ws_id"] == "ws-3"


async def test_token_of_an_agent_hears_of_its_own_only(database: Path) -> None:
    own_token = token("read", agent="octavia")
    async with gateway(database, key=KEY) as running, stream(running, bearer=own_token) as own:
        running.ledger.connect("cipher", "ws-hidden")
        running.ledger.connect("octavia", "ws-own")
        running.ledger.send("ws-hidden", 1, "data", "ws-hidden")
        to_own = running.ledger.send("ws-own", 2, "data", "ws-hidden")
        confirm(running, "ws-hidden", 1)
        confirm(running, "ws-own", 2)
        assert (await own.next()).data["ws_id"] == "ws-own"
        confirmed = await own.next()
        assert to_own is not None
        assert (confirmed.data["msg_id"], confirmed.data["ws_id"]) == (to_own.msg_id, "ws-own")


async def test_ends_for_a_barred_agent_and_a_revoked_token(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        barred, revoked = token("read", agent="octavia"), token("read")
        async with stream(running, bearer=barred) as one, stream(running, bearer=revoked) as other:
            running.ledger.bar("octavia")
            running.ledger.revoke(verify(KEY, revoked).key or "")
            assert await within(one.response.content.read()) == b""
            assert await within(other.response.content.read()) == b""


async def test_ends_when_the_gateway_stops(database: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with gateway(database, key=KEY) as running:
            open_one = await stack.enter_async_context(stream(running))
        assert await within(open_one.response.content.read()) == b""


async def test_streams_are_bounded(database: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(events, "MOST_OF_A_TOKEN", 2)
    async with gateway(database, key=KEY) as running:
        mine = token("read")
        async with stream(running, bearer=mine), stream(running, bearer=mine):
            refused = await ask(running, "GET", "/v1/events", bearer=mine)
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
            async with stream(running):
                pass
        await running.until(lambda: len(running.server._events) == 0)


async def test_idle_stream_gets_comments(database: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(events, "COMMENT_SECONDS", 0.0)
    monkeypatch.setattr(events, "_LOOK_SECONDS", 0.01)
    async with gateway(database, key=KEY) as running, stream(running) as open_one:
        fields = await open_one.block()
        assert (fields[""], fields["id"]) == ("", open_one.last)
        await asyncio.sleep(0)
