"""The payloads of Pings, and which Pong answers which."""

from __future__ import annotations

from ws_manager.protocol.pings import Pings


def test_payload_is_the_nonce_and_a_count() -> None:
    pings = Pings(b"8 bytes.")
    assert [pings.new(7, 1.0), pings.new(7, 1.0)] == [b"8 bytes.\0\0\0\1", b"8 bytes.\0\0\0\2"]


def test_pong_brings_what_was_written_and_when() -> None:
    pings = Pings(b"8 bytes.")
    first, second = pings.new(7, 1.0), pings.new(9, 2.0)
    assert [pings.answered(first), pings.answered(second)] == [(7, 1.0), (9, 2.0)]


def test_pong_answers_once() -> None:
    pings = Pings(b"8 bytes.")
    payload = pings.new(7, 1.0)
    assert [pings.answered(payload), pings.answered(payload), len(pings)] == [(7, 1.0), None, 0]


def test_pong_answers_the_earlier_pings_too() -> None:
    pings = Pings(b"8 bytes.")
    first, second, third = (pings.new(seq, 1.0) for seq in (1, 2, 3))
    pings.answered(second)
    assert [pings.answered(first), len(pings), pings.answered(third)] == [None, 1, (3, 1.0)]


def test_pong_of_another_socket_answers_nothing() -> None:
    pings = Pings(b"8 bytes.")
    pings.new(7, 1.0)
    assert [pings.answered(Pings(b"8 others").new(7, 1.0)), len(pings)] == [None, 1]


def test_the_oldest_of_very_many_is_forgotten() -> None:
    pings = Pings(b"8 bytes.")
    payloads = [pings.new(seq, 1.0) for seq in range(100)]
    assert (len(pings), pings.answered(payloads[0])) == (16, None)
    assert pings.answered(payloads[-1]) == (99, 1.0)
