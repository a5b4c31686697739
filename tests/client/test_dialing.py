"""The handshake's patience."""

from __future__ import annotations

import asyncio

import pytest

from ws_manager.client.dialing import in_time


async def test_a_cancellation_that_comes_with_the_outcome_is_not_lost() -> None:
    outcome = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(in_time(_of(outcome), 60))
    # The work begins to wait.
    for _ in range(3):
        await asyncio.sleep(0)
    outcome.set_result("there")
    # The work has ended, and whoever waits for it has not gone on yet.
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_what_takes_too_long_is_cancelled() -> None:
    outcome = asyncio.get_running_loop().create_future()
    with pytest.raises(asyncio.TimeoutError):
        await in_time(_of(outcome), 0)
    assert outcome.cancelled()


async def _of(outcome: asyncio.Future[str]) -> str:
    return await outcome
