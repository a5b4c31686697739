"""What workers use together, and what one takes with it when it ends."""

from __future__ import annotations

import asyncio
from typing import Any, Optional

import pytest

from tests.support import Clock, within
from ws_manager.errors import GatewayUnavailable
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
    one["name"](1, "ws-1")
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


class Settling:
    """The channel of a worker that has receipts to write."""

    def __init__(self) -> None:
        self.written: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def call(self, name: str) -> asyncio.Future[None]:
        assert name == "settle"
        return self.written


class TestTakeOver:
    @staticmethod
    def held_by_the_first(
        limits: Optional[Limits] = None,
    ) -> tuple[Share, asyncio.Future[None], dict[str, Any], dict[str, Any]]:
        first, second = shares(limits or Limits())
        settling = Settling()
        first.channel = settling  # type: ignore[assignment]
        one, two = calls(first, second)
        one["enter"](1, None, "ws-1")
        one["name"](1, "ws-1")
        return first, settling.written, one, two

    @pytest.mark.parametrize("left", [False, True], ids=["open", "closed"])
    async def test_waits_for_the_receipts_of_the_worker_before(self, left: bool) -> None:
        _, written, one, two = self.held_by_the_first(Limits(connections=1))
        if left:
            one["leave"](1)
        waiting = asyncio.ensure_future(two["enter"](1, None, "ws-1"))
        await asyncio.sleep(0)
        assert not waiting.done()
        written.set_result(None)
        await within(waiting)

    async def test_waits_no_longer_once_all_are_written(self) -> None:
        _, _, one, two = self.held_by_the_first()
        one["leave"](1)
        one["forget"](1)
        assert two["enter"](1, None, "ws-1") is None

    async def test_in_the_same_worker_waits_for_nothing_here(self) -> None:
        _, _, one, _ = self.held_by_the_first()
        assert one["enter"](2, None, "ws-1") is None

    async def test_that_is_refused_later_changes_nothing(self) -> None:
        _, written, _, two = self.held_by_the_first()
        waiting = []
        for number in (1, 2):
            waiting.append(asyncio.ensure_future(two["enter"](number, None, "ws-1")))
            await asyncio.sleep(0)
            assert not waiting[-1].done()
            two["leave"](number)
            two["forget"](number)
        written.set_result(None)
        await within(asyncio.gather(*waiting))

    async def test_of_a_worker_that_does_not_answer_is_refused(self) -> None:
        _, written, _, two = self.held_by_the_first()
        written.set_exception(GatewayUnavailable("late"))
        with pytest.raises(GatewayUnavailable):
            await within(two["enter"](1, None, "ws-1"))

    async def test_of_a_worker_that_dies_meanwhile_is_let_in(self) -> None:
        first, written, _, two = self.held_by_the_first()
        waiting = asyncio.ensure_future(two["enter"](1, None, "ws-1"))
        await asyncio.sleep(0)
        first.channel = None
        written.set_exception(GatewayUnavailable("gone"))
        await within(waiting)


async def test_nothing_is_left_of_addresses_that_have_gone() -> None:
    (first,) = shares(Limits(), 1)
    (one,) = calls(first)
    for number in range(100):
        await one["arrive"](f"2001:db8:{number:x}::/64")
        one["depart"](f"2001:db8:{number:x}::/64")
    assert len(first._connections) == 0
