"""How a gateway stops: nobody new, everybody told, what they confirm meanwhile written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Optional

import pytest

from tests.support import LIMIT, RawAgent, Refused, gateway, run
from ws_manager.gateway import hub
from ws_manager.protocol.close_codes import CloseCode


class Stoppable:
    """A gateway that can be told to stop while the test goes on."""

    def __init__(self, database: Path, **options: object) -> None:
        self._context = gateway(database, **options)  # type: ignore[arg-type]

    async def __aenter__(self) -> Stoppable:
        self.running = await self._context.__aenter__()
        self._stopping: Optional[asyncio.Future[object]] = None
        return self

    def stop(self) -> None:
        self._stopping = asyncio.ensure_future(self._context.__aexit__(None, None, None))

    async def __aexit__(self, *_: object) -> None:
        if self._stopping is None:
            self.stop()
        assert self._stopping is not None
        await asyncio.wait_for(self._stopping, LIMIT)


@pytest.mark.parametrize("code", [CloseCode.GOING_AWAY, CloseCode.RESTARTING])
def test_sockets_are_closed_with_the_code_that_was_given(database: Path, code: CloseCode) -> None:
    async def scenario() -> None:
        async with Stoppable(database, stop_code=code) as gate:
            agent = await gate.running.agent()
            gate.stop()
            assert await agent.closed() == code

    run(scenario())


def test_many_sockets_are_closed_in_batches(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_LEAST_BATCH", 2)
    monkeypatch.setattr(hub, "_BATCH_SECONDS", 0.05)

    async def scenario() -> None:
        order: asyncio.Queue[str] = asyncio.Queue()

        async def close(agent: RawAgent, ws_id: str) -> None:
            await agent.closed()
            await order.put(ws_id)

        async with Stoppable(database, drain_seconds=0.2) as gate:
            agents = {f"ws-{n}": await gate.running.agent(ws_id=f"ws-{n}") for n in range(6)}
            closing = [asyncio.create_task(close(agent, ws_id)) for ws_id, agent in agents.items()]
            gate.stop()
            await order.get()
            # The last batch has not had its turn yet.
            assert sum(task.done() for task in closing) < 6
            await asyncio.gather(*closing)

    run(scenario())


def test_handshake_meanwhile_is_answered_503(database: Path) -> None:
    async def scenario() -> None:
        async with Stoppable(database) as gate:
            gate.running.server._sockets.stopping = True
            with pytest.raises(Refused) as refused:
                await gate.running.agent()
            assert refused.value.status == 503
            assert gate.running.registry.find("ws-001") is None

    run(scenario())
