"""Handlers that finish in any order: an ack never goes beyond the finished messages. No gateway, no sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ws_manager.client import worker
from ws_manager.client.agent_requests import Requests
from ws_manager.client.ends import Ends
from ws_manager.client.handlers import AttemptFailed, Handlers, MessageRejected
from ws_manager.client.receipts import AgentMessage, Receipts
from ws_manager.protocol.agent_session import AgentSession
from ws_manager.protocol.frames import Received

DONE, REJECTED, AGAIN = "done", "rejected", "fails first"


class World:
    """Messages 1 to `count` at one agent, whose handler ends when the test says so."""

    def __init__(self, count: int) -> None:
        self.session = AgentSession("ws-001")
        self.session.text(
            '{"type":"connected","ws_id":"ws-001","agent":"octavia","resumed":false,"pending":0,"seq":0,"heartbeat":10}'
        )
        requests = Requests(self.write, lambda: 0.5, None)
        self.receipts = Receipts(self.session, self.write, lambda: None, requests)
        self.arriving = list(range(1, count + 1))
        self.running: dict[int, asyncio.Future[str]] = {}
        self.settled: set[int] = set()
        self.acked = 0
        self.most_running = 0

    async def take(self, limit: int) -> list[AgentMessage]:
        frame = self.session.text(
            json.dumps(
                {
                    "type": "message", "seq": self.arriving.pop(0), "msg_id": f"m-{len(self.arriving)}", "content": 1,
                    "msg_type": "data", "sender_id": None, "recipient_id": "ws-001", "broadcast_id": None,
                    "sent_at": "2026-01-31T12:00:00.000000+00:00",
                }
            )
        )  # fmt: skip
        assert isinstance(frame, Received)
        assert self.session.handed_out(frame)
        return [AgentMessage(frame, self.receipts)]

    async def write(self, text: str) -> None:
        frame = json.loads(text)
        if frame["type"] == "ack":
            assert set(range(1, frame["seq"] + 1)) <= self.settled, "acked what is not finished"
            assert frame["seq"] > self.acked
            self.acked = frame["seq"]

    async def handle(self, message: AgentMessage) -> None:
        assert message.seq not in self.running, "two at a time"
        self.running[message.seq] = asyncio.get_running_loop().create_future()
        self.most_running = max(self.most_running, len(self.running))
        try:
            outcome = await self.running[message.seq]
        finally:
            del self.running[message.seq]
        if outcome == AGAIN:
            raise AttemptFailed("not yet")
        self.settled.add(message.seq)
        if outcome == REJECTED:
            raise MessageRejected("no")


@settings(max_examples=150, deadline=None)
@given(
    count=st.integers(1, 30),
    choices=st.lists(st.integers(0, 7), min_size=90, max_size=90),
    outcomes=st.lists(st.sampled_from([DONE, DONE, REJECTED, AGAIN]), min_size=90, max_size=90),
)
def test_ack_never_goes_beyond_the_finished_prefix(
    count: int, choices: list[int], outcomes: list[str]
) -> None:
    async def main() -> None:
        world = World(count)
        handlers = Handlers(None)
        handlers.add(world.handle, msg_type=None, concurrency=8, attempts=3)
        run: Any = handlers.run(world.take, world.receipts, lambda: 0.0, 1.0, Ends(most=count))
        running = asyncio.ensure_future(run)
        again: dict[int, int] = {}
        for choice, outcome in zip(choices, outcomes):
            while not world.running and not running.done():  # noqa: ASYNC110 - one turn of the loop at a time
                await asyncio.sleep(0)
            if running.done():
                break
            seq = sorted(world.running)[choice % len(world.running)]
            again[seq] = again.get(seq, 0) + (outcome == AGAIN)
            world.running[seq].set_result(DONE if again[seq] > 2 else outcome)
            while seq in world.running and world.running[seq].done():  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
        else:
            while not running.done():
                for future in world.running.values():
                    if not future.done():
                        future.set_result(DONE)
                await asyncio.sleep(0)
        await running
        assert world.settled == set(range(1, count + 1))
        assert world.most_running <= 8
        # Whatever the order was, everything is confirmed or rejected at the end.
        assert not world.session.is_dealing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "FIRST_PAUSE", 0.0)
        asyncio.run(main())
