"""Every attack ends as documented, and the agent beside it notices nothing."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any

import pytest

from tests.attacks import ATTACKS, BYSTANDER, ORIGIN, Attack, Bystander, Target, huge_head
from tests.support import Clock, RunningGateway, db_of, gateway, until
from ws_manager.gateway import server
from ws_manager.gateway.delivery import agent_socket, hub
from ws_manager.tokens import mint

KEY = b"the key of this test, not a secret"
STEP = 4.0
"""Seconds: less than any timeout of the gateway."""
LATEST = 5000.0
"""On the test's clock: past every timeout, however late the gateway looks at it."""


@pytest.fixture(autouse=True)
def _short_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway looks at its clock often; what it sees there is the test's business."""
    monkeypatch.setattr(hub, "_TICK_SECONDS", 0.005)
    monkeypatch.setattr(server, "_TICK_SECONDS", 0.005)


@contextlib.asynccontextmanager
async def beside(running: RunningGateway) -> AsyncIterator[Bystander]:
    """An agent with a message in flight, which must stay as it is whatever happens in the block."""
    agent = await running.agent("bystander", BYSTANDER, ack="explicit", access_token=mint(KEY, "bystander"))
    bystander = Bystander(agent)
    try:
        first = running.send("before", BYSTANDER)
        assert b"before" in await bystander.frame()
        row = running.connection(BYSTANDER)
        yield bystander
        second = running.send("after", BYSTANDER)
        assert b"after" in await bystander.frame()
        now = running.connection(BYSTANDER)
        assert (now.epoch, now.status, now.close_code) == (row.epoch, "active", None)
        assert not {first, second} & set(running.delivered())
        await agent.ack(second)
        await running.confirmed(first, second)
    finally:
        await bystander.leave()


@contextlib.asynccontextmanager
async def attacked(database: Path) -> AsyncIterator[Target]:
    """A gateway to attack, and the agent beside it."""
    clock = Clock()
    async with gateway(database, now=clock, key=KEY, origins=(ORIGIN,)) as running:

        def narrow(ws_id: str) -> None:
            transport = running.server._hub._sockets[ws_id]._transport
            transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, 4096)

        async with beside(running) as bystander:

            async def pass_time() -> None:
                assert clock() < LATEST, "no timeout ended it"
                clock.forward(STEP)
                await bystander.sign_of_life()

            foreign = running.db.value("SELECT max(id) FROM messages")
            yield Target(running.url, KEY, db_of(running.ledger), foreign, pass_time=pass_time, narrow=narrow)


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
async def test_ends_as_documented_and_touches_nobody_else(database: Path, attack: Attack) -> None:
    async with attacked(database) as target:
        assert await attack.make(target) == attack.ends


# aiohttp keeps the head of a malformed request in a reference cycle.
@pytest.mark.parametrize("attack", [each for each in ATTACKS if each.make is not huge_head], ids=str)
async def test_leaves_nothing_to_the_garbage_collector(
    database: Path, attack: Attack, alive: weakref.WeakSet[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_socket, "TURN_AWAY_SECONDS", 0.01)

    async with attacked(database) as target:
        of_the_bystander = set(alive)
        await attack.make(target)
        await until(lambda: set(alive) == of_the_bystander)
