"""A gateway whose ledger is moved elsewhere while it runs, and one that is started on such a ledger."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.test_server import log_line
from tests.support import gateway, refusal
from ws_manager import open_ledger
from ws_manager.core.copying import Copied
from ws_manager.errors import LedgerSealed
from ws_manager.gateway.options import GatewayOptions
from ws_manager.gateway.server import GatewayServer
from ws_manager.protocol.close_codes import CloseCode


def move(source: Path, target: Path) -> Copied:
    with open_ledger(source) as ledger, open_ledger(target) as other:
        return ledger.maintenance.copy_to(other.maintenance, seal=True)


def asked(url: str, body: object = None) -> tuple[int, Any]:
    """Return the status and the JSON of an answer, whatever it is."""
    request = urllib.request.Request(
        url, None if body is None else json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


async def test_it_goes_on_and_refuses_what_would_write(database: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.db"
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        seq = running.send("before")
        assert (await agent.json())["seq"] == seq
        with log_line("cannot write receipts") as told:
            assert (await asyncio.to_thread(move, database, target)).sealed
            await agent.ack(seq)
            await told.wait()
        message = {"to": "ws-001", "content": 1}
        status, problem = await asyncio.to_thread(asked, f"{running.url}/v1/messages", message)
        assert (status, problem["code"]) == (503, "sealed")
        # Where it is now is for its operators to know.
        assert problem["detail"] == "the ledger was moved, and takes nothing more"
        assert str(target) not in json.dumps(problem)
        assert await refusal(running.url, "agent=octavia") == 503
        await agent.say(type="send", ref=1, to="ws-001", content=1)
        answer = await agent.json()
        assert (answer["ref"], answer["error"]["code"]) == (1, "sealed")
        status, listed = await asyncio.to_thread(asked, f"{running.url}/v1/connections")
        assert (status, [each["ws_id"] for each in listed["items"]]) == (200, ["ws-001"])
    with open_ledger(target) as ledger:
        # It was not confirmed before the seal, so it comes again.
        assert [each.seq for each in ledger.delivery.pending("ws-001", 0, 10)] == [seq]


async def test_one_that_is_started_on_it_ends(database: Path, tmp_path: Path) -> None:
    open_ledger(database).close()
    move(database, tmp_path / "target.db")
    server = GatewayServer(GatewayOptions(database, port=0))
    stop: asyncio.Future[CloseCode] = asyncio.get_running_loop().create_future()
    with pytest.raises(LedgerSealed, match="was moved to"):
        await server.run(stop, lambda _url: None)
