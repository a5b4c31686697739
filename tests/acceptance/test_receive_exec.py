"""`receive --exec` that is killed by its own message, and when the gateway between it and the ledger is killed."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.processes import COMMAND, gateway, running
from tests.support import run, until
from ws_manager import open_ledger
from ws_manager.core.ledger import Ledger
from ws_manager.repository.findings import MessageFilter

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="--exec needs process groups")


@pytest.fixture
def ledger(database: Path) -> Iterator[Ledger]:
    """A ledger in which ws-001 is octavia's, and three messages wait for it."""
    with open_ledger(database, create=True) as ledger:
        ledger.connect("octavia", "ws-001")
        for number in range(3):
            ledger.send("ws-001", number)
        yield ledger


@contextmanager
def road(database: Path, way: str) -> Iterator[dict[str, str]]:
    """The environment of a receiver: on the file, or over HTTP."""
    if way == "file":
        yield {**os.environ, "BLACKROAD_WS_DB": str(database)}
        return
    with gateway(database) as (_, url):
        yield {**os.environ, "BLACKROAD_WS_URL": url}


def outcomes(ledger: Ledger) -> list[object]:
    """What has become of each message, in order: True if it is confirmed, and otherwise why it is set aside."""
    messages = sorted(ledger.messages(MessageFilter(), 10), key=lambda message: message.db_id or 0)
    return [message.delivered or message.reject_reason for message in messages]


@pytest.mark.parametrize("way", ["file", "url"])
def test_a_message_that_kills_its_receiver_is_set_aside_after_five_starts(
    database: Path, ledger: Ledger, tmp_path: Path, way: str
) -> None:
    seen, codes = tmp_path / "seen", [1]
    work = f'echo "$WS_SEQ $WS_ATTEMPT" >> {seen}; if [ "$WS_SEQ" = 1 ]; then kill -KILL "$PPID"; fi'
    with road(database, way) as environment:
        # What a supervisor does: start it again until it ends well.
        while codes[-1] != 0:
            receiver = (*COMMAND, "receive", "ws-001", "--exec", "--", "bash", "-c", work)
            with running(*receiver, environment=environment) as program:
                codes.append(program.wait())
            # Over HTTP, as if the 30 s were over for which the hold of one that was killed lasts.
            ledger._store.holds.delete_before("9999")
    assert codes[1:] == [-signal.SIGKILL] * 5 + [0]
    assert seen.read_text().splitlines() == [*(f"1 {number}" for number in range(1, 6)), "2 1", "3 1"]
    assert outcomes(ledger) == ["attempt 5 of 5 failed: the worker ended", True, True]


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return str(listening.getsockname()[1])


def test_a_gateway_that_is_killed_while_a_command_runs_does_not_start_it_again(
    database: Path, ledger: Ledger, tmp_path: Path
) -> None:
    port, seen = free_port(), tmp_path / "seen"
    work = f'echo "$WS_SEQ $WS_ATTEMPT" >> {seen}; until [ -e {tmp_path}/end ]; do sleep 0.02; done'
    with gateway(database, "--port", port) as (first, url):
        receiver = (
            *COMMAND,
            "receive",
            "ws-001",
            "--follow",
            "--count",
            "3",
            "--exec",
            "--",
            "bash",
            "-c",
            work,
        )
        with running(*receiver, environment={**os.environ, "BLACKROAD_WS_URL": url}) as program:
            run(until(seen.exists))
            first.end(signal.SIGKILL)
            (tmp_path / "end").touch()
            with gateway(database, "--port", port):
                assert program.wait() == 0
    assert seen.read_text().splitlines() == ["1 1", "2 1", "3 1"]
    assert outcomes(ledger) == [True, True, True]
