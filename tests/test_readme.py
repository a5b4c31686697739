"""The documentation leaves out no command, option, table or variable. `acceptance/test_readme_walk.py` follows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from tests.commands import EVERY, made
from tests.documentation import DOCS, README, ROOT, anchors, documents, links, pages, section
from ws_manager.cli.app import app
from ws_manager.protocol.close_codes import CloseCode, should_reconnect
from ws_manager.repository.sqlite.schema import VERSIONS

REFERENCE = (DOCS / "reference.md").read_text(encoding="utf-8")
AGENTS = (DOCS / "agents.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", EVERY)
def test_documents_every_option_and_argument_of(name: str) -> None:
    command, common = name.split()[0], section(REFERENCE, "## Commands")
    assert f"[{command}](#{command})" in common
    text = section(REFERENCE, f"### {command}") + common
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
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", REFERENCE), option


def test_documents_every_table_and_column() -> None:
    text = section(REFERENCE, "### The tables")
    for tables in VERSIONS.values():
        for table, columns in tables.items():
            described = text.split(f"**{table}**", 1)[1].split("\n\n", 1)[0]
            for column in columns:
                assert f"`{column}`" in described, (table, column)


def test_the_agent_for_browsers_comes_back_after_the_same_close_codes() -> None:
    stays_away = re.search(r"!\[([\d, ]+)\]\.includes\(code\)", AGENTS)
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
    assert all(f"`{name}`" in section(REFERENCE, "## Configuration") for name in used)


@pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page if not path else page.parent / path
        assert target.is_file(), link
        if anchor:
            assert anchor in anchors(target), link


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 300


def test_the_readme_lists_every_page() -> None:
    assert sorted(pages()[1:]) == sorted(DOCS.glob("*.md"))
