"""The web application of docs/python.md, run as it stands there: FastAPI under uvicorn, an agent while it runs."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import pytest

from tests.acceptance.applications import documented_application
from tests.acceptance.processes import PATIENCE, Program, command, gateway, running
from ws_manager import AgentClient, get_db

pytest.importorskip("fastapi", reason="needs FastAPI")
pytest.importorskip("uvicorn", reason="needs uvicorn")

DOCUMENTED = "http://127.0.0.1:8765"


def request(url: str, content: object = None, headers: Optional[dict[str, str]] = None) -> tuple[int, Any]:
    """Ask the application, and return the status and the answer; a POST if there is content."""
    data = None if content is None else json.dumps(content).encode()
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            asked, timeout=PATIENCE
        ) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


@contextmanager
def application(folder: Path, address: str) -> Iterator[tuple[Program, str]]:
    """Run the application against a gateway, and give it and its address."""
    with documented_application(folder, "app", {DOCUMENTED: address}) as running_application:
        yield running_application


async def answer_one_order(address: str) -> None:
    """Be an agent that replies to an order."""
    async with AgentClient("octavia", url=address, ws_id="ws-001", stay=True) as client:
        async for message in client:
            async with message:
                assert message.msg_type == "order"
                await client.send(message.sender_id or "", {"done": message.content["n"]}, "reply")
            return


def test_sends_and_handles_over_a_gateway_that_is_killed(tmp_path: Path) -> None:
    database = tmp_path / "ledger.db"
    with gateway(database) as (program, address), ThreadPoolExecutor() as threads:
        assert command(database, "connect", "octavia", "--ws-id", "ws-001").returncode == 0
        with application(tmp_path, address) as (server, url):
            assert request(f"{url}/healthz") == (200, {"status": "ok"})
            assert request(f"{url}/orders/nobody", {"n": 0})[0] == 404

            status, made = request(f"{url}/orders/ws-001", {"n": 1}, {"Idempotency-Key": "order-1"})
            assert status == 201
            assert request(f"{url}/orders/ws-001", {"n": 1}, {"Idempotency-Key": "order-1"}) == (201, made)
            asyncio.run(answer_one_order(address))
            while not request(f"{url}/replies")[1]:
                pass
            assert request(f"{url}/replies") == (200, [{"from": "ws-001", "content": {"done": 1}}])

            program.end(signal.SIGKILL)
            meanwhile = threads.submit(request, f"{url}/orders/ws-001", {"n": 2})
            with gateway(database, "--port", address.rpartition(":")[2]):
                assert meanwhile.result(PATIENCE)[0] == 201
                # Replaced by another process with its ws_id.
                with running(
                    *(sys.executable, "-m", "ws_manager", "--db", str(database)),
                    *("listen", "web", "--ws-id", "web-001"),
                ) as other:
                    other.error_line("Ready: ")
                    while request(f"{url}/healthz")[0] != 503:
                        pass
            server.end()


def test_says_goodbye_when_the_server_ends(tmp_path: Path) -> None:
    database = tmp_path / "ledger.db"
    with gateway(database) as (_, address):
        with application(tmp_path, address) as (server, url):
            # A signal that comes in the moment after its line "Uvicorn running" ends uvicorn without its shutdown.
            assert request(f"{url}/healthz")[0] == 200
            server.end()
        db = get_db(database)
        rows = db.execute("SELECT status, close_code FROM connections WHERE ws_id = 'web-001'").fetchall()
        db.close()
        assert [tuple(row) for row in rows] == [("disconnected", 1000)]
