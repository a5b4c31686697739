"""The calls between a parent and a worker, when one of them ends."""

from __future__ import annotations

import asyncio
import importlib
import socket
from typing import Any, Callable

import pytest

from ws_manager.errors import GatewayUnavailable
from ws_manager.gateway.workers.channel import Channel


def uvloop_loop() -> asyncio.AbstractEventLoop:
    """uvloop's event loop, where it is installed."""
    pytest.importorskip("uvloop")
    loop: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
    return loop


async def talk_to_nobody() -> None:
    """Tell and call while this end does not know yet that the other one has gone."""
    ours, theirs = socket.socketpair()
    channel = Channel({})
    await channel.open(ours)
    running: asyncio.Future[Any] = asyncio.ensure_future(channel.run())
    # It has not read everything when it ends: the transport fails before the end of the stream is read.
    channel.tell("leave", 1)
    await asyncio.sleep(0)
    theirs.close()
    answers = []
    while not running.done():
        channel.tell("leave", 2)
        answers.append(channel.call("enter", 3, None, None))
        await asyncio.sleep(0)
    for answer in answers:
        with pytest.raises(GatewayUnavailable):
            await asyncio.wait_for(answer, 5)
    await asyncio.wait_for(running, 5)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop_loop])
def test_who_ends_unnoticed_fails_no_call(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    loop = new_loop()
    try:
        loop.run_until_complete(talk_to_nobody())
    finally:
        loop.close()
