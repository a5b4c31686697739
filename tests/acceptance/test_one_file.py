"""One ledger under several names: one gateway, one key, and commands that find it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from tests.acceptance.processes import COMMAND, command, gateway_with_tokens, listener, running
from ws_manager.tokens import key_path


@pytest.fixture
def link(tmp_path: Path, database: Path) -> Path:
    """A link to `database` in another folder."""
    command(database, "connect", "octavia", "--ws-id", "ws-000")
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "agents.db"
    link.symlink_to(database)
    return link


@pytest.mark.parametrize("first", ["link", "file"])
def test_a_second_gateway_is_refused_under_any_name(link: Path, database: Path, first: str) -> None:
    one, other = (link, database) if first == "link" else (database, link)
    serve = [*COMMAND, "--db", str(other), "serve", "--port", "0"]
    with gateway_with_tokens(one) as (_, url), running(*serve) as second:
        assert second.wait() == 6
        assert url in " ".join(second.rest_of_errors())
    assert {path.name for path in link.parent.iterdir()} == {"agents.db"}
    assert key_path(database).exists()


def test_an_agent_finds_the_gateway_and_the_key_under_any_name(link: Path, database: Path) -> None:
    with gateway_with_tokens(link), listener(database, "octavia", "--ws-id", "ws-001") as agent:
        assert command(link, "send", "ws-001", '"hello"', "--wait", "30s").returncode == 0
        assert '"hello"' in agent.line()
        assert "the socket of ws-001 is open" in command(link, "show", "ws-001").stdout


def test_a_key_beside_the_link_is_used_and_said(link: Path, database: Path) -> None:
    token = command(database, "token", "octavia").stdout.strip()
    key_path(database).rename(f"{link}.key")
    with gateway_with_tokens(link) as (program, url):
        (said,) = (line for line in map(json.loads, program.errors) if line["level"] == "warning")
        assert f"{link}.key" in said["message"]
        listen = [*COMMAND, "listen", "octavia", "--url", url, "--token-file", str(link.parent / "token")]
        (link.parent / "token").write_text(token)
        with running(*listen) as agent:
            agent.error_line("Ready: ")
    assert not key_path(database).exists()


def test_a_gateway_in_another_programs_database(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.executescript(
            "CREATE TABLE cookies (name); INSERT INTO cookies VALUES ('a'); PRAGMA user_version = 57"
        )
    with running(*COMMAND, "--db", str(database), "serve", "--port", "0") as refused:
        assert refused.wait() == 1
        assert "is not a ledger" in refused.rest_of_errors()[0]
    assert not key_path(database).exists()
    with gateway_with_tokens(database, "--shared"), listener(database, "octavia", "--ws-id", "ws-001"):
        assert command(database, "send", "ws-001", "1", "--wait", "30s").returncode == 0
    with contextlib.closing(sqlite3.connect(database)) as db:
        assert db.execute("SELECT name FROM cookies").fetchall() == [("a",)]
        assert db.execute("PRAGMA user_version").fetchone() == (57,)
