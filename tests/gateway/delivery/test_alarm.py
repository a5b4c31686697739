"""One timer for all that waits. The clock is the test's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support import Clock, until
from ws_manager.gateway.delivery.alarm import Alarm


class Rung:
    """An alarm, its clock, and what it has called for."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.items: list[str] = []
        self.alarm: Alarm[str] = Alarm(self.clock, self.items.append)

    def put(self, **after: float) -> None:
        """Put items in. `after` has the seconds from now until each is due."""
        for item, seconds in after.items():
            self.alarm.put(item, self.clock() + seconds)


async def test_calls_once_the_time_has_come() -> None:
    it = Rung()
    it.put(a=0.05)
    it.clock.forward(0.055)
    await until(lambda: it.items == ["a"])


async def test_does_not_call_before() -> None:
    it = Rung()
    it.put(later=0.05, now=0)
    it.clock.forward(0.045)
    await until(lambda: it.items)
    assert it.items == ["now"]


async def test_runs_while_something_waits() -> None:
    it = Rung()
    before = it.alarm.runs
    it.put(a=0.05)
    during = it.alarm.runs
    it.clock.forward(0.055)
    await until(lambda: it.items)
    assert (before, during, it.alarm.runs) == (False, True, False)


async def test_has_one_timer_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers = asyncio.get_running_loop(), []
    usual = loop.call_later

    def noted(delay: float, *args: Any) -> asyncio.TimerHandle:
        timers.append(delay)
        return usual(delay, *args)

    monkeypatch.setattr(loop, "call_later", noted)
    it = Rung()
    for number in range(100):
        it.put(**{str(number): number / 2000})
    assert len(timers) == 1


async def test_what_is_discarded_is_not_called_for() -> None:
    it = Rung()
    it.put(a=0.01, b=0.01)
    it.alarm.discard("a")
    it.clock.forward(0.05)
    await until(lambda: it.items)
    assert it.items == ["b"]


async def test_does_not_run_once_all_is_discarded() -> None:
    it = Rung()
    it.put(a=0.01)
    it.alarm.discard("a")
    it.alarm.discard("unknown")
    assert not it.alarm.runs


async def test_what_is_put_in_again_is_called_for_again() -> None:
    clock, times = Clock(), []

    def ring(item: str) -> None:
        times.append(clock())
        if len(times) < 3:
            alarm.put(item, clock())

    alarm: Alarm[str] = Alarm(clock, ring)
    alarm.put("a", clock())
    await until(lambda: len(times) == 3)
    assert not alarm.runs
