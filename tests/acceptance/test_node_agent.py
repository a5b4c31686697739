"""An agent made with Node's `ws`, with a token. It skips where Node or the module is not installed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.processes import Program, command, gateway_with_tokens, running
from ws_manager import get_message_history
from ws_manager.repository.sqlite.database import Database

HERE = Path(__file__).parent

# Where Debian's node-ws is; a Node that is not Debian's does not look there by itself.
DEBIAN_MODULES = "/usr/share/nodejs"


@pytest.fixture(autouse=True)
def node(monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of Node, which finds `ws`."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    monkeypatch.setenv(
        "NODE_PATH", os.pathsep.join(filter(None, [os.environ.get("NODE_PATH"), DEBIAN_MODULES]))
    )
    if subprocess.run([found, "-e", "require('ws')"], capture_output=True, check=False).returncode:
        pytest.skip("node is installed, but not its module ws (Debian: node-ws)")
    return found


@contextmanager
def node_agent(node: str, url: str, ack: str) -> Iterator[Program]:
    address = url.replace("http", "ws", 1) + f"/ws?agent=octavia&ws_id=ws-001&ack={ack}"
    with running(node, str(HERE / "node_agent.js"), address) as program:
        yield program


def frame(agent: Program) -> dict[str, Any]:
    """Wait for the next frame that the agent prints."""
    found: dict[str, Any] = json.loads(agent.line())
    return found


def send(database: Path, content: str, *options: str) -> None:
    """Commit a message to the agent's connection."""
    sent = command(database, "send", "ws-001", content, *options)
    assert sent.returncode == 0, sent.stderr


@pytest.mark.parametrize("ack", ["pong", "explicit"])
def test_it_comes_back_to_a_killed_gateway_and_gets_what_was_sent_meanwhile_first(
    database: Path, db: Database, node: str, ack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_TOKEN", command(database, "token", "octavia").stdout.strip())
    with gateway_with_tokens(database) as (server, url), node_agent(node, url, ack) as agent:
        greeting = frame(agent)
        assert (greeting["ws_id"], greeting["resumed"]) == ("ws-001", False)
        send(database, "before", "--wait", "30s")
        assert frame(agent)["content"] == "before"
        assert [message["delivered"] for message in get_message_history(db)] == [1]

        server.end(signal.SIGKILL)
        agent.error_line("closed: 1006")
        send(database, "meanwhile 1")
        send(database, "meanwhile 2")
        assert [message["delivered"] for message in get_message_history(db)] == [0, 0, 1]

        with gateway_with_tokens(database, "--port", url.rpartition(":")[2]):
            send(database, "newer", "--wait", "30s")
            greeting = frame(agent)
            assert (greeting["ws_id"], greeting["resumed"]) == ("ws-001", True)
            assert [frame(agent)["content"] for _ in range(3)] == ["meanwhile 1", "meanwhile 2", "newer"]
            assert [message["delivered"] for message in get_message_history(db)] == [1, 1, 1, 1]
            agent.end()
            assert agent.lines() == []


def test_without_a_token_it_is_not_let_in(database: Path, node: str) -> None:
    with gateway_with_tokens(database) as (_, url), node_agent(node, url, "pong") as agent:
        agent.error_line("Unexpected server response: 401")
