"""What workers use together, and what one takes with it when it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support import Clock, within
from ws_manager.gateway.limits import Limits
from ws_manager.gateway.own_quotas import BURST_SECONDS, OwnQuotas
from ws_manager.gateway.quotas import OverQuota, TooFast
from ws_manager.gateway.workers.shares import Share


def shares(limits: Limits, count: int = 2) -> list[Share]:
    quotas = OwnQuotas(limits, Clock())
    holders: dict[str, tuple[Share, int]] = {}
    return [Share(quotas, holders) for _ in range(count)]


def calls(*those: Share) -> list[dict[str, Any]]:
    return [dict(share.handlers()) for share in those]


async def test_connections_of_an_address_count_together() -> None:
    first, second = shares(Limits(per_address=2))
    one, two = calls(first, second)
    assert await one["arrive"]("192.0.2.7")
    assert await two["arrive"]("192.0.2.7")
    assert not await two["arrive"]("192.0.2.7")
    assert await two["arrive"]("192.0.2.8")
    one["depart"]("192.0.2.7")
    two["depart"]("192.0.2.7")
    assert await one["arrive"]("192.0.2.7")


async def test_a_worker_that_ends_leaves_nothing_behind() -> None:
    first, second = shares(Limits(per_address=1, connections=2, per_token=2))
    one, two = calls(first, second)
    await one["arrive"]("192.0.2.7")
    one["enter"](1, "token", "ws-1")
    one["enter"](2, "token", None)
    one["name"](2, "ws-2")
    with pytest.raises(OverQuota, match="full"):
        two["enter"](1, "token", "ws-3")
    first.release()
    assert await two["arrive"]("192.0.2.7")
    assert two["enter"](1, "token", "ws-1") is None
    assert two["enter"](2, "token", "ws-2") is None


def test_the_same_number_of_two_workers_are_two_handshakes() -> None:
    one, two = calls(*shares(Limits(connections=2)))
    one["enter"](1, None, None)
    two["enter"](1, None, None)
    with pytest.raises(OverQuota):
        one["enter"](2, None, None)
    two["leave"](1)
    one["enter"](2, None, None)


def test_handshakes_that_fail_count_together() -> None:
    one, two = calls(*shares(Limits(handshakes_per_second=1)))
    for _ in range(BURST_SECONDS):
        one["count"]("token", "192.0.2.7")
    with pytest.raises(TooFast):
        two["check_address"]("192.0.2.7")
    with pytest.raises(TooFast):
        two["enter"](1, "token", None)


def test_bytes_sent_count_together() -> None:
    one, two = calls(*shares(Limits(send_bytes_per_second=1000)))
    assert one["charge"]("token", 1500) == 0
    assert two["charge"]("token", 0) > 0.5


async def test_one_that_takes_over_waits_for_the_receipts_of_the_worker_before() -> None:
    first, second = shares(Limits(connections=1))
    one, two = calls(first, second)

    class Before:
        asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def call(self, name: str) -> asyncio.Future[None]:
            assert name == "settle"
            return self.asked

    first.channel = Before()  # type: ignore[assignment]
    one["enter"](1, None, "ws-1")
    waiting = asyncio.ensure_future(two["enter"](1, None, "ws-1"))
    await asyncio.sleep(0)
    assert not waiting.done()
    Before.asked.set_result(None)
    await within(waiting)
    # The same worker writes them first by itself.
    assert two["enter"](2, None, "ws-1") is None
