"""Two gateways over one ledger in PostgreSQL: each has the messages to its own sockets, and no others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from tests.support import Closed, RawAgent, RunningGateway, gateway
from ws_manager import open_ledger

pytest.importorskip("psycopg")
pytestmark = pytest.mark.long

from ws_manager.repository.postgres import changes  # noqa: E402 - psycopg is there
from ws_manager.repository.postgres.database import Database  # noqa: E402
from ws_manager.repository.postgres.messages import Messages  # noqa: E402
from ws_manager.repository.postgres.snapshots import Seen  # noqa: E402
from ws_manager.repository.records import Position, Reading  # noqa: E402


@pytest.fixture
def never_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody look without a hint."""
    monkeypatch.setattr(changes, "_SWEEP_SECONDS", 3600.0)


@pytest.fixture
def without_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose every hint. The sweep comes often, so that nobody waits for long."""
    monkeypatch.setattr(Database, "send_hint", lambda self, channels: None)
    monkeypatch.setattr(changes, "_SWEEP_SECONDS", 0.1)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """Every message that is read for a gateway: the gateway's id, and the recipient."""
    found: list[tuple[str, str]] = []
    after = Messages.after

    def noted(self: Messages, position: Position, limit: int) -> Reading:
        reading = after(self, position, limit)
        gateway_id = cast("Seen", position).gateway or ""
        found.extend((gateway_id, message.recipient_id) for message in reading.messages)
        return reading

    monkeypatch.setattr(Messages, "after", noted)
    yield found


@asynccontextmanager
async def two(url: str) -> AsyncIterator[tuple[RunningGateway, RunningGateway]]:
    """Two gateways over an empty ledger."""
    async with gateway(url) as one, gateway(url) as other:
        yield one, other


def send(url: str, ws_id: str, content: object) -> None:
    """What a command does that sends one message."""
    with open_ledger(url) as ledger:
        assert ledger.send(ws_id, content) is not None


async def contents(agent: RawAgent, count: int) -> list[Any]:
    """The contents of the next messages."""
    return [(await agent.message())["content"] for _ in range(count)]


async def test_everything_arrives_without_any_hint(postgres_url: str, without_hints: None) -> None:
    async with two(postgres_url) as (one, other):
        here, there = await one.agent(ws_id="ws-1"), await other.agent(ws_id="ws-2")
        for number in range(3):
            send(postgres_url, "ws-1", number)
            one.ledger.broadcast({"n": number})
        assert await contents(here, 6) == [0, {"n": 0}, 1, {"n": 1}, 2, {"n": 2}]
        assert await contents(there, 3) == [{"n": 0}, {"n": 1}, {"n": 2}]
        # The end of a registration too, whoever holds the socket.
        newer = await other.agent(ws_id="ws-1")
        assert await here.closed() == 4009
        one.ledger.disconnect("ws-1")
        assert await newer.closed() == 4010


async def test_a_command_wakes_the_gateway_that_has_the_socket(postgres_url: str, never_swept: None) -> None:
    async with two(postgres_url) as (one, other):
        here, there = await one.agent(ws_id="ws-1"), await other.agent(ws_id="ws-2")
        for number in range(3):
            await asyncio.to_thread(send, postgres_url, "ws-2", number)
            assert await contents(there, 1) == [number]
        # And the end of a registration that another gateway has taken over.
        await other.agent(ws_id="ws-1")
        assert await here.closed() == 4009


async def test_a_gateway_reads_no_message_of_another(
    postgres_url: str, readings: list[tuple[str, str]]
) -> None:
    async with two(postgres_url) as (one, other):
        here, there = await one.agent(ws_id="ws-1"), await other.agent(ws_id="ws-2")
        for number in range(5):
            one.ledger.broadcast(number)
            one.ledger.send("ws-2", number)
        assert len(await contents(here, 5) + await contents(there, 10)) == 15
        own = {one.server._id: "ws-1", other.server._id: "ws-2"}
        assert sorted(readings) == sorted(
            [*[(one.server._id, "ws-1")] * 5, *[(other.server._id, "ws-2")] * 10]
        )
        assert {own[gateway_id] for gateway_id, _ in readings} == {"ws-1", "ws-2"}


async def test_what_is_sent_in_the_moment_of_a_take_over_arrives_once(postgres_url: str) -> None:
    async with two(postgres_url) as gateways:
        # Nobody confirms: so each socket gets all that was sent so far, then what comes.
        agents = [await gateways[0].agent(pongs=False)]
        taken_over = threading.Event()

        def sender() -> int:
            with open_ledger(postgres_url) as ledger:
                # At most as many as may be in flight.
                number, left = 0, 3
                while number < 900 and left:
                    left -= taken_over.is_set()
                    ledger.send("ws-001", number)
                    number += 1
            return number

        sending = asyncio.ensure_future(asyncio.to_thread(sender))
        agents += [await gateways[number % 2].agent(pongs=False) for number in range(1, 26)]
        taken_over.set()
        assert await contents(agents[-1], await sending) == list(range(sending.result()))
        for agent in agents[:-1]:
            seen = []
            with pytest.raises(Closed, match="4009"):
                while True:
                    seen += await contents(agent, 1)
            assert seen == list(range(len(seen)))
