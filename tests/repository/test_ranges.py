"""Ids as text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ws_manager.repository.ranges import ranges_of, runs_of, seqs_of, spans_of


def test_neighbours_are_a_range() -> None:
    assert ranges_of([1010, 4, 6, 5, 4]) == "4-6,1010"
    assert list(runs_of([4, 5, 6, 1010])) == [(4, 6), (1010, 1010)]


def test_nothing_is_an_empty_text() -> None:
    assert ranges_of([]) == ""
    assert list(seqs_of("")) == []


def test_a_text_in_another_order_is_read_in_ascending_order() -> None:
    assert spans_of("4-6,1012,1010") == [(4, 6), (1010, 1010), (1012, 1012)]
    assert list(seqs_of("4-6,1012,1010")) == [4, 5, 6, 1010, 1012]


@given(st.lists(st.integers(1, 60)))
def test_what_was_written_is_read(seqs: list[int]) -> None:
    assert list(seqs_of(ranges_of(seqs))) == sorted(set(seqs))
