"""Each remedy has words at the command line, and they name commands and options that exist."""

from __future__ import annotations

import re

import pytest

from ws_manager import Conflict, remedies
from ws_manager.cli.app import COMMANDS
from ws_manager.cli.hints import HINTS, hint_of

CODES = [value for name, value in vars(remedies).items() if name.isupper() and isinstance(value, str)]


@pytest.mark.parametrize("code", CODES)
def test_every_remedy_has_words(code: str) -> None:
    assert HINTS[code]


def test_words_name_commands_that_exist() -> None:
    named = {name for hint in HINTS.values() for name in re.findall(r"ws-manager ([a-z]+)", hint)}
    assert named
    assert named <= set(COMMANDS)


def test_a_remedy_goes_before_the_hint_of_the_library() -> None:
    error = Conflict("it is not empty", remedy=remedies.IMPORT_INTO_NEW)
    assert (error.hint, hint_of(error)) == (
        "import into an empty ledger",
        "import into an empty ledger: --db new.db, or an empty database",
    )


def test_a_hint_for_everybody_stays_as_it_is() -> None:
    assert hint_of(Conflict("another process holds it", hint="stop it first")) == "stop it first"


def test_it_says_what_the_remedy_is_about() -> None:
    error = Conflict("m-1 is not set aside", remedy=remedies.SHOW, about="m-1")
    assert hint_of(error) == "ws-manager show m-1 shows its outcome"
