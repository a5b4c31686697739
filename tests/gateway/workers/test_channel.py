"""Calls between a parent and a worker, over a real pair of sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from tests.support import within
from ws_manager.errors import GatewayUnavailable
from ws_manager.gateway.quotas import OverQuota, TooFast
from ws_manager.gateway.workers import channel
from ws_manager.gateway.workers.channel import Channel, Handler

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the pair is of Unix sockets")


@contextlib.asynccontextmanager
async def pair(handlers: Mapping[str, Handler]) -> AsyncIterator[tuple[Channel, Channel]]:
    """Two ends that run; the second one has the handlers."""
    ends = Channel({}), Channel(handlers)
    for end, connection in zip(ends, socket.socketpair()):
        await end.open(connection)
    running = [asyncio.ensure_future(end.run()) for end in ends]
    try:
        yield ends
    finally:
        ends[0].close()
        await within(asyncio.gather(*running))


class TestCall:
    async def test_brings_the_answer(self) -> None:
        async with pair({"double": lambda number: number * 2}) as (caller, _):
            assert await within(caller.call("double", 21)) == 42

    async def test_brings_the_answer_that_is_awaited(self) -> None:
        async def later() -> str:
            await asyncio.sleep(0)
            return "done"

        async with pair({"later": later}) as (caller, _):
            assert await within(caller.call("later")) == "done"

    async def test_takes_effect_in_order_whichever_is_answered_first(self) -> None:
        taken: list[int] = []
        free = asyncio.Event()

        def slow(number: int) -> Any:
            taken.append(number)
            return free.wait()

        async with pair({"slow": slow, "quick": taken.append}) as (caller, _):
            first = caller.call("slow", 1)
            caller.tell("quick", 2)
            await within(caller.call("quick", 3))
            assert (taken, first.done()) == ([1, 2, 3], False)
            free.set()
            await within(first)

    @pytest.mark.parametrize(
        "error",
        [
            OverQuota("full", "--max-connections", hint="later"),
            TooFast("too fast", "--max-handshake-rate", 2.5, hint="slower"),
        ],
        ids=["over quota", "too fast"],
    )
    async def test_brings_a_refusal_as_it_was(self, error: OverQuota) -> None:
        def refuse() -> None:
            raise error

        async with pair({"refuse": refuse}) as (caller, _):
            with pytest.raises(type(error)) as raised:
                await within(caller.call("refuse"))
        assert vars(raised.value) == vars(error)

    async def test_that_fails_is_logged_where_it_failed(self, caplog: pytest.LogCaptureFixture) -> None:
        def fail() -> None:
            raise KeyError("a defect")

        async with pair({"fail": fail}) as (caller, _):
            with pytest.raises(GatewayUnavailable):
                await within(caller.call("fail"))
        assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [KeyError]

    async def test_that_is_not_answered_in_time_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(channel, "_ANSWER_SECONDS", 0.01)
        async with pair({"never": lambda: asyncio.get_running_loop().create_future()}) as (caller, _):
            with pytest.raises(GatewayUnavailable, match="cannot answer now"):
                await within(caller.call("never"))


class TestEnd:
    async def test_of_the_other_side_fails_what_waits_and_what_comes(self) -> None:
        asked = asyncio.Event()

        def never() -> asyncio.Future[None]:
            asked.set()
            return asyncio.get_running_loop().create_future()

        async with pair({"never": never}) as (caller, other):
            waiting = caller.call("never")
            await within(asked.wait())
            other.close()
            for _ in range(2):
                with pytest.raises(GatewayUnavailable):
                    await within(waiting)
                waiting = caller.call("never")
            caller.tell("never")

    async def test_that_nobody_waits_for_is_no_error(self, caplog: pytest.LogCaptureFixture) -> None:
        async with pair({}) as (caller, other):
            other.close()
            with contextlib.suppress(GatewayUnavailable):
                caller.call("unknown")
        assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []

    async def test_of_the_other_process_is_no_defect_until_it_is_noticed(self) -> None:
        ours, theirs = socket.socketpair()
        end = Channel({})
        await end.open(ours)
        running = asyncio.ensure_future(end.run())
        # It has not read everything when it ends: the transport fails before the end of the stream is read.
        end.tell("leave", 1)
        await asyncio.sleep(0)
        theirs.close()
        answers = []
        while not running.done():
            end.tell("leave", 2)
            answers.append(end.call("enter", 3, None, None))
            await asyncio.sleep(0)
        await within(running)
        for answer in answers:
            with pytest.raises(GatewayUnavailable):
                await within(answer)
