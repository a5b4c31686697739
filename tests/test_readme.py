"""The README leaves out no command, option, table or variable. `acceptance/test_readme_walk.py` follows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from tests.commands import EVERY, made
from ws_manager.cli.app import app
from ws_manager.protocol.close_codes import CloseCode, should_reconnect
from ws_manager.repository.sqlite.schema import VERSIONS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return README.split(f"\n{title}\n", 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]


@pytest.mark.parametrize("name", EVERY)
def test_documents_every_option_and_argument_of(name: str) -> None:
    text = section(f"### {name.split()[0]}") + section("## Commands")
    for parameter in made(name).params:
        if getattr(parameter, "hidden", False):
            continue
        if parameter.param_type_name == "argument":
            assert f"<{parameter.name}>" in text
        for option in parameter.opts if parameter.param_type_name == "option" else []:
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), option


def test_documents_the_options_of_the_program_itself() -> None:
    for parameter in get_command(app).params:
        for option in parameter.opts:
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", README), option


def test_documents_every_table_and_column() -> None:
    text = section("## The database")
    for tables in VERSIONS.values():
        for table, columns in tables.items():
            described = text.split(f"**{table}**", 1)[1].split("\n\n", 1)[0]
            for column in columns:
                assert f"`{column}`" in described, (table, column)


def test_the_agent_for_browsers_comes_back_after_the_same_close_codes() -> None:
    stays_away = re.search(r"!\[([\d, ]+)\]\.includes\(code\)", README)
    assert stays_away
    codes = {int(code) for code in stays_away[1].split(",")}
    # It fetches a new token first, so it comes back later after that one.
    codes.remove(CloseCode.TOKEN_EXPIRED)
    assert codes == {code for code in CloseCode if not should_reconnect(code)}


def test_documents_every_environment_variable() -> None:
    used = set()
    for source in (ROOT / "ws_manager").rglob("*.py"):
        used |= set(re.findall(r'"((?:BLACKROAD|STRIPE)_[A-Z_]+)"', source.read_text(encoding="utf-8")))
    assert used
    assert all(f"`{name}`" in section("## Configuration") for name in used)
