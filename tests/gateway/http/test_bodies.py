"""Bodies of strangers: however many come, and however slowly, together they cost what was said."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.stripe_support import SECRET, event, signature
from tests.support import Clock, RunningGateway, gateway, within
from ws_manager import InvalidInput
from ws_manager.gateway import server
from ws_manager.gateway.http import stripe as stripe_route
from ws_manager.gateway.http.bodies import LEAST
from ws_manager.gateway.http.stripe import PATH, StripeOptions
from ws_manager.gateway.limits import Limits
from ws_manager.gateway.net import listener
from ws_manager.gateway.net.tcp import READ_FIRST_BYTES, TcpPeer
from ws_manager.gateway.refusal_log import LINES
from ws_manager.stripe.events import MAX_BODY

STRIPE = StripeOptions((SECRET,), accept_unrouted=True)
MOST = 4 * MAX_BODY


@pytest.fixture(autouse=True)
def _short_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway looks at its clock often; what it sees there is the test's business."""
    monkeypatch.setattr(server, "_TICK_SECONDS", 0.005)


class Unfinished:
    """A request whose body has begun, and does not end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def begin(cls, running: RunningGateway, sent: int, *, chunked: bool = False) -> Unfinished:
        address = urlsplit(running.url)
        reader, writer = await within(asyncio.open_connection(address.hostname, address.port))
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {MAX_BODY}"
        writer.write(
            f"POST {PATH} HTTP/1.1\r\nHost: {address.netloc}\r\n"
            f"Stripe-Signature: t=1,v1=0\r\n{length}\r\n\r\n".encode()
        )
        begun = cls(reader, writer)
        await begun.more(sent, chunked=chunked)
        return begun

    async def more(self, size: int, *, chunked: bool = False) -> None:
        data = b"x" * size
        self.writer.write(b"%x\r\n%s\r\n" % (size, data) if chunked else data)
        await within(self.writer.drain())

    async def status(self) -> int:
        return int((await within(self.reader.readline())).split()[1])


def bodies(running: RunningGateway) -> list[int]:
    """What the bodies on their way hold, the oldest first."""
    return [body.held for body in running.server._bodies._bodies]


async def post(running: RunningGateway, body: bytes) -> int:
    async with aiohttp.ClientSession() as http:
        headers = {"Stripe-Signature": signature(body)}
        async with http.post(running.url + PATH, data=body, headers=headers) as response:
            await response.read()
    await asyncio.sleep(0)
    return response.status


@pytest.mark.parametrize("chunked", [False, True])
async def test_together_hold_what_was_said_and_the_oldest_give_way(database: Path, chunked: bool) -> None:
    limits = Limits(webhook_bytes=MOST)
    async with gateway(database, stripe=STRIPE, limits=limits) as running:
        begun = []
        for number in range(40):
            begun.append(await Unfinished.begin(running, MAX_BODY - 1, chunked=chunked))
            most = min(number + 1, 4)
            # All four that fit are there, whole but for a byte.
            await running.until(
                lambda most=most: (  # type: ignore[misc]
                    bodies(running) == [MAX_BODY - 1] * most
                    or (len(bodies(running)) == most == 4 and bodies(running)[-1] == MAX_BODY - 1)
                )
            )
            assert sum(bodies(running)) == running.server._bodies.held <= MOST
        statuses = [await each.status() for each in begun[:-4]]
        assert statuses == [503] * 36
        # An event that is signed comes through between them.
        assert await post(running, event()) == 200
        for each in begun:
            each.writer.close()
        await running.until(lambda: running.server._bodies.held == 0)


async def test_of_a_byte_counts_as_much_as_it_costs(database: Path) -> None:
    limits = Limits(webhook_bytes=MOST)
    async with gateway(database, stripe=STRIPE, limits=limits) as running:
        begun = [await Unfinished.begin(running, 1) for _ in range(3 * MOST // LEAST)]
        statuses = [await each.status() for each in begun[: -MOST // LEAST]]
        assert set(statuses) == {503}
        assert bodies(running) == [LEAST] * (MOST // LEAST)
        for each in begun:
            each.writer.close()


async def test_one_that_grows_makes_the_oldest_of_the_others_give_way(database: Path) -> None:
    limits = Limits(webhook_bytes=2 * LEAST)
    async with gateway(database, stripe=STRIPE, limits=limits) as running:
        first, second = [await Unfinished.begin(running, 1) for _ in range(2)]
        await running.until(lambda: bodies(running) == [LEAST, LEAST])
        await first.more(LEAST)
        assert await second.status() == 503
        await running.until(lambda: bodies(running) == [LEAST + 1])
        # Alone, it may not have more than all of them.
        await first.more(2 * LEAST)
        assert await first.status() == 503
        await running.until(lambda: bodies(running) == [])
        for each in (first, second):
            each.writer.close()


async def test_that_does_not_come_in_time_is_408(database: Path) -> None:
    clock = Clock()
    limits = Limits(handshake_seconds=10)
    async with gateway(database, stripe=STRIPE, limits=limits, now=clock, heartbeat_timeout=300) as running:
        slow = await Unfinished.begin(running, 1000)
        await running.until(lambda: bodies(running))
        clock.forward(9)
        await slow.more(1000)
        later = await Unfinished.begin(running, 1000)
        await running.until(lambda: len(bodies(running)) == 2)
        clock.forward(1)
        # A byte now and then does not help.
        assert await slow.status() == 408
        await running.until(lambda: len(bodies(running)) == 1)
        for each in (slow, later):
            each.writer.close()
        await running.until(lambda: running.server._bodies.held == 0)


async def test_whose_peer_goes_away_holds_nothing_and_is_no_defect(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(database, stripe=STRIPE) as running:
        for _ in range(20):
            begun = await Unfinished.begin(running, 1000)
            await running.until(lambda: bodies(running))
            begun.writer.transport.abort()
            await running.until(lambda: running.server._bodies.held == 0)
    refused = [record for record in caplog.records if "the peer went away" in record.getMessage()]
    assert len(refused) == LINES
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


async def test_that_is_refused_is_not_waited_for_when_its_peer_has_gone(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_LINGERING_SECONDS", 1000)

    def requests() -> list[asyncio.Task[object]]:
        """Return aiohttp's tasks, one for each connection; others of the gateway come and go."""
        return [task for task in asyncio.all_tasks() if "RequestHandler" in repr(task.get_coro())]

    async with gateway(database, stripe=STRIPE) as running:
        address = urlsplit(running.url)
        # Without a signature it is answered before its body has come.
        reader, writer = await within(asyncio.open_connection(address.hostname, address.port))
        writer.write(
            f"POST {PATH} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 1000\r\n\r\nx".encode()
        )
        assert int((await within(reader.readline())).split()[1]) == 400
        assert len(requests()) == 1
        writer.transport.abort()
        await running.until(lambda: requests() == [])


async def test_many_that_come_at_once_are_read_in_small_pieces(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has come is in memory before anybody has counted it."""
    sizes: list[int] = []
    received = TcpPeer.data_received

    def noted(connection: TcpPeer, data: bytes) -> None:
        sizes.append(len(data))
        received(connection, data)

    monkeypatch.setattr(TcpPeer, "data_received", noted)

    async with gateway(database, stripe=STRIPE) as running:
        begun = await Unfinished.begin(running, MAX_BODY - 1)
        await running.until(lambda: bodies(running) == [MAX_BODY - 1])
        begun.writer.close()
    assert sum(sizes) > MAX_BODY
    assert max(sizes) <= READ_FIRST_BYTES


async def test_that_says_it_is_too_large_is_not_read(database: Path) -> None:
    async with gateway(database, stripe=STRIPE) as running:
        address = urlsplit(running.url)
        reader, writer = await within(asyncio.open_connection(address.hostname, address.port))
        writer.write(
            f"POST {PATH} HTTP/1.1\r\nHost: {address.netloc}\r\nStripe-Signature: t=1,v1=0\r\n"
            f"Content-Length: {MAX_BODY + 1}\r\n\r\n".encode()
        )
        assert int((await within(reader.readline())).split()[1]) == 413
        writer.close()


async def test_whole_ones_count_until_they_are_verified(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Complete and unsigned ones, faster than signatures can be checked, cannot pile up either."""

    loop = asyncio.get_running_loop()
    checked = asyncio.Event()

    def verified(body: bytes, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(checked.wait(), loop).result()
        raise InvalidInput("the signature does not hold")

    monkeypatch.setattr(stripe_route, "verified", verified)
    clock = Clock()
    limits = Limits(webhook_bytes=2 * MAX_BODY + LEAST)
    async with gateway(database, stripe=STRIPE, limits=limits, now=clock, heartbeat_timeout=300) as running:
        posts = [asyncio.ensure_future(post(running, b"x" * MAX_BODY)) for _ in range(2)]
        await running.until(lambda: bodies(running) == [MAX_BODY] * 2)
        # They have come in time, whatever it takes to check them.
        late = await Unfinished.begin(running, 1)
        await running.until(lambda: len(bodies(running)) == 3)
        clock.forward(10)
        assert await late.status() == 408
        late.writer.close()
        begun = await Unfinished.begin(running, LEAST + 1)
        assert await begun.status() == 503
        answer = json.loads((await within(begun.reader.read())).split(b"\r\n\r\n", 1)[1])
        assert answer["code"] == "unavailable"
        checked.set()
        assert await asyncio.gather(*posts) == [400, 400]
        assert running.server._bodies.held == 0
        begun.writer.close()
