"""Several gateways over one ledger in PostgreSQL, and a database that goes away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any, Callable

import aiohttp
import pytest

from tests.postgres import PASSWORD, Server
from tests.soak.line import Line
from tests.support import Clock, Closed, RawAgent, Refused, connect, until, within
from ws_manager import open_ledger
from ws_manager.core.ledger import Ledger
from ws_manager.gateway.limits import Limits
from ws_manager.gateway.options import GatewayOptions
from ws_manager.gateway.presence import LeaseTimes
from ws_manager.gateway.server import GatewayServer
from ws_manager.protocol.close_codes import CloseCode
from ws_manager.settings import DatabaseUrl

pytestmark = pytest.mark.long

TIMES = LeaseTimes(lasts=8.0, renewed=0.2, again=0.2, patience=1.0, given_up=2.5)
"""A lease that is short, but long enough for a machine that is busy."""

LONG = replace(TIMES, lasts=60.0, given_up=45.0)
CAUSE = "the ledger's database cannot be reached"
_AGENTS: list[RawAgent] = []


@pytest.fixture
def line(postgres: Server) -> Iterator[Line]:
    """A network between a gateway and the database."""
    line = Line(postgres.port)
    yield line
    line.close()


@pytest.fixture
def far(postgres: Server, postgres_url: str, line: Line) -> str:
    """The URL of the database behind that network."""
    return postgres_url.replace(f":{postgres.port}/", f":{line.port}/")


@pytest.fixture
def ledger(postgres_url: str) -> Iterator[Ledger]:
    """The ledger, by a way of its own."""
    with open_ledger(postgres_url) as ledger:
        yield ledger


@contextlib.asynccontextmanager
async def gateway(
    url: str, times: LeaseTimes = LONG, now: Callable[[], float] = time.monotonic
) -> AsyncIterator[GatewayServer]:
    """Run a gateway until the block ends."""
    options = GatewayOptions(
        DatabaseUrl(url),
        port=0,
        drain_seconds=0.0,
        limits=replace(Limits(), close_seconds=0.2),
        heartbeat_timeout=30.0,
    )
    server = GatewayServer(options, now, lease_times=times)
    stop: asyncio.Future[CloseCode] = asyncio.get_running_loop().create_future()
    ready = asyncio.Event()
    running = asyncio.ensure_future(server.run(stop, lambda _url: ready.set()))
    waiting = asyncio.ensure_future(ready.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        waiting.cancel()
        running.result()
    try:
        yield server
    finally:
        stop.set_result(CloseCode.GOING_AWAY)
        try:
            await within(running)
        finally:
            while _AGENTS:
                _AGENTS.pop().drop()
            # Transports close in the loop's next turns.
            for _ in range(3):
                await asyncio.sleep(0)


async def agent(server: GatewayServer, ws_id: str = "ws-001", **query: str) -> RawAgent:
    """Connect an agent, and read its greeting."""
    raw = await connect(server.url, {"agent": "octavia", "ws_id": ws_id, **query})
    _AGENTS.append(raw)
    raw.greeting = await raw.json()
    return raw


async def back(server: GatewayServer, ws_id: str = "ws-001", **query: str) -> RawAgent:
    """Connect an agent again, as agents do: until it is let in."""
    while True:
        try:
            return await agent(server, ws_id, **query)
        except Refused as refused:
            assert refused.status == 503
            await asyncio.sleep(0.05)


async def get(url: str, method: str = "GET", **options: Any) -> tuple[int, dict[str, Any]]:
    """Ask over HTTP, and return the status and the JSON of the answer."""
    async with aiohttp.ClientSession() as session, session.request(method, url, **options) as answer:
        return answer.status, await answer.json(content_type=None)


async def not_ready(server: GatewayServer) -> str:
    """Wait until `/readyz` says that the gateway cannot serve, and return why."""
    while True:
        status, answer = await get(f"{server.url}/readyz")
        if status == 503:
            return str(answer["detail"])


async def ready(server: GatewayServer) -> None:
    """Wait until `/readyz` says that the gateway serves."""
    while (await get(f"{server.url}/readyz"))[0] != 200:
        pass


def send(ledger: Ledger, content: object, ws_id: str = "ws-001") -> int:
    """Commit a message, and return its number."""
    message = ledger.send(ws_id, content)
    assert message is not None
    assert message.db_id is not None
    return message.db_id


def pending(ledger: Ledger, ws_id: str = "ws-001") -> int:
    """Return how many messages wait."""
    connection = ledger.find(ws_id)
    assert connection is not None
    return ledger.count_pending(connection)


async def test_a_short_absence_of_the_database(
    far: str, line: Line, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with gateway(far) as server:
        raw = await agent(server, ack="explicit")
        seq = send(ledger, "before")
        assert (await raw.message())["seq"] == seq
        async with aiohttp.ClientSession() as session:
            stream = await session.get(f"{server.url}/v1/events")
            line.cut()
            # It is confirmed while nobody can write it down.
            await raw.ack(seq)
            assert CAUSE in await within(not_ready(server))
            assert (await get(f"{server.url}/healthz"))[0] == 200
            status, answer = await get(
                f"{server.url}/v1/messages", "POST", json={"to": "ws-001", "content": "refused"}
            )
            assert (status, answer["code"], answer["detail"]) == (503, "busy", CAUSE)
            await raw.say(type="send", ref=1, to="ws-001", content="refused")
            error = (await raw.json())["error"]
            assert (error["code"], error["message"]) == ("busy", CAUSE)
            with pytest.raises(Refused, match=CAUSE):
                await agent(server, "ws-002")
            after = send(ledger, "meanwhile")
            assert pending(ledger) == 2
            line.mend(lost=True)
            # The same socket goes on.
            assert (await raw.message())["seq"] == after
            await raw.ack(after)
            await until(lambda: pending(ledger) == 0)
            await within(ready(server))
            status, answer = await get(
                f"{server.url}/v1/messages", "POST", json={"to": "ws-001", "content": "later"}
            )
            assert status == 201
            message = await raw.message()
            assert message["msg_id"] == answer["msg_id"]
            await raw.ack(message["seq"])
            # The stream of before goes on too.
            named = f'"msg_id":"{answer["msg_id"]}"'.encode()
            assert (await within(stream.content.readuntil(named))).endswith(named)
            stream.close()
    errors = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert all(record.name == "ws_manager.gateway" and record.exc_info is None for record in errors)
    assert PASSWORD not in caplog.text
    # Each part of the gateway says it once.
    assert len(errors) == len({record.getMessage().partition(",")[0] for record in errors})


async def test_a_gateway_that_cannot_renew_its_lease_closes_its_sockets_and_comes_back(
    far: str, line: Line, ledger: Ledger
) -> None:
    async with gateway(far, TIMES) as server:
        raw = await agent(server)
        line.cut()
        with pytest.raises(Closed) as closed:
            await raw.json()
        assert (closed.value.code, closed.value.reason) == (CloseCode.RESTARTING, CAUSE)
        with pytest.raises(Refused, match=CAUSE) as refused:
            await agent(server)
        assert refused.value.status == 503
        assert await within(not_ready(server)) == CAUSE
        assert (await get(f"{server.url}/healthz"))[0] == 200
        assert (await get(f"{server.url}/v1/stats"))[0] == 503
        seqs = [send(ledger, number) for number in range(3)]
        line.mend(lost=True)
        raw = await within(back(server, ack="explicit"))
        assert await raw.messages(3) == seqs
        await raw.ack(seqs[-1])
        await until(lambda: pending(ledger) == 0)
        await within(ready(server))


async def test_sockets_are_closed_before_another_gateway_may_take_them(
    far: str, line: Line, ledger: Ledger, postgres_url: str
) -> None:
    """All by one clock: this process's."""
    async with gateway(far, TIMES) as cut_off, gateway(postgres_url) as other:
        raw = await agent(cut_off)
        assert ledger._store.living_gateways() == {cut_off._id, other._id}
        line.swallow()

        async def closed() -> tuple[int, float]:
            return await raw.closed(), time.monotonic()

        async def taken() -> float:
            await until(lambda: ledger._store.living_gateways() == {other._id})
            return time.monotonic()

        (code, closed_at), ended_at = await asyncio.gather(closed(), taken())
        assert code == CloseCode.RESTARTING
        assert closed_at < ended_at
        assert len(cut_off._hub) == 0
        line.mend(lost=True)
        await within(ready(cut_off))
        assert ledger._store.living_gateways() == {cut_off._id, other._id}


async def test_a_network_that_swallows_everything(far: str, line: Line, ledger: Ledger) -> None:
    """What waits for the database when it happens goes on afterwards, on other sessions."""
    async with gateway(far, TIMES) as server:
        raw = await agent(server, ack="explicit")
        seq = send(ledger, "before")
        await raw.message()
        line.swallow()
        await raw.ack(seq)
        sending = asyncio.ensure_future(
            get(f"{server.url}/v1/messages", "POST", json={"to": "ws-001", "content": "lost"})
        )
        assert await raw.closed() == CloseCode.RESTARTING
        status, answer = await within(sending)
        assert (status, answer["code"]) == (503, "busy")
        line.mend(lost=True)
        raw = await within(back(server))
        # The receipt was kept, so what it confirms does not come again.
        assert raw.greeting["pending"] == 0
        seq = send(ledger, "after")
        assert (await raw.message())["seq"] == seq


async def test_a_socket_that_waits_for_its_backlog_is_closed_in_time_too(
    far: str, line: Line, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway(far, TIMES) as server:
        read, asked = server._pump.backlog, asyncio.Event()

        async def swallowed(*query: Any) -> Any:
            line.swallow()
            asked.set()
            return await read(*query)

        monkeypatch.setattr(server._pump, "backlog", swallowed)
        raw = await agent(server)
        await within(asked.wait())
        began = time.monotonic()
        assert await raw.closed() == CloseCode.RESTARTING
        # Long before another gateway may take it, and before a statement of the queue has run into its time limit.
        assert time.monotonic() - began < TIMES.lasts - 1
        line.mend(lost=True)
        monkeypatch.undo()
        await within(back(server))


async def test_a_process_that_was_suspended_closes_before_it_delivers(
    ledger: Ledger, postgres_url: str
) -> None:
    clock = Clock()
    # It renews nothing by itself in this test.
    async with gateway(postgres_url, replace(LONG, renewed=600.0), clock) as server:
        raw = await agent(server)
        clock.forward(120)
        send(ledger, "while it slept")
        with pytest.raises(Closed) as closed:
            await raw.json()
        assert closed.value.code == CloseCode.RESTARTING


async def test_a_lease_that_has_run_out_is_begun_again_without_the_old_sockets(
    ledger: Ledger, postgres_url: str
) -> None:
    """Such as that of a machine that slept, whose monotonic clock stood still."""
    import psycopg

    async with gateway(postgres_url, LONG) as server:
        raw = await agent(server)
        with psycopg.connect(postgres_url, autocommit=True) as session:
            session.execute("UPDATE ws_manager.leases SET until = clock_timestamp() - interval '1 s'")
        assert await raw.closed() == CloseCode.RESTARTING
        raw = await within(back(server))
        seq = send(ledger, "again")
        assert (await raw.message())["seq"] == seq
        assert ledger._store.living_gateways() == {server._id}


async def test_a_ws_id_moves_to_a_socket_at_another_gateway(ledger: Ledger, postgres_url: str) -> None:
    async with gateway(postgres_url) as first, gateway(postgres_url) as second:
        old = await agent(first, ack="explicit")
        seqs = [send(ledger, number) for number in range(20)]
        assert await old.messages(20) == seqs
        await old.ack(seqs[9])
        await until(lambda: pending(ledger) == 10)
        new = await agent(second, ack="explicit")
        assert new.greeting["resumed"]
        assert await old.closed() == CloseCode.REPLACED
        later = [send(ledger, number) for number in range(5)]
        # What the old one had confirmed does not come again, and the rest comes in order.
        assert await new.messages(15) == [*seqs[10:], *later]
        await new.ack(later[-1])
        await until(lambda: pending(ledger) == 0)


async def test_an_old_receipt_at_another_gateway_is_void(
    ledger: Ledger, postgres_url: str, far: str, line: Line
) -> None:
    async with gateway(far) as cut_off, gateway(postgres_url) as second:
        old = await agent(cut_off, ack="explicit")
        seq = send(ledger, "once or twice")
        await old.message()
        line.cut()
        await old.ack(seq)
        new = await agent(second, ack="explicit")
        assert (await new.message())["seq"] == seq
        line.mend(lost=True)
        # It learns of its successor when it can read again, and its receipt marks nothing.
        assert await old.closed() == CloseCode.REPLACED
        assert pending(ledger) == 1
        await new.ack(seq)
        await until(lambda: pending(ledger) == 0)


async def test_disconnect_closes_the_socket_wherever_it_is(ledger: Ledger, postgres_url: str) -> None:
    async with gateway(postgres_url) as first, gateway(postgres_url) as second:
        agents = [await agent(first, "ws-001"), await agent(second, "ws-002")]
        for ws_id in ("ws-001", "ws-002"):
            assert ledger.disconnect(ws_id)
        for each in agents:
            assert await each.closed() == CloseCode.DISCONNECTED


async def test_a_database_that_is_not_there_ends_the_start(far: str, line: Line) -> None:
    from ws_manager.errors import LedgerUnreachable

    line.cut()
    with pytest.raises(LedgerUnreachable) as raised:
        async with gateway(far):
            pass
    assert "cannot open postgresql://owner@127.0.0.1" in raised.value.message
    assert raised.value.hint is not None
    assert PASSWORD not in str(raised.value)
