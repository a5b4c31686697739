"""How much of the gateway one token and one address may use, and that others do not suffer for it."""

from __future__ import annotations

import asyncio
import functools
import json
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlencode, urlsplit

import jwt
import pytest

from tests.support import Clock, Refused, RunningGateway, gateway, within
from ws_manager.errors import InvalidInput
from ws_manager.gateway import quotas
from ws_manager.gateway.limits import Limits
from ws_manager.gateway.own_quotas import BURST_SECONDS, OwnQuotas
from ws_manager.gateway.quotas import (
    ENVELOPE,
    LASTING_SECONDS,
    Account,
    Addresses,
    TooFast,
)
from ws_manager.tokens import AUDIENCE, mint

KEY = b"the key of this test, not a secret"


def token(agent: str = "octavia", *scopes: str) -> str:
    return mint(KEY, agent, scopes=scopes or ("connect",))


async def flood(running: RunningGateway, count: int, access_token: str, *, same: bool = False) -> list[int]:
    """Connect and say goodbye again and again, and return the statuses."""
    statuses = []
    for number in range(count):
        ws_id = "ws-flood" if same else f"ws-{number}"
        try:
            agent = await running.agent(ws_id=ws_id, access_token=access_token)
        except Refused as refused:
            statuses.append(refused.status)
        else:
            statuses.append(101)
            await agent.say_goodbye()
            await running.until(functools.partial(_is_gone, running, ws_id))
    return statuses


def _is_gone(running: RunningGateway, ws_id: str) -> bool:
    return ws_id not in running.server._hub._sockets


def events(running: RunningGateway) -> int:
    count: int = running.db.value("SELECT count(*) FROM events")
    return count


class TestSocketsOfAToken:
    async def test_one_more_is_503_and_another_token_is_let_in(self, database: Path) -> None:
        async with gateway(database, key=KEY, limits=Limits(per_token=3)) as running:
            mine = token("*")
            for number in range(3):
                await running.agent(ws_id=f"ws-{number}", access_token=mine)
            with pytest.raises(Refused) as refused:
                await running.agent(ws_id="ws-3", access_token=mine)
            assert refused.value.status == 503
            error = json.loads(refused.value.body)
            assert (error["code"], error["hint"]) == ("unavailable", "give each agent a token of its own")
            assert running.ledger.find("ws-3") is None
            await running.agent(ws_id="ws-3", access_token=token("*"))

    async def test_one_that_leaves_makes_room(self, database: Path) -> None:
        async with gateway(database, key=KEY, limits=Limits(per_token=1)) as running:
            mine = token()
            await (await running.agent(access_token=mine)).say_goodbye()
            await running.until(lambda: not len(running.server._hub))
            await running.agent(ws_id="ws-002", access_token=mine)

    async def test_one_that_comes_back_takes_its_own_place(self, database: Path) -> None:
        async with gateway(database, key=KEY, limits=Limits(per_token=1)) as running:
            mine = token()
            older = await running.agent(access_token=mine)
            await running.agent(access_token=mine)
            assert await older.closed() == 4009

    async def test_refused_handshakes_take_no_place(self, database: Path) -> None:
        async with gateway(database, key=KEY, limits=Limits(per_token=1)) as running:
            mine = token()
            running.offline("cipher", "ws-of-cipher")
            queries: tuple[dict[str, Any], ...] = (
                {"ws_id": "ws-of-cipher"},
                {"metadata": "[]"},
                {"ws_id": "a\nb"},
            )
            for query in queries:
                with pytest.raises(Refused):
                    await running.agent(access_token=mine, **query)
            await running.agent(access_token=mine)

    @pytest.mark.parametrize("claims", [{}, {"jti": "x" * 1000}, {"jti": ""}])
    async def test_token_without_a_usable_name_is_known_by_what_it_says(
        self, database: Path, claims: dict[str, Any]
    ) -> None:
        def made(number: int) -> str:
            return jwt.encode(
                {"sub": "*", "aud": AUDIENCE, "iat": number, "exp": 10**10, "scope": "connect", **claims},
                KEY,
                algorithm="HS256",
            )

        async with gateway(database, key=KEY, limits=Limits(per_token=1)) as running:
            await running.agent(ws_id="ws-1", access_token=made(1))
            with pytest.raises(Refused) as refused:
                await running.agent(ws_id="ws-2", access_token=made(1))
            assert refused.value.status == 503
            await running.agent(ws_id="ws-2", access_token=made(2))

    async def test_without_tokens_there_is_no_limit(self, database: Path) -> None:
        async with gateway(database, limits=Limits(per_token=1, handshakes_per_second=1)) as running:
            for number in range(30):
                await running.agent(ws_id=f"ws-{number}")


class TestHandshakesOfAToken:
    @pytest.mark.parametrize("same", [False, True])
    async def test_that_lead_to_nothing_that_lasts_are_429_and_cost_no_rows(
        self, database: Path, same: bool
    ) -> None:
        clock = Clock()
        async with gateway(
            database, key=KEY, now=clock, limits=Limits(handshakes_per_second=2), heartbeat_timeout=300
        ) as running:
            mine = token()
            statuses = await flood(running, 2 * BURST_SECONDS, mine, same=same)
            assert set(statuses) == {101}
            await running.server._receipts.settled()
            before = events(running), running.db.value("SELECT count(*) FROM connections")
            assert set(await flood(running, 50, mine, same=same)) == {429}
            assert (events(running), running.db.value("SELECT count(*) FROM connections")) == before
            # Nobody else notices.
            await running.agent("cipher", "ws-cipher", access_token=token("cipher"))
            # What was refused has not cost anything: it is let in at its rate.
            clock.forward(1)
            assert await flood(running, 4, mine, same=same) == [101, 101, 429, 429]

    async def test_that_the_ledger_could_not_take_do_not_count(self, database: Path) -> None:
        limits = Limits(handshakes_per_second=1, handshake_seconds=0.1)
        async with gateway(database, key=KEY, now=Clock(), limits=limits) as running:
            mine = token()
            running.db.execute("BEGIN IMMEDIATE")
            assert await flood(running, BURST_SECONDS + 1, mine) == [503] * (BURST_SECONDS + 1)
            running.db.execute("ROLLBACK")
            statuses = [503]
            while statuses == [503]:
                # Those that were given up are taken from the queue first.
                statuses = await flood(running, 1, mine)
            assert statuses == [101]

    async def test_refusal_says_when_to_come_back(self, database: Path) -> None:
        limits = Limits(handshakes_per_second=1)
        async with gateway(database, key=KEY, now=Clock(), limits=limits) as running:
            mine = token()
            await flood(running, BURST_SECONDS, mine)
            reader, writer = await _asked(running, agent="octavia", access_token=mine)
            head = (await within(reader.readuntil(b"\r\n\r\n"))).decode()
            body = json.loads(await within(reader.read(1000)))
            writer.close()
            assert head.startswith("HTTP/1.1 429 ")
            assert "Retry-After: 1\r\n" in head
            assert body["code"] == "busy"

    async def test_many_that_come_back_together_after_a_pause_are_all_let_in(self, database: Path) -> None:
        clock = Clock()
        limits = Limits(handshakes_per_second=1)
        async with gateway(database, key=KEY, now=clock, limits=limits, heartbeat_timeout=300) as running:
            mine = token("*")
            for _ in range(2):
                agents = [
                    await running.agent(ws_id=f"ws-{number}", access_token=mine) for number in range(50)
                ]
                clock.forward(LASTING_SECONDS)
                for agent in agents:
                    agent.drop()
                await running.until(lambda: not len(running.server._hub))

    async def test_many_that_are_lost_at_once_soon_after_they_came_are_paid_for(self, database: Path) -> None:
        clock = Clock()
        limits = Limits(handshakes_per_second=1)
        async with gateway(database, key=KEY, now=clock, limits=limits, heartbeat_timeout=300) as running:
            mine = token("*")
            agents = [await running.agent(ws_id=f"ws-{number}", access_token=mine) for number in range(30)]
            for agent in agents:
                agent.drop()
            await running.until(lambda: not len(running.server._hub))
            clock.forward(20)
            assert await flood(running, 1, mine) == [429]
            clock.forward(1)
            assert await flood(running, 1, mine) == [101]


async def _asked(
    running: RunningGateway, source: Optional[str] = None, **query: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a handshake, from an address of this machine, and read nothing."""
    address = urlsplit(running.url)
    reader, writer = await within(
        asyncio.open_connection(
            address.hostname, address.port, local_addr=None if source is None else (source, 0)
        )
    )
    writer.write(
        (
            f"GET /ws?{urlencode(query)} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
    )
    return reader, writer


async def status(reader: asyncio.StreamReader) -> int:
    return int((await within(reader.readline())).split()[1])


class TestAddress:
    @pytest.fixture(autouse=True)
    def _loopback_is_far_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(quotas, "_is_this_machine", lambda address: False)

    async def test_one_more_connection_is_503_and_another_address_is_served(self, database: Path) -> None:
        async with gateway(database, limits=Limits(per_address=2)) as running:
            held = [await _asked(running, "127.0.0.5", agent="octavia") for _ in range(2)]
            assert [await status(reader) for reader, _ in held] == [101, 101]
            reader, writer = await _asked(running, "127.0.0.5", agent="octavia")
            answer = (await within(reader.read())).decode()
            assert answer.startswith("HTTP/1.1 503 ")
            assert "--max-per-address" not in answer
            other, other_writer = await _asked(running, "127.0.0.6", agent="octavia")
            assert await status(other) == 101
            # One that leaves makes room.
            held[0][1].transport.abort()
            await running.until(lambda: len(running.server._hub) == 2)
            again, again_writer = await _asked(running, "127.0.0.5", agent="octavia")
            assert await status(again) == 101
            for each in (writer, other_writer, held[1][1], again_writer):
                each.close()
        assert running.quotas._connections == {}

    async def test_connections_that_say_nothing_count_and_the_surplus_goes_soon(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from ws_manager.gateway import server

        monkeypatch.setattr(server, "_TICK_SECONDS", 0.005)

        clock = Clock()
        async with gateway(database, now=clock, limits=Limits(per_address=1)) as running:
            address = urlsplit(running.url)
            silent = [await asyncio.open_connection(address.hostname, address.port) for _ in range(3)]
            await running.until(lambda: running.quotas._connections == {"127.0.0.1": 3})
            clock.forward(3)
            assert [await within(reader.read()) for reader, _ in silent[1:]] == [b"", b""]
            await running.until(lambda: running.quotas._connections == {"127.0.0.1": 1})
            for _, writer in silent:
                writer.close()

    async def test_handshakes_that_are_refused_are_429_before_the_token_is_looked_at(
        self, database: Path
    ) -> None:
        clock = Clock()
        limits = Limits(handshakes_per_second=1)
        async with gateway(database, key=KEY, now=clock, limits=limits) as running:
            statuses = []
            for _ in range(BURST_SECONDS + 5):
                reader, writer = await _asked(running, "127.0.0.5", agent="octavia")
                statuses.append(await status(reader))
                writer.close()
            assert statuses == [401] * BURST_SECONDS + [429] * 5
            # Those that were refused for this reason have not cost anything.
            clock.forward(1)
            reader, writer = await _asked(running, "127.0.0.5", agent="octavia")
            assert await status(reader) == 401
            writer.close()
            reader, writer = await _asked(running, "127.0.0.6", agent="octavia", access_token=token())
            assert await status(reader) == 101
            writer.close()

    async def test_has_no_limit_behind_a_named_proxy(self, database: Path) -> None:
        limits = Limits(per_address=1, handshakes_per_second=1)
        async with gateway(database, key=KEY, proxies=("127.0.0.4/31",), limits=limits) as running:
            for _ in range(2 * BURST_SECONDS):
                reader, writer = await _asked(running, "127.0.0.5", agent="octavia")
                assert await status(reader) == 401
                writer.close()


class TestKey:
    @pytest.mark.parametrize(
        ("peer", "key"),
        [
            (("192.0.2.7", 1), "192.0.2.7"),
            (("2001:db8:1:2:3:4:5:6", 1, 0, 0), "2001:db8:1:2::/64"),
            (("2001:db8:1:2:ffff::1", 1, 0, 0), "2001:db8:1:2::/64"),
            (("fe80::1%eth0", 1, 0, 3), "fe80::/64"),
            (("::ffff:192.0.2.7", 1, 0, 0), "192.0.2.7"),
            (("127.0.0.1", 1), None),
            (("127.8.8.8", 1), None),
            (("::1", 1, 0, 0), None),
            (("::ffff:127.0.0.1", 1, 0, 0), None),
            (("10.1.2.3", 1), None),
            (("fd00::9", 1, 0, 0), None),
            (("::ffff:10.1.2.3", 1, 0, 0), None),
            ("", None),
            (None, None),
        ],
    )
    def test_of_a_peer(self, peer: object, key: Optional[str]) -> None:
        assert Addresses(("10.0.0.0/8", "fd00::9")).key(peer) == key

    @pytest.mark.parametrize("text", ["", "proxy", "10.0.0.0/33", "192.0.2.1:80", "*"])
    def test_proxy_that_is_not_an_address_is_invalid(self, text: str) -> None:
        with pytest.raises(InvalidInput, match="--proxy"):
            Addresses((text,))


class TestSpending:
    async def test_broadcast_over_the_budget_is_busy_and_writes_nothing(self, database: Path) -> None:
        clock = Clock()
        size = 3 * (1002 + ENVELOPE)
        limits = Limits(send_bytes_per_second=2 * size)
        async with gateway(database, key=KEY, now=clock, limits=limits, heartbeat_timeout=300) as running:
            for number in range(2):
                running.offline(ws_id=f"ws-00{number + 2}")
            agent = await running.agent(access_token=token("octavia", "connect", "broadcast"), ack="explicit")
            results = await _results(agent, 3, "x" * 1000)
            assert [result["ok"] for result in results] == [True, True, False]
            assert results[2]["error"]["code"] == "busy"
            assert running.db.value("SELECT count(*) FROM broadcasts") == 2
            assert running.db.value("SELECT count(*) FROM messages") == 6
            assert running.db.value("SELECT sum(message_count) FROM connections") == 6
            clock.forward(0.5)
            assert [result["ok"] for result in await _results(agent, 2, "x" * 1000)] == [True, False]

    async def test_one_that_is_larger_than_the_budget_is_possible_and_paid_for(self, database: Path) -> None:
        clock = Clock()
        limits = Limits(send_bytes_per_second=1000)
        async with gateway(database, key=KEY, now=clock, limits=limits, heartbeat_timeout=300) as running:
            agent = await running.agent(access_token=token("octavia", "connect", "broadcast"), ack="explicit")
            assert [result["ok"] for result in await _results(agent, 2, "x" * 4798)] == [True, False]
            clock.forward(4.9)
            assert [result["ok"] for result in await _results(agent, 1, "x" * 4798)] == [False]
            clock.forward(0.1)
            assert [result["ok"] for result in await _results(agent, 1, "x" * 4798)] == [True]

    async def test_reconnecting_or_another_socket_does_not_help(self, database: Path) -> None:
        limits = Limits(send_bytes_per_second=1000)
        async with gateway(database, key=KEY, now=Clock(), limits=limits) as running:
            mine = token("octavia", "connect", "send", "broadcast")
            agent = await running.agent(access_token=mine, ack="explicit")
            assert [result["ok"] for result in await _results(agent, 1, "x" * 900)] == [True]
            agent = await running.agent(access_token=mine, ack="explicit")
            other = await running.agent(ws_id="ws-002", access_token=mine, ack="explicit")
            for each in (agent, other):
                assert [result["ok"] for result in await _results(each, 1, "x" * 900)] == [False]
            # Another token has its own budget.
            theirs = token("octavia", "connect", "broadcast")
            third = await running.agent(ws_id="ws-003", access_token=theirs, ack="explicit")
            assert [result["ok"] for result in await _results(third, 1, "x" * 900)] == [True]

    async def test_sends_are_paid_for_too(self, database: Path) -> None:
        limits = Limits(send_bytes_per_second=1000)
        async with gateway(database, key=KEY, now=Clock(), limits=limits) as running:
            agent = await running.agent(access_token=token("octavia", "connect", "send"), ack="explicit")
            results = await _results(agent, 3, "x" * 298, to="ws-001")
            assert [result["ok"] for result in results] == [True, True, False]
            assert results[2]["error"]["code"] == "busy"
            assert running.db.value("SELECT count(*) FROM messages") == 2

    async def test_without_tokens_each_connection_has_its_own(self, database: Path) -> None:
        limits = Limits(send_bytes_per_second=1000)
        async with gateway(database, now=Clock(), limits=limits) as running:
            for ws_id in ("ws-001", "ws-002"):
                agent = await running.agent(ws_id=ws_id, ack="explicit")
                results = await _results(agent, 2, "x" * 900)
                assert [result["ok"] for result in results] == [True, False]

    def test_budget_is_bounded_in_memory(self) -> None:
        quotas = OwnQuotas(Limits(), Clock())
        for number in range(20_000):
            quotas.charge(f"token {number}", 100)
        assert len(quotas._spending) == 10_000

    def test_empty_broadcast_costs_something(self) -> None:
        account = Account(OwnQuotas(Limits(send_bytes_per_second=ENVELOPE), Clock()).charge, "a token")
        account.spend(0, 0)
        with pytest.raises(TooFast):
            account.check()


async def _results(agent: Any, count: int, content: str, to: Optional[str] = None) -> list[dict[str, Any]]:
    """Ask so often to broadcast, or to send, and return the results."""
    kind: dict[str, str] = {"type": "broadcast"} if to is None else {"type": "send", "to": to}
    for ref in range(count):
        await agent.say(**kind, ref=ref, content=content)
    results: list[dict[str, Any]] = []
    while len(results) < count:
        frame = await agent.json()
        if frame["type"] == "result":
            results.append(frame)
    return results
