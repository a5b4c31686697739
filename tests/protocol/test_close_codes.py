"""What each close code means."""

from __future__ import annotations

import pytest

from ws_manager.protocol.close_codes import (
    MEANINGS,
    CloseCode,
    describe,
    is_goodbye,
    meaning,
    should_reconnect,
)


@pytest.mark.parametrize("code", [1001, 1006, 1012, 4001, 4008, 4029])
def test_agent_comes_back(code: int) -> None:
    assert should_reconnect(code)


@pytest.mark.parametrize("code", [1000, 1009, 4000, 4009, 4010])
def test_agent_does_not_come_back(code: int) -> None:
    assert not should_reconnect(code)


@pytest.mark.parametrize("code", [1000, 1001, 1005])
def test_peer_that_starts_it_has_finished(code: int) -> None:
    assert is_goodbye(code)


@pytest.mark.parametrize("code", [1002, 1003, 1006, 1007, 1009, 1011, 3000, 4000, 4009])
def test_peer_that_starts_it_has_failed(code: int) -> None:
    assert not is_goodbye(code)


@pytest.mark.parametrize("code", list(CloseCode))
def test_every_code_has_a_meaning(code: CloseCode) -> None:
    assert meaning(code) == MEANINGS[code]


def test_reason_of_the_peer_wins() -> None:
    assert meaning(1000, "shift is over") == "shift is over"


def test_unknown_code_has_no_meaning() -> None:
    assert meaning(3999) == "no reason given"


def test_description_has_the_code() -> None:
    assert describe(4009) == "replaced by a newer socket (4009)"
