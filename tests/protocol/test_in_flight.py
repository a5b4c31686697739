"""The numbers and sizes of what is in flight, against a plain list."""

from __future__ import annotations

import random
import tracemalloc
from typing import Any

import pytest

from ws_manager.protocol.in_flight import InFlight


def filled(*seqs: int) -> InFlight:
    flight = InFlight()
    for seq in seqs:
        flight.append(seq, seq * 10)
    return flight


def test_the_lowest_number_is_first() -> None:
    assert filled(3, 5).first == 3


def test_takes_them_out_in_order_with_their_sizes() -> None:
    flight = filled(3, 5)
    assert [flight.take_through(4), flight.take_through(5), len(flight)] == [([3], 30), ([5], 50), 0]


def test_takes_out_all_up_to_a_number() -> None:
    flight = filled(3, 5, 7)
    assert (flight.take_through(6), len(flight)) == (([3, 5], 80), 1)


def test_knows_what_is_in_it() -> None:
    flight = filled(3, 5, 7)
    flight.take_through(3)
    assert [seq for seq in range(9) if seq in flight] == [5, 7]


def test_one_in_the_middle_can_be_removed() -> None:
    flight = filled(3, 5, 7)
    assert flight.remove(5) == 50
    assert flight.take_through(7) == ([3, 7], 100)


@pytest.mark.parametrize("seed", range(20))
def test_it_does_what_a_list_does(seed: int) -> None:
    chance, flight, last = random.Random(seed), InFlight(), 0
    expected: list[Any] = []
    for _ in range(3000):
        act = chance.random()
        if act < 0.65 or not expected:
            last += chance.randrange(1, 5)
            flight.append(last, last % 97)
            expected.append((last, last % 97))
        elif act < 0.9:
            count = chance.randrange(1, min(3, len(expected)) + 1)
            taken, expected = expected[:count], expected[count:]
            assert flight.take_through(taken[-1][0]) == (
                [seq for seq, _ in taken],
                sum(size for _, size in taken),
            )
        else:
            seq, size = expected.pop(chance.randrange(len(expected)))
            assert flight.remove(seq) == size
        assert len(flight) == len(expected)
        assert not expected or flight.first == expected[0][0]


def test_a_thousand_cost_a_few_kib_however_many_have_passed() -> None:
    tracemalloc.start()
    try:
        flight = filled(*range(1, 1001))
        for seq in range(1001, 20_000):
            flight.append(seq, 200)
            flight.take_through(flight.first)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 32 * 1024


def test_message_begins_once_until_its_attempt_has_ended() -> None:
    flight = filled(1, 2, 3)
    assert [flight.begin(2), flight.begin(2), flight.begin(9)] == [True, False, False]
    assert [flight.end(1), flight.end(2), flight.end(2)] == [False, True, False]
    assert flight.begin(2)
    assert flight.begin(3)
    flight.take_through(2)
    assert not flight.end(2)
    flight.remove(3)
    assert not flight.end(3)
