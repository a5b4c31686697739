"""Every attack ends as documented, and the agent beside it notices nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from socket import SO_SNDBUF, SOL_SOCKET

import pytest

from tests.attacks import ATTACKS, BYSTANDER, ORIGIN, Attack, Bystander, Target
from tests.support import Clock, RunningGateway, gateway, run
from ws_manager.gateway import hub, server
from ws_manager.tokens import mint

KEY = b"the key of this test, not a secret"
STEP = 4.0
"""Seconds: less than any time-out of the gateway."""
LATEST = 5000.0
"""On the test's clock: past every time-out, however late the gateway looks at it."""


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


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_ends_as_documented_and_touches_nobody_else(database: Path, attack: Attack) -> None:
    async def scenario() -> None:
        clock = Clock()
        async with gateway(database, now=clock, key=KEY, origins=(ORIGIN,)) as running:

            def narrow(ws_id: str) -> None:
                transport = running.server._hub._sockets[ws_id]._transport
                transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, 4096)

            async with beside(running) as bystander:

                async def pass_time() -> None:
                    assert clock() < LATEST, "no time-out ended it"
                    clock.forward(STEP)
                    await bystander.sign_of_life()

                foreign = running.db.value("SELECT max(id) FROM messages")
                target = Target(running.url, KEY, running.db, foreign, pass_time=pass_time, narrow=narrow)
                assert await attack.make(target) == attack.ends

    run(scenario())
