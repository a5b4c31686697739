"""Which items are due when, against a plain list."""

from __future__ import annotations

import random

import pytest

from ws_manager.gateway.delivery.wheel import Wheel


def wheel(**items: float) -> Wheel[str]:
    made: Wheel[str] = Wheel(1.0)
    for item, at in items.items():
        made.put(item, at)
    return made


def test_gives_out_what_is_due_the_longest_due_first() -> None:
    assert wheel(c=3.0, a=1.0, b=2.0).due(2.5) == ["a", "b"]


def test_never_too_early_and_at_most_a_slot_too_late() -> None:
    assert [wheel(a=1.2).due(now) for now in (1.19, 1.99, 2.0)] == [[], [], ["a"]]


def test_gives_out_once() -> None:
    it = wheel(a=1.0)
    assert [it.due(1.0), it.due(9.0), len(it)] == [["a"], [], 0]


def test_earlier_time_counts() -> None:
    it = wheel(a=5.0)
    it.put("a", 2.0)
    it.put("a", 9.0)
    assert [it.due(2.0), it.due(9.0)] == [["a"], []]


def test_what_is_discarded_does_not_come() -> None:
    it = wheel(a=1.0, b=1.0)
    it.discard("a")
    it.discard("unknown")
    assert [it.due(1.0), len(it)] == [["b"], 0]


def test_very_late_gives_out_everything() -> None:
    assert wheel(a=1.0, b=1e9).due(1e9) == ["a", "b"]


@pytest.mark.parametrize("seed", range(20))
def test_does_what_a_list_does(seed: int) -> None:
    chance, it, now = random.Random(seed), wheel(), 0.0
    expected: dict[str, int] = {}
    for _ in range(2000):
        item = str(chance.randrange(50))
        act = chance.random()
        if act < 0.6:
            at = now + chance.random() * 20
            it.put(item, at)
            place = -int(-at // 1)
            expected[item] = min(place, expected.get(item, place))
        elif act < 0.7:
            it.discard(item)
            expected.pop(item, None)
        else:
            now += chance.random() * 3
            assert sorted(it.due(now)) == sorted(each for each, place in expected.items() if place <= now)
            expected = {each: place for each, place in expected.items() if place > now}
        assert len(it) == len(expected)
