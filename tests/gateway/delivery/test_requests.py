"""Requests of agents whose registration has ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import gateway
from ws_manager.protocol.ask_frames import ReplyRequest
from ws_manager.protocol.attempt_frames import Failed, Started
from ws_manager.protocol.frames import AgentRequest
from ws_manager.strict_json import Json


@pytest.mark.parametrize("kind", ["started", "failed", "reply"])
async def test_is_to_be_said_again_on_the_next_socket(database: Path, kind: str) -> None:
    async with gateway(database) as running:
        await running.agent(ack="explicit", worker="w-1", max_attempts="5")
        asked = running.ledger.ask("ws-001", 1)
        assert asked is not None
        seq = asked.db_id
        assert seq is not None
        requests: dict[str, AgentRequest] = {
            "started": Started("1", seq),
            "failed": Failed("1", seq, "exit code 1"),
            "reply": ReplyRequest("1", seq, Json("2")),
        }
        socket = running.server._hub._sockets["ws-001"]
        # The gateway has not seen it yet.
        running.ledger.connect("octavia", "ws-001")
        performed = await socket._performer.perform(requests[kind])
        assert '"code":"busy"' in performed.frame
        assert performed.settled is None
        assert running.delivered() == []
