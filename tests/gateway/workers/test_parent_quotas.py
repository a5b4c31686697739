"""The quotas as a worker sees them: what it asks its parent, and what it does without an answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support import within
from ws_manager.errors import GatewayUnavailable
from ws_manager.gateway.workers import parent_quotas
from ws_manager.gateway.workers.channel import NoAnswer
from ws_manager.gateway.workers.parent_quotas import ParentQuotas


class Parent:
    """A channel to a parent that answers with what the test says."""

    def __init__(self) -> None:
        self.is_open = True
        self.asked: list[tuple[object, ...]] = []
        self.answers: dict[str, Any] = {}

    def call(self, *call: str) -> asyncio.Future[Any]:
        self.asked.append(call)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if isinstance(found := self.answers.get(call[0]), Exception):
            answer.set_exception(found)
        elif call[0] in self.answers:
            answer.set_result(found)
        return answer

    def tell(self, *call: object) -> None:
        self.asked.append(call)


def quotas(parent: Parent, settled: Any = None) -> ParentQuotas:
    async def settle() -> None:
        if settled is not None:
            await settled.wait()

    return ParentQuotas(parent, settle)  # type: ignore[arg-type]


async def charged(asking: ParentQuotas, key: str, cost: int) -> float:
    """Charge on another thread, as the writing thread does."""
    return await within(asyncio.get_running_loop().run_in_executor(None, asking.charge, key, cost))


class TestCharge:
    async def test_is_the_parents(self) -> None:
        parent = Parent()
        parent.answers["charge"] = 0.0
        assert await charged(quotas(parent), "token", 500) == 0
        assert parent.asked == [("charge", "token", 500)]

    async def test_that_would_be_refused_is_not_asked_again(self) -> None:
        parent = Parent()
        parent.answers["charge"] = 60.0
        asking = quotas(parent)
        assert await charged(asking, "token", 500) == 60
        for cost in (0, 500):
            assert 0 < await charged(asking, "token", cost) <= 60
        assert len(parent.asked) == 1
        # Another key's is its own.
        assert await charged(asking, "other", 0) == 0

    async def test_without_an_answer_keeps_nobody_for_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parent_quotas, "_CHARGE_SECONDS", 0.01)
        with pytest.raises(GatewayUnavailable, match="cannot answer now"):
            await charged(quotas(Parent()), "token", 500)


async def test_trouble_is_logged_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    parent = Parent()
    asking = quotas(parent)
    parent.answers["enter"] = NoAnswer("the gateway cannot answer now")
    for number in range(3):
        with pytest.raises(GatewayUnavailable):
            await asking.enter(number, None, None)
    parent.answers["enter"] = None
    await asking.enter(4, None, None)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "cannot ask the parent process, will go on trying",
        "can ask the parent process again",
    ]


async def test_a_handshake_is_forgotten_when_its_receipts_are_written() -> None:
    parent, written = Parent(), asyncio.Event()
    asking = quotas(parent, written)
    asking.leave(7)
    await asyncio.sleep(0)
    assert parent.asked == [("leave", 7)]
    written.set()
    await within(asyncio.gather(*asking._settling))
    assert parent.asked == [("leave", 7), ("forget", 7)]


class TestTrouble:
    @pytest.mark.parametrize(
        ("answer", "there", "logged"),
        [
            (NoAnswer("no answer"), True, True),
            # The worker ends, and says why.
            (NoAnswer("no answer"), False, False),
            # This is what the parent says: another worker, which has the receipts, does not answer.
            (GatewayUnavailable("the gateway cannot answer now"), True, False),
        ],
    )
    async def test_is_a_parent_that_does_not_answer(
        self, answer: Exception, there: bool, logged: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        parent = Parent()
        parent.answers["enter"] = answer
        parent.is_open = there
        with pytest.raises(GatewayUnavailable):
            await quotas(parent).enter(1, "token", None)
        assert bool(caplog.records) == logged
