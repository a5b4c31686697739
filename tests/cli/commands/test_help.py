"""`help`."""

from __future__ import annotations

import pytest

from tests.commands import EVERY
from ws_manager.cli import exit_codes
from ws_manager.cli.topics import TOPICS


def test_without_a_topic_is_the_programs_help(cli) -> None:
    assert cli("help").stdout == cli("--help").stdout


@pytest.mark.parametrize("name", [name for name in EVERY if " " not in name])
def test_of_a_command_is_its_help(cli, name: str) -> None:
    assert cli("help", name).stdout == cli(name, "--help").stdout


@pytest.mark.parametrize("topic", TOPICS)
def test_of_a_topic_fits_a_terminal(cli, topic: str) -> None:
    lines = cli("help", topic).stdout.splitlines()
    assert lines
    assert max(map(len, lines)) <= 80


def test_every_exit_code_is_explained(cli) -> None:
    codes = {value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)}
    explained = {int(line.split()[0]) for line in cli("help", "exit-codes").stdout.splitlines()}
    assert explained == codes


def test_unknown_topic(cli) -> None:
    refused = cli("help", "cookies")
    assert (refused.exit_code, "hint: one of exit-codes, environment, where" in refused.stderr) == (3, True)
