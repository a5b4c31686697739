"""Agents that we did not write: their WebSocket stack's Pong is the receipt."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.acceptance.processes import Program, command, gateway, running
from ws_manager import get_message_history
from ws_manager.core.ledger import ledger_over
from ws_manager.repository.findings import MessageFilter
from ws_manager.repository.sqlite.database import Database

HERE = Path(__file__).parent
PATH = "/ws?agent=octavia&ws_id=ws-001"

Agent = Callable[[str], AbstractContextManager[Program]]


@contextmanager
def websockets_library(url: str) -> Iterator[Program]:
    address = url.replace("http", "ws", 1) + PATH
    with running(sys.executable, str(HERE / "websockets_agent.py"), address) as program:
        yield program


@contextmanager
def websocat(url: str) -> Iterator[Program]:
    found = shutil.which("websocat", path=sysconfig.get_path("scripts"))
    assert found, "websocat is a test dependency"
    # It ends with its stdin, so that stays open. With -U it would answer no Ping.
    with running(found, url.replace("http", "ws", 1) + PATH, stdin=subprocess.PIPE) as program:
        yield program


@contextmanager
def standard_library(url: str, *flags: str) -> Iterator[Program]:
    parts = urlsplit(url)
    with running(
        sys.executable, str(HERE / "rfc6455.py"), str(parts.hostname), str(parts.port), PATH, *flags
    ) as program:
        yield program


AGENTS = [websockets_library, websocat, standard_library]


@pytest.mark.parametrize("agent", AGENTS)
def test_receives_a_broadcast_and_is_marked_delivered(agent: Agent, database: Path) -> None:
    with gateway(database) as (_, url), agent(url) as program:
        assert json.loads(program.line())["type"] == "connected"
        sent = command(database, "broadcast", '{"event":"deploy"}', "--wait", "30s")
        assert sent.returncode == 0, sent.stderr
        assert json.loads(program.line())["content"] == {"event": "deploy"}


@pytest.mark.parametrize("agent", AGENTS)
def test_stopped_before_it_reads_it_gets_the_message_when_it_comes_back(
    agent: Agent, database: Path, db: Database
) -> None:
    with gateway(database) as (_, url), agent(url) as program:
        program.line()
        program.send(signal.SIGSTOP)
        sent = command(database, "broadcast", '"wait for me"', "--wait", "1s")
        assert sent.returncode == 5, sent
        assert get_message_history(db)[0]["delivered"] == 0
        program.send(signal.SIGCONT)
        assert json.loads(program.line())["content"] == "wait for me"
        ledger = ledger_over(db)
        assert ledger.wait(ledger.messages(MessageFilter()), 30).confirmed == 1


def test_a_client_that_never_answers_a_ping_is_never_delivered(database: Path, db: Database) -> None:
    with gateway(database) as (_, url), standard_library(url, "no-pong") as program:
        program.line()
        sent = command(database, "send", "ws-001", '"anybody?"', "--wait", "2s")
        assert json.loads(program.line())["content"] == "anybody?"
        assert sent.returncode == 5
        assert get_message_history(db)[0]["delivered"] == 0
