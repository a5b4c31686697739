"""AgentClient against the real gateway."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Callable, Union

import aiohttp
import pytest
from aiohttp import web

from tests.support import gateway, run, within
from ws_manager import add_connection
from ws_manager.client import agent as agent_module
from ws_manager.client.agent import AgentClient
from ws_manager.errors import Conflict, GatewayUnavailable, InvalidInput, NotAuthorised, NotFound
from ws_manager.protocol.frames import Connected, Received


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a backoff here."""
    monkeypatch.setattr(agent_module, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(agent_module, "LONGEST_DELAY", 0.008)


class Agent(AgentClient):
    """A client that notes what it is told about its connection."""

    def __init__(
        self,
        url: Union[str, Callable[[], str]],
        agent: str = "octavia",
        ws_id: str = "ws-001",
        jitter: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.greetings: list[Connected] = []
        self.lost: list[tuple[str, float]] = []
        self.changed = asyncio.Event()
        super().__init__(
            agent, url=url, ws_id=ws_id, on_connected=self._greeted_now, on_lost=self._lost_now, jitter=jitter
        )

    def _greeted_now(self, greeting: Connected) -> None:
        self.greetings.append(greeting)
        self.changed.set()

    def _lost_now(self, cause: str, delay: float) -> None:
        self.lost.append((cause, delay))
        self.changed.set()

    async def next(self) -> Received:
        """The next message."""
        return (await within(self.batch(1)))[0]

    async def connections(self, count: int) -> None:
        """Wait until it has connected so many times."""
        while len(self.greetings) < count:
            self.changed.clear()
            await within(self.changed.wait())

    async def losses(self, count: int) -> None:
        """Wait until it has noticed so many losses."""
        while len(self.lost) < count:
            self.changed.clear()
            await within(self.changed.wait())

    def cut(self) -> None:
        """Lose the connection."""
        assert self._websocket is not None
        assert self._websocket._response.connection is not None
        transport = self._websocket._response.connection.transport
        assert transport is not None
        transport.abort()


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def stand_in(handler: Callable[[web.Request], object]) -> AsyncIterator[str]:
    """An HTTP server that is no gateway of ours."""
    application = web.Application()
    application.router.add_get("/ws", handler)  # type: ignore[arg-type]
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class TestFirstConnection:
    def test_refused_port_is_unavailable(self) -> None:
        async def scenario() -> None:
            with pytest.raises(GatewayUnavailable):
                async with Agent(f"http://127.0.0.1:{free_port()}"):
                    pass

        run(scenario())

    def test_another_agents_ws_id_is_a_conflict(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running:
                running.offline("cipher", "ws-001")
                with pytest.raises(Conflict, match="another agent"):
                    async with Agent(running.url, "octavia", "ws-001"):
                        pass

        run(scenario())

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "localhost",
            "localhost:8765",
            "ftp://localhost",
            "http://",
            "http://localhost:99999",
            "http://[::1",
        ],
    )
    def test_bad_address_is_invalid(self, url: str) -> None:
        async def scenario() -> None:
            with pytest.raises(InvalidInput):
                async with Agent(url):
                    pass

        run(scenario())

    def test_bad_name_is_invalid(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running:
                with pytest.raises(InvalidInput):
                    async with Agent(running.url, "octavia", "a\nb"):
                        pass

        run(scenario())

    @pytest.mark.parametrize(
        ("status", "error"),
        [(401, NotAuthorised), (403, NotAuthorised), (404, GatewayUnavailable), (503, GatewayUnavailable)],
    )
    def test_other_refusal_is_an_error(self, status: int, error: type[Exception]) -> None:
        async def refuse(_: web.Request) -> web.Response:
            return web.Response(status=status)

        async def scenario() -> None:
            async with stand_in(refuse) as url:
                with pytest.raises(error):
                    async with Agent(url):
                        pass

        run(scenario())

    @pytest.mark.parametrize(
        "greeting", ["hello", "{}", '{"type":"connected"}', '{"type":"connected","ws_id":[]}']
    )
    def test_another_protocol_is_invalid(self, greeting: str) -> None:
        async def greet(request: web.Request) -> web.WebSocketResponse:
            websocket = web.WebSocketResponse()
            await websocket.prepare(request)
            await websocket.send_str(greeting)
            await websocket.receive()
            return websocket

        async def scenario() -> None:
            async with stand_in(greet) as url:
                with pytest.raises(InvalidInput):
                    async with Agent(url):
                        pass

        run(scenario())

    @pytest.mark.parametrize("scheme", ["http", "ws"])
    def test_address_may_be_of_either_scheme(self, database: Path, scheme: str) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, Agent(running.url.replace("http", scheme)) as client:
                assert client.greetings[0].ws_id == "ws-001"

        run(scenario())

    def test_ws_id_is_the_gateways_where_none_is_given(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, AgentClient("octavia", url=running.url) as client:
                assert client.ws_id is not None
                assert running.connection(client.ws_id).agent == "octavia"

        run(scenario())

    def test_metadata_is_registered(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running:
                client = AgentClient("octavia", url=running.url, ws_id="ws-001", metadata={"a": "ü&="})
                async with client:
                    assert running.connection().metadata == {"a": "ü&="}

        run(scenario())


class TestMessages:
    def test_ack_marks_as_delivered(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, Agent(running.url) as client:
                seq = running.send({"n": 1})
                message = await client.next()
                assert message.content == {"n": 1}
                await client.ack(message)
                await running.confirmed(seq)

        run(scenario())

    def test_without_ack_nothing_is_delivered(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running:
                async with Agent(running.url) as client:
                    running.send_many(3)
                    await client.next()
                await running.socket_ended()
                assert running.delivered() == []

        run(scenario())

    def test_reject_sets_aside(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, Agent(running.url) as client:
                running.send()
                await client.reject(await client.next(), "no")
                await running.until(
                    lambda: running.db.rows("SELECT reject_reason FROM messages") == [("no",)]
                )

        run(scenario())

    def test_iteration_gives_them_in_order(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, Agent(running.url) as client:
                seqs = running.send_many(2500)
                got = []
                async for message in client:
                    got.append(message.seq)
                    await client.ack(message)
                    if len(got) == len(seqs):
                        break
                assert got == seqs

        run(scenario())

    def test_batch_is_limited(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running:
                running.offline()
                running.send_many(30)
                async with Agent(running.url) as client:
                    await client.next()
                    await running.until(lambda: len(client._messages) == 29)
                    assert len(await client.batch(10)) == 10

        run(scenario())


class TestReconnect:
    def test_after_a_loss_it_comes_back_under_its_ws_id(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, Agent(running.url) as client:
                client.cut()
                await client.connections(2)
                assert (client.greetings[1].ws_id, client.greetings[1].resumed) == ("ws-001", True)

        run(scenario())

    def test_made_up_ws_id_is_resumed(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, Agent(running.url) as client:
                client._session.ws_id = None
                client.cut()
                await client.connections(2)
                client.cut()
                await client.connections(3)
                assert client.greetings[1].ws_id == client.greetings[2].ws_id != "ws-001"

        run(scenario())

    def test_after_a_restart_of_the_gateway_on_another_port(self, database: Path) -> None:
        async def scenario() -> None:
            urls: list[str] = []
            async with contextlib.AsyncExitStack() as stack:
                first = gateway(database)
                urls.append((await first.__aenter__()).url)
                client = await stack.enter_async_context(Agent(lambda: urls[-1]))
                await first.__aexit__(None, None, None)
                second = await stack.enter_async_context(gateway(database))
                urls.append(second.url)
                await client.connections(2)
                seq = second.send("after the restart")
                message = await client.next()
                assert (message.seq, message.content) == (seq, "after the restart")
                await client.__aexit__(None, None, None)

        run(scenario())

    def test_restart_loses_nothing(self, database: Path) -> None:
        async def scenario() -> None:
            urls: list[str] = []
            first = gateway(database)
            running = await first.__aenter__()
            urls.append(running.url)
            async with Agent(lambda: urls[-1]) as client:
                seqs = running.send_many(3)
                await client.ack(await client.next())
                await first.__aexit__(None, None, None)
                async with gateway(database) as again:
                    urls.append(again.url)
                    await client.connections(2)
                    seqs += again.send_many(3)
                    got = [seqs[0]]
                    while len(got) < 6:
                        message = await client.next()
                        got.append(message.seq)
                        await client.ack(message)
                    assert got == seqs
                    await again.confirmed(*seqs)
                    await client.__aexit__(None, None, None)

        run(scenario())

    def test_cause_is_told(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, Agent(running.url) as client:
                running.offline()
                await client.losses(1)
                assert client.lost[0][0] == "registered again by a command (1012)"

        run(scenario())

    def test_delays_double_up_to_the_longest(self, database: Path) -> None:
        async def scenario() -> None:
            port = free_port()
            async with gateway(database, port=port) as running:
                client = Agent(running.url)
                await client.__aenter__()
            await client.losses(6)
            await client.__aexit__(None, None, None)
            delays = [delay for _, delay in client.lost[:6]]
            assert delays == pytest.approx([0.001, 0.002, 0.004, 0.008, 0.008, 0.008])

        run(scenario())

    def test_jitter_takes_up_to_half_of_a_delay(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, Agent(running.url, jitter=lambda: 0.0) as client:
                client.cut()
                await client.connections(2)
                assert client.lost[0][1] == pytest.approx(0.0005)

        run(scenario())

    def test_finder_that_finds_nothing_is_asked_again(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running:
                found = iter([True, False, False])

                def find() -> str:
                    if next(found, True):
                        return running.url
                    raise GatewayUnavailable("no gateway runs")

                async with Agent(find) as client:
                    client.cut()
                    await client.connections(2)
                    assert len(client.lost) == 3

        run(scenario())

    def test_finder_with_a_defect_ends_it(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running:
                found = iter([True])

                def find() -> str:
                    if next(found, False):
                        return running.url
                    raise ZeroDivisionError

                async with Agent(find) as client:
                    client.cut()
                    with pytest.raises(ZeroDivisionError):
                        await client.next()

        run(scenario())


class TestLostReceipt:
    def test_message_that_is_being_dealt_with_is_not_handed_out_again(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, Agent(running.url) as client:
                seqs = running.send_many(2)
                first = await client.next()
                client.cut()
                await client.connections(2)
                second = await client.next()
                assert [first.seq, second.seq] == seqs

        run(scenario())

    def test_message_acked_while_disconnected_is_confirmed_later(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, Agent(running.url) as client:
                seq = running.send()
                message = await client.next()
                client.cut()
                await client.losses(1)
                await client.ack(message)
                await running.confirmed(seq)

        run(scenario())

    def test_message_acked_while_disconnected_is_not_handed_out_again(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, Agent(running.url) as client:
                seqs = running.send_many(2)
                message = await client.next()
                client.cut()
                await client.losses(1)
                await client.ack(message)
                assert (await client.next()).seq == seqs[1]

        run(scenario())

    def test_message_rejected_while_disconnected_is_set_aside_later(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, Agent(running.url) as client:
                running.send()
                message = await client.next()
                client.cut()
                await client.losses(1)
                await client.reject(message, "no")
                await running.until(
                    lambda: running.db.rows("SELECT delivered, reject_reason FROM messages") == [(0, "no")]
                )

        run(scenario())

    def test_message_that_had_not_been_handed_out_comes_once(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, Agent(running.url) as client:
                seqs = running.send_many(3)
                await client.next()
                await running.until(lambda: len(client._messages) == 2)
                client.cut()
                await client.connections(2)
                assert [(await client.next()).seq, (await client.next()).seq] == seqs[1:]

        run(scenario())


class TestEnd:
    def test_replaced_ends_it_with_the_cause(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, Agent(running.url) as client:
                await running.agent()
                with pytest.raises(Conflict, match=r"replaced by a newer socket \(4009\)"):
                    await client.next()

        run(scenario())

    def test_disconnected_ends_it_with_the_cause(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, Agent(running.url) as client:
                running.registry.disconnect("ws-001")
                with pytest.raises(Conflict, match=r"disconnected by an operator \(4010\)"):
                    await client.next()

        run(scenario())

    def test_moved_ends_it_with_the_cause(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, Agent(running.url) as client:
                add_connection(running.pool, "ws-001", "cipher")
                with pytest.raises(Conflict, match="given to another agent"):
                    await client.next()

        run(scenario())

    def test_what_had_arrived_is_handed_out_before_the_error(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, Agent(running.url) as client:
                seq = running.send()
                await running.until(lambda: client._messages)
                running.registry.disconnect("ws-001")
                await running.until(lambda: client._ended)
                assert (await client.next()).seq == seq

        run(scenario())

    def test_exit_says_goodbye(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running:
                async with Agent(running.url):
                    pass
                connection = await running.socket_ended()
                assert (connection.status, connection.close_code) == ("disconnected", 1000)

        run(scenario())

    def test_ack_before_the_exit_is_written(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running:
                async with Agent(running.url) as client:
                    seq = running.send()
                    await client.ack(await client.next())
                await running.confirmed(seq)

        run(scenario())

    def test_exit_while_it_is_disconnected(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running:
                client = Agent(running.url)
                await client.__aenter__()
            await client.losses(2)
            await client.__aexit__(None, None, None)

        run(scenario())

    def test_exit_in_the_middle_of_a_large_backlog(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running:
                running.offline()
                seqs = running.send_many(3000)
                async with Agent(running.url) as client:
                    await client.ack(await client.next())
                connection = await running.socket_ended()
                assert (connection.status, running.delivered()) == ("disconnected", seqs[:1])

        run(scenario())


class TestSilence:
    def test_of_the_gateway_makes_it_come_back(self) -> None:
        greetings = 0

        async def mute(request: web.Request) -> web.WebSocketResponse:
            nonlocal greetings
            websocket = web.WebSocketResponse()
            await websocket.prepare(request)
            greetings += 1
            await websocket.send_json(
                {
                    "type": "connected",
                    "ws_id": "ws-001",
                    "agent": "octavia",
                    "resumed": False,
                    "pending": 0,
                    "seq": 0,
                    "heartbeat": 0.01,
                }
            )
            await websocket.receive()
            return websocket

        async def scenario() -> None:
            async with stand_in(mute) as url, Agent(url) as client:
                await client.connections(2)
                assert client.lost[0][0] == "nothing heard for 1 s"

        run(scenario())


def test_unused_client_leaves_nothing_open(database: Path) -> None:
    async def scenario() -> None:
        async with gateway(database) as running:
            running.offline("cipher", "ws-001")
            client = Agent(running.url)
            with pytest.raises(Conflict):
                await client.__aenter__()
            assert isinstance(client._http, aiohttp.ClientSession)
            assert client._http.closed

    run(scenario())


class TestSpeaking:
    def test_send_returns_the_id_of_the_committed_message(self, database: Path) -> None:
        async def scenario() -> None:
            async with (
                gateway(database) as running,
                Agent(running.url) as speaker,
                Agent(running.url, "cipher", "ws-002") as hearer,
            ):
                msg_id = await within(speaker.send("ws-002", {"hello": 1}, "note"))
                message = await hearer.next()
                assert (message.id, message.sender, message.msg_type) == (msg_id, "ws-001", "note")

        run(scenario())

    def test_broadcast_returns_the_number_of_recipients(self, database: Path) -> None:
        async def scenario() -> None:
            async with (
                gateway(database) as running,
                Agent(running.url) as speaker,
                Agent(running.url, "cipher", "ws-002"),
            ):
                assert await within(speaker.broadcast("all")) == 2

        run(scenario())

    def test_an_unknown_recipient_is_not_found(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, Agent(running.url) as speaker:
                with pytest.raises(NotFound):
                    await within(speaker.send("nobody", 1))

        run(scenario())

    def test_a_gateway_that_goes_away_ends_the_wait(self, database: Path) -> None:
        async def scenario() -> None:
            async with gateway(database) as running, Agent(running.url) as speaker:
                running.db.execute("BEGIN IMMEDIATE")
                sending = asyncio.ensure_future(speaker.send("ws-001", 1))
                await running.until(lambda: speaker._requests)
                speaker._websocket._response.close()
                with pytest.raises(GatewayUnavailable, match="before it answered"):
                    await within(sending)
                running.db.execute("ROLLBACK")

        run(scenario())


def test_the_address_of_the_sockets_is_understood_too(database: Path) -> None:
    async def scenario() -> None:
        async with gateway(database) as running, Agent(f"{running.url}/ws") as agent:
            assert agent.ws_id == "ws-001"

    run(scenario())
