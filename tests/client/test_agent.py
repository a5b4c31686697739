"""AgentClient against the real gateway."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Callable, Union

import aiohttp
import pytest
from aiohttp import web

from tests.support import LIMIT, Clock, RunningGateway, gateway, run, until, within
from ws_manager import add_connection
from ws_manager.client import agent as agent_module
from ws_manager.client import dialer
from ws_manager.client.agent import AgentClient
from ws_manager.client.dialer import HEALTHY_SECONDS
from ws_manager.errors import (
    Conflict,
    GatewayUnavailable,
    InvalidInput,
    LedgerBusy,
    NotAuthorised,
    NotFound,
    WsManagerError,
)
from ws_manager.gateway.http.errors import problem
from ws_manager.protocol.frames import Connected, Received


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a backoff here."""
    monkeypatch.setattr(dialer, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(dialer, "LONGEST_DELAY", 0.008)


TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_A_GATEWAYS = [
    "",
    "<h1>Forbidden</h1>",
    '"error"',
    "[" * 100_000,
    '{"error":"not_authorised"}',
    '{"title":"Forbidden","status":403,"detail":"Forbidden"}',
    '{"code":403,"detail":"Forbidden"}',
    '{"code":"PERMISSION_DENIED","detail":"Forbidden"}',
    '{"code":"not_authorised"}',
    '{"code":"not_authorised","detail":"' + "x" * 20_000 + '"}',
]
"""Bodies of a refusal that are a proxy's, or of some other service."""


class Agent(AgentClient):
    """A client that notes what it is told about its connection."""

    def __init__(
        self,
        url: Union[str, Callable[[], str]],
        agent: str = "octavia",
        ws_id: str = "ws-001",
        jitter: Callable[[], float] = lambda: 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.greetings: list[Connected] = []
        self.lost: list[tuple[str, float]] = []
        self.changed = asyncio.Event()
        super().__init__(
            agent,
            url=url,
            ws_id=ws_id,
            on_connected=self._greeted_now,
            on_lost=self._lost_now,
            jitter=jitter,
            clock=clock,
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
        """Wait until it has connected this number of times."""
        while len(self.greetings) < count:
            self.changed.clear()
            await within(self.changed.wait())

    async def losses(self, count: int) -> None:
        """Wait until it has noticed this number of losses."""
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
    async def test_refused_port_is_unavailable(self) -> None:
        with pytest.raises(GatewayUnavailable):
            async with Agent(f"http://127.0.0.1:{free_port()}"):
                pass

    async def test_another_agents_ws_id_is_a_conflict(self, database: Path) -> None:
        async with gateway(database) as running:
            running.offline("cipher", "ws-001")
            with pytest.raises(Conflict, match="another agent"):
                async with Agent(running.url, "octavia", "ws-001"):
                    pass

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
    async def test_bad_address_is_invalid(self, url: str) -> None:
        with pytest.raises(InvalidInput):
            async with Agent(url):
                pass

    async def test_bad_name_is_invalid(self, database: Path) -> None:
        async with gateway(database) as running:
            with pytest.raises(InvalidInput):
                async with Agent(running.url, "octavia", "a\nb"):
                    pass

    @pytest.mark.parametrize(
        ("status", "code", "error"),
        [
            (400, "invalid", InvalidInput),
            (401, "not_authorised", NotAuthorised),
            (403, "not_authorised", NotAuthorised),
            (409, "conflict", Conflict),
            (503, "unavailable", GatewayUnavailable),
        ],
    )
    def test_a_gateways_refusal_is_its_verdict(self, status: int, code: str, error: type[Exception]) -> None:
        async def refuse(_: web.Request) -> web.Response:
            return problem(status, code, "no")

        async def scenario() -> None:
            async with stand_in(refuse) as url:
                with pytest.raises(error):
                    async with Agent(url):
                        pass

        run(scenario())

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 407, 409, 500, 502, 503])
    @pytest.mark.parametrize("body", NOT_A_GATEWAYS, ids=lambda body: body[:40])
    def test_another_answer_is_nobodys_verdict(self, status: int, body: str) -> None:
        async def refuse(_: web.Request) -> web.Response:
            return web.Response(status=status, text=body)

        async def scenario() -> None:
            async with stand_in(refuse) as url:
                with pytest.raises(GatewayUnavailable, match=f"answered {status}, and not as a gateway does"):
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
    async def test_address_may_be_of_either_scheme(self, database: Path, scheme: str) -> None:
        async with gateway(database) as running, Agent(running.url.replace("http", scheme)) as client:
            assert client.greetings[0].ws_id == "ws-001"

    async def test_ws_id_is_the_gateways_where_none_is_given(self, database: Path) -> None:
        async with gateway(database) as running, AgentClient("octavia", url=running.url) as client:
            assert client.ws_id is not None
            assert running.connection(client.ws_id).agent == "octavia"

    async def test_is_tried_until_the_gateway_is_there_if_that_is_asked_for(self, database: Path) -> None:
        port = free_port()
        told: asyncio.Queue[str] = asyncio.Queue()
        client = AgentClient(
            "octavia",
            url=f"http://127.0.0.1:{port}",
            ws_id="ws-001",
            wait_for_gateway=True,
            on_lost=lambda cause, delay: told.put_nowait(cause),
        )
        entering = asyncio.ensure_future(client.__aenter__())
        for _ in range(3):
            assert await within(told.get())
        async with gateway(database, port=port) as running:
            await within(entering)
            assert running.connection().status == "active"
            await client.__aexit__(None, None, None)

    async def test_that_is_waited_for_ends_with_a_verdict(self, database: Path) -> None:
        async with gateway(database) as running:
            running.offline("cipher", "ws-001")
            with pytest.raises(Conflict, match="another agent"):
                async with AgentClient("octavia", url=running.url, ws_id="ws-001", wait_for_gateway=True):
                    pass

    async def test_that_is_waited_for_can_be_cancelled(self) -> None:
        waits = asyncio.Event()
        client = AgentClient(
            "octavia",
            url=f"http://127.0.0.1:{free_port()}",
            wait_for_gateway=True,
            on_lost=lambda cause, delay: waits.set(),
        )
        entering = asyncio.ensure_future(client.__aenter__())
        await within(waits.wait())
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(entering)
        assert isinstance(client._http, aiohttp.ClientSession)
        assert client._http.closed

    async def test_metadata_is_registered(self, database: Path) -> None:
        async with gateway(database) as running:
            client = AgentClient("octavia", url=running.url, ws_id="ws-001", metadata={"a": "ü&="})
            async with client:
                assert running.connection().metadata == {"a": "ü&="}


class TestMessages:
    async def test_ack_marks_as_delivered(self, database: Path) -> None:
        async with gateway(database) as running, Agent(running.url) as client:
            seq = running.send({"n": 1})
            message = await client.next()
            assert message.content == {"n": 1}
            await client.ack(message)
            await running.confirmed(seq)

    async def test_without_ack_nothing_is_delivered(self, database: Path) -> None:
        async with gateway(database) as running:
            async with Agent(running.url) as client:
                running.send_many(3)
                await client.next()
            await running.socket_ended()
            assert running.delivered() == []

    async def test_reject_sets_aside(self, database: Path) -> None:
        async with gateway(database) as running, Agent(running.url) as client:
            running.send()
            await client.reject(await client.next(), "no")
            await running.until(lambda: running.db.rows("SELECT reject_reason FROM messages") == [("no",)])

    async def test_iteration_gives_them_in_order(self, database: Path) -> None:
        async with gateway(database) as running, Agent(running.url) as client:
            seqs = running.send_many(2500)
            got = []
            async for message in client:
                got.append(message.seq)
                await client.ack(message)
                if len(got) == len(seqs):
                    break
            assert got == seqs

    async def test_batch_is_limited(self, database: Path) -> None:
        async with gateway(database) as running:
            running.offline()
            running.send_many(30)
            async with Agent(running.url) as client:
                await client.next()
                await running.until(lambda: len(client._inbox._messages) == 29)
                assert len(await client.batch(10)) == 10


class TestReconnect:
    async def test_after_a_loss_it_comes_back_under_its_ws_id(self, database: Path) -> None:
        async with gateway(database) as running, Agent(running.url) as client:
            client.cut()
            await client.connections(2)
            assert (client.greetings[1].ws_id, client.greetings[1].resumed) == ("ws-001", True)

    async def test_made_up_ws_id_is_resumed(self, database: Path) -> None:
        async with gateway(database) as running, Agent(running.url) as client:
            client._session.ws_id = None
            client.cut()
            await client.connections(2)
            client.cut()
            await client.connections(3)
            assert client.greetings[1].ws_id == client.greetings[2].ws_id != "ws-001"

    async def test_after_a_restart_of_the_gateway_on_another_port(self, database: Path) -> None:
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

    async def test_restart_loses_nothing(self, database: Path) -> None:
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

    async def test_cause_is_told(self, database: Path) -> None:
        async with gateway(database) as running, Agent(running.url) as client:
            running.offline()
            await client.losses(1)
            assert client.lost[0][0] == "registered again by a command (1012)"

    async def test_delays_double_up_to_the_longest(self, database: Path) -> None:
        port = free_port()
        async with gateway(database, port=port) as running:
            client = Agent(running.url)
            await client.__aenter__()
        await client.losses(6)
        await client.__aexit__(None, None, None)
        delays = [delay for _, delay in client.lost[:6]]
        assert delays == pytest.approx([0.001, 0.002, 0.004, 0.008, 0.008, 0.008])

    async def test_delays_go_on_doubling_where_greetings_are_followed_by_losses(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database) as running, Agent(running.url, clock=clock) as client:
            for number in range(4):
                clock.forward(HEALTHY_SECONDS - 1)
                client.cut()
                await client.connections(number + 2)
            assert [delay for _, delay in client.lost] == pytest.approx([0.001, 0.002, 0.004, 0.008])

    async def test_delays_begin_again_after_a_minute_of_health(self, database: Path) -> None:
        clock = Clock()
        async with gateway(database) as running, Agent(running.url, clock=clock) as client:
            for number, lasted in enumerate([1, 1, HEALTHY_SECONDS, 1]):
                clock.forward(lasted)
                client.cut()
                await client.connections(number + 2)
            assert [delay for _, delay in client.lost] == pytest.approx([0.001, 0.002, 0.001, 0.002])

    @pytest.mark.parametrize("status", [400, 401, 403, 407, 409, 502])
    def test_what_stands_between_decides_nothing(self, database: Path, status: int) -> None:
        async def refuse(_: web.Request) -> web.Response:
            return web.Response(status=status, text="<h1>No</h1>")

        async def scenario() -> None:
            async with gateway(database) as running, stand_in(refuse) as between:
                urls = [running.url, between, between]
                async with Agent(lambda: urls.pop(0) if urls else running.url) as client:
                    client.cut()
                    await client.connections(2)
                    assert [str(status) in cause for cause, _ in client.lost] == [False, True, True]

        run(scenario())

    async def test_jitter_takes_up_to_half_of_a_delay(self, database: Path) -> None:
        async with gateway(database) as running, Agent(running.url, jitter=lambda: 0.0) as client:
            client.cut()
            await client.connections(2)
            assert client.lost[0][1] == pytest.approx(0.0005)

    @pytest.mark.parametrize("error", [GatewayUnavailable("no gateway runs"), LedgerBusy("busy")])
    async def test_finder_that_finds_nothing_is_asked_again(
        self, database: Path, error: WsManagerError
    ) -> None:
        async with gateway(database) as running:
            found = iter([True, False, False])

            def find() -> str:
                if next(found, True):
                    return running.url
                raise error

            async with Agent(find) as client:
                client.cut()
                await client.connections(2)
                assert len(client.lost) == 3

    async def test_finder_with_a_defect_ends_it(self, database: Path) -> None:
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


class TestLostReceipt:
    async def test_message_that_is_being_dealt_with_is_not_handed_out_again(self, database: Path) -> None:
        async with gateway(database) as running, Agent(running.url) as client:
            seqs = running.send_many(2)
            first = await client.next()
            client.cut()
            await client.connections(2)
            second = await client.next()
            assert [first.seq, second.seq] == seqs

    async def test_message_acked_while_disconnected_is_confirmed_later(self, database: Path) -> None:
        async with gateway(database) as running, Agent(running.url) as client:
            seq = running.send()
            message = await client.next()
            client.cut()
            await client.losses(1)
            await client.ack(message)
            await running.confirmed(seq)

    async def test_message_acked_while_disconnected_is_not_handed_out_again(self, database: Path) -> None:
        async with gateway(database) as running, Agent(running.url) as client:
            seqs = running.send_many(2)
            message = await client.next()
            client.cut()
            await client.losses(1)
            await client.ack(message)
            assert (await client.next()).seq == seqs[1]

    async def test_message_rejected_while_disconnected_is_set_aside_later(self, database: Path) -> None:
        async with gateway(database) as running, Agent(running.url) as client:
            running.send()
            message = await client.next()
            client.cut()
            await client.losses(1)
            await client.reject(message, "no")
            await running.until(
                lambda: running.db.rows("SELECT delivered, reject_reason FROM messages") == [(0, "no")]
            )

    async def test_message_that_had_not_been_handed_out_comes_once(self, database: Path) -> None:
        async with gateway(database) as running, Agent(running.url) as client:
            seqs = running.send_many(3)
            await client.next()
            await running.until(lambda: len(client._inbox._messages) == 2)
            client.cut()
            await client.connections(2)
            assert [(await client.next()).seq, (await client.next()).seq] == seqs[1:]


class TestEnd:
    async def test_replaced_ends_it_with_the_cause(self, database: Path) -> None:
        async with gateway(database) as running, Agent(running.url) as client:
            await running.agent()
            with pytest.raises(Conflict, match=r"replaced by a newer socket \(4009\)"):
                await client.next()

    async def test_disconnected_ends_it_with_the_cause(self, database: Path) -> None:
        async with gateway(database) as running, Agent(running.url) as client:
            running.ledger.disconnect("ws-001")
            with pytest.raises(Conflict, match=r"disconnected by an operator \(4010\)"):
                await client.next()

    async def test_moved_ends_it_with_the_cause(self, database: Path) -> None:
        async with gateway(database) as running, Agent(running.url) as client:
            add_connection(running.pool, "ws-001", "cipher")
            with pytest.raises(Conflict, match="given to another agent"):
                await client.next()

    async def test_what_had_arrived_is_handed_out_before_the_error(self, database: Path) -> None:
        async with gateway(database) as running, Agent(running.url) as client:
            seq = running.send()
            await running.until(lambda: client._inbox._messages)
            running.ledger.disconnect("ws-001")
            await running.until(lambda: client._inbox._ended)
            assert (await client.next()).seq == seq

    async def test_exit_says_goodbye(self, database: Path) -> None:
        async with gateway(database) as running:
            async with Agent(running.url):
                pass
            connection = await running.socket_ended()
            assert (connection.status, connection.close_code) == ("disconnected", 1000)

    async def test_ack_before_the_exit_is_written(self, database: Path) -> None:
        async with gateway(database) as running:
            async with Agent(running.url) as client:
                seq = running.send()
                await client.ack(await client.next())
            await running.confirmed(seq)

    async def test_exit_while_it_is_disconnected(self, database: Path) -> None:
        async with gateway(database) as running:
            client = Agent(running.url)
            await client.__aenter__()
        await client.losses(2)
        await client.__aexit__(None, None, None)

    async def test_exit_in_the_middle_of_a_large_backlog(self, database: Path) -> None:
        async with gateway(database) as running:
            running.offline()
            seqs = running.send_many(3000)
            async with Agent(running.url) as client:
                await client.ack(await client.next())
            connection = await running.socket_ended()
            assert (connection.status, running.delivered()) == ("disconnected", seqs[:1])


class TestCancellation:
    async def test_reaches_whoever_deals_with_messages_that_keep_coming(self, database: Path) -> None:
        async with gateway(database) as running:
            running.offline()
            running.send_many(3000)
            got: list[int] = []

            async def consume(client: Agent) -> None:
                async for message in client:
                    got.append(message.seq)
                    await client.ack(message)
                    if len(got) == 10:
                        asyncio.get_running_loop().call_soon(consuming.cancel)

            async with Agent(running.url) as client:
                await running.until(lambda: len(client._inbox._messages) > 500)
                consuming = asyncio.ensure_future(consume(client))
                with pytest.raises(asyncio.CancelledError):
                    await within(consuming)
                assert len(got) <= 11
            await running.confirmed(*got)
            assert running.delivered() == got

    async def test_of_the_first_connection_leaves_nothing_open(self) -> None:
        asked = asyncio.Event()

        async def mute(_: web.Request) -> web.Response:
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

        async with stand_in(mute) as url:
            client = Agent(url)
            connecting = asyncio.ensure_future(client.__aenter__())
            await within(asked.wait())
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await within(connecting)
            assert client._http is not None
            assert client._http.closed

    async def test_of_the_exit_comes_after_the_goodbye(self, database: Path) -> None:
        async with gateway(database) as running:
            client = Agent(running.url)
            await client.__aenter__()
            leaving = asyncio.ensure_future(client.__aexit__(None, None, None))
            await asyncio.sleep(0)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await within(leaving)
            assert client._http is not None
            assert client._http.closed
            assert (await running.socket_ended()).close_code == 1000


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


async def test_client_that_is_not_entered_says_so(database: Path) -> None:
    client = AgentClient("octavia", url="http://127.0.0.1:1")
    with pytest.raises(GatewayUnavailable, match="async with"):
        await client.send("ws-001", 1)
    with pytest.raises(GatewayUnavailable, match="async with"):
        await client.batch(1)


async def test_who_waits_for_a_message_is_told_when_the_client_leaves(database: Path) -> None:
    async with gateway(database) as running:
        async with Agent(running.url) as client:
            waiting = asyncio.ensure_future(client.batch(1))
            await asyncio.sleep(0)
        with pytest.raises(GatewayUnavailable, match="has left"):
            await within(waiting)


async def test_unused_client_leaves_nothing_open(database: Path) -> None:
    async with gateway(database) as running:
        running.offline("cipher", "ws-001")
        client = Agent(running.url)
        with pytest.raises(Conflict):
            await client.__aenter__()
        assert isinstance(client._http, aiohttp.ClientSession)
        assert client._http.closed


class TestSpeaking:
    async def test_send_returns_the_id_of_the_committed_message(self, database: Path) -> None:
        async with (
            gateway(database) as running,
            Agent(running.url) as speaker,
            Agent(running.url, "cipher", "ws-002") as hearer,
        ):
            msg_id = await within(speaker.send("ws-002", {"hello": 1}, "note"))
            message = await hearer.next()
            assert (message.msg_id, message.sender_id, message.msg_type) == (msg_id, "ws-001", "note")

    async def test_broadcast_returns_the_number_of_recipients(self, database: Path) -> None:
        async with (
            gateway(database) as running,
            Agent(running.url) as speaker,
            Agent(running.url, "cipher", "ws-002"),
        ):
            assert await within(speaker.broadcast("all")) == 2

    async def test_a_trace_reaches_the_receiver(self, database: Path) -> None:
        async with (
            gateway(database) as running,
            Agent(running.url) as speaker,
            Agent(running.url, "cipher", "ws-002") as hearer,
        ):
            await within(speaker.send("ws-002", 1, traceparent=TRACEPARENT))
            await within(speaker.broadcast(2, agent="cipher", traceparent=TRACEPARENT))
            await within(speaker.send("ws-002", 3))
            received = [await hearer.next() for _ in range(3)]
            assert [each.traceparent for each in received] == [TRACEPARENT, TRACEPARENT, None]

    async def test_an_invalid_trace_is_refused(self, database: Path) -> None:
        async with gateway(database) as running, Agent(running.url) as speaker:
            with pytest.raises(InvalidInput, match="traceparent"):
                await within(speaker.send("ws-001", 1, traceparent="nonsense"))
            with pytest.raises(InvalidInput, match="traceparent"):
                await within(speaker.broadcast(1, traceparent="nonsense"))
            assert running.db.value("SELECT count(*) FROM messages") == 0

    async def test_an_unknown_recipient_is_not_found(self, database: Path) -> None:
        async with gateway(database) as running, Agent(running.url) as speaker:
            with pytest.raises(NotFound):
                await within(speaker.send("nobody", 1))


async def test_the_address_of_the_sockets_is_understood_too(database: Path) -> None:
    async with gateway(database) as running, Agent(f"{running.url}/ws") as agent:
        assert agent.ws_id == "ws-001"


@contextlib.asynccontextmanager
async def serving(database: Path) -> AsyncIterator[tuple[RunningGateway, AgentClient]]:
    """A gateway that waits for a client's close frame, and a client."""
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(gateway(database, close_seconds=LIMIT))
        client = AgentClient("octavia", url=running.url, ws_id="ws-001")
        yield running, await stack.enter_async_context(client)


class TestGatewayThatStops:
    async def test_what_is_dealt_with_meanwhile_is_confirmed(self, database: Path) -> None:
        async with serving(database) as (running, client):
            seqs = running.send_many(2)
            messages = await client.batch(2)
            closing = asyncio.ensure_future(
                running.server._hub.close(1012, "restarting", drain=0, seconds=LIMIT)
            )
            # The client has the close frame.
            await until(lambda: client._websocket.close_code == 1012)
            for message in messages:
                await client.ack(message)
            await closing
            await running.confirmed(*seqs)

    async def test_who_deals_with_something_for_long_is_not_waited_for(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(agent_module, "LAST_ACK_SECONDS", 0.05)

        async with serving(database) as (running, client):
            running.send()
            await client.batch(1)
            await running.server._hub.close(1012, "restarting", drain=0, seconds=LIMIT)
            assert running.delivered() == []


async def test_a_message_that_is_too_large_for_a_frame_says_so_and_so_does_each_further_one(
    database: Path,
) -> None:
    async with gateway(database) as running, AgentClient("octavia", url=running.url, ws_id="ws-001") as agent:
        for size in (100 * 1024, 1):
            with pytest.raises(InvalidInput, match="a frame was over the size limit"):
                await agent.send("ws-001", "x" * size)
