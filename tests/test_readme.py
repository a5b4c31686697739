"""The README keeps its word: its commands run, its Python runs, and no command or option is left out."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sysconfig
from contextlib import ExitStack
from pathlib import Path

import pytest
from typer.main import get_command

from tests.acceptance.processes import gateway, running
from tests.commands import EVERY, made
from ws_manager import ConnectionPool, add_connection, get_db, send_message
from ws_manager.cli.app import app
from ws_manager.repository.schema import _TABLES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
UUID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, list[str]]]:
    """Each command of the README with the output that the lines after it promise."""
    found: list[tuple[str, list[str]]] = []
    for block in blocks("bash"):
        for line in block.splitlines():
            if line.startswith("# "):
                found[-1][1].append(line[2:])
            else:
                found.append((line, []))
    return found


def test_every_command_runs_and_prints_what_it_promises(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = sysconfig.get_path("scripts")
    assert shutil.which("ws-manager", path=scripts)
    monkeypatch.setenv("PATH", scripts + os.pathsep + os.environ["PATH"])
    monkeypatch.setenv("BLACKROAD_WS_DB", str(database))
    with ExitStack() as stack:
        for line, promised in commands():
            if line.startswith("ws-manager serve"):
                # Any port: the documented one may be in use on the machine that runs the tests.
                server = stack.enter_context(running("bash", "-c", f"exec {line} --port 0"))
                server.error_line("Ready: ")
            elif "ws-manager listen" in line and "|" not in line:
                stack.enter_context(running("bash", "-c", f"exec {line}")).error_line("Ready: ")
            elif "ws-manager listen" in line:
                agent = stack.enter_context(running("bash", "-c", f"set -o pipefail; {line}"))
                agent.error_line("Ready: ")
                db = get_db(database)
                for number in range(10):
                    send_message(ConnectionPool(db), db, "ws-003", number)
                db.close()
                assert (agent.wait(), len(agent.lines())) == (0, 10)
            else:
                with running("bash", "-c", line) as ended:
                    assert ended.wait() == 0, (line, ended.rest_of_errors())
                    output = ended.lines()
                if promised:
                    pattern = "\n".join(map(re.escape, promised)).replace(re.escape("<uuid>"), UUID)
                    assert re.fullmatch(pattern, "\n".join(output)), (line, output)


def test_every_piece_of_python_runs_in_order(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLACKROAD_WS_DB", str(database))
    *pieces, agent = blocks("python")
    names: dict[str, object] = {}
    try:
        for piece in pieces:
            exec(piece, names)
    finally:
        names["db"].close()

    exec(agent, names)
    db = get_db(database)
    pool = ConnectionPool(db)
    add_connection(pool, "ws-004", "octavia")
    sent = send_message(pool, db, "ws-004", "over the wire")
    assert sent is not None

    async def until_confirmed(url: str) -> None:
        client = asyncio.ensure_future(names["agent"](url))
        while ConnectionPool(db).registry.wait(sent.db_id, sent.db_id, 0)[0] == 0:
            assert not client.done(), client
            await asyncio.sleep(0)
        client.cancel()
        await asyncio.gather(client, return_exceptions=True)

    with gateway(database) as (_, url):
        asyncio.run(asyncio.wait_for(until_confirmed(url), 60))
    db.close()


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
    for table, sql in _TABLES.items():
        described = text.split(f"**{table}**", 1)[1].split("\n\n", 1)[0]
        for column in re.findall(r"^  (\w+) ", sql, re.MULTILINE):
            assert f"`{column}`" in described, (table, column)


def test_documents_every_environment_variable() -> None:
    used = set()
    for source in (ROOT / "ws_manager").rglob("*.py"):
        used |= set(re.findall(r'"((?:BLACKROAD|STRIPE)_[A-Z_]+)"', source.read_text(encoding="utf-8")))
    assert used
    assert all(f"`{name}`" in section("## Configuration") for name in used)
