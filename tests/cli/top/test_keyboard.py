"""What each key of a live view does."""

from __future__ import annotations

import pytest

from ws_manager.cli.top.keyboard import Controls


@pytest.fixture
def controls() -> Controls:
    return Controls(("pending", "idle", "sent"), "pending")


def test_s_goes_through_the_orders(controls: Controls) -> None:
    seen = []
    for _ in range(4):
        controls.press("s")
        seen.append(controls.order)
    assert seen == ["idle", "sent", "pending", "idle"]
    controls.press("S")
    assert controls.order == "pending"
    assert controls.changed


@pytest.mark.parametrize(("key", "name"), [("/", "text"), ("a", "agent")])
def test_a_prompt_takes_what_is_typed(controls: Controls, key: str, name: str) -> None:
    controls.press(f"{key}qps ü\x7f日\r")
    assert getattr(controls, name) == "qps 日"
    assert (controls.prompt, controls.ended, controls.paused, controls.changed) == ("", False, False, True)


def test_a_prompt_begins_with_what_is_there(controls: Controls) -> None:
    controls.press("/one\r/\x15two\r")
    assert controls.text == "two"
    controls.press("/\x7f\x7f\x7f\r")
    assert controls.text is None


def test_escape_leaves_a_prompt_and_then_shows_all(controls: Controls) -> None:
    controls.press("/one\r")
    controls.press("/two\x1b")
    assert (controls.text, controls.prompt) == ("one", "")
    controls.press("\x1b")
    assert controls.text is None


def test_arrow_keys_do_nothing(controls: Controls) -> None:
    controls.press("/a\x1b[A\x1b[1;5Cb\x1bOP\r\x1b[B")
    assert controls.text == "ab"


def test_p_pauses_and_goes_on(controls: Controls) -> None:
    controls.press("p")
    assert controls.paused
    controls.press(" ")
    assert not controls.paused
    assert controls.changed


def test_q_ends(controls: Controls) -> None:
    controls.press("q")
    assert controls.ended


def test_control_characters_are_not_typed(controls: Controls) -> None:
    controls.press("/a\x00\x07\x9b\u202eb\r")
    assert controls.text == "ab"
