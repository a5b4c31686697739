"""Asking and answering with `AgentClient`: over the real gateway, and one that a test tells what to say."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.test_agent_requests import scripted
from tests.support import RunningGateway, gateway, within
from ws_manager.client import agent_requests, dialer
from ws_manager.client.agent import AgentClient
from ws_manager.client.agent_requests import Requests
from ws_manager.client.asking import Asks
from ws_manager.client.receipts import AgentMessage, Receipts
from ws_manager.errors import Conflict, GatewayUnavailable, InvalidInput, NoAnswer, NotFound
from ws_manager.protocol.agent_session import AgentSession
from ws_manager.protocol.frames import Result


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a backoff here."""
    monkeypatch.setattr(dialer, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(dialer, "LONGEST_DELAY", 0.008)
    monkeypatch.setattr(agent_requests, "FIRST_PAUSE", 0.001)


@contextlib.asynccontextmanager
async def both(running: RunningGateway) -> AsyncIterator[tuple[AgentClient, AgentClient]]:
    """Cipher, who asks, and octavia, who answers."""
    async with (
        AgentClient("cipher", url=running.url, ws_id="ws-002") as asker,
        AgentClient("octavia", url=running.url, ws_id="ws-001") as worker,
    ):
        yield asker, worker


async def one(client: AgentClient) -> AgentMessage:
    """The next message."""
    return (await within(client.batch(1)))[0]


def state(running: RunningGateway, seq: int) -> tuple[int, Any]:
    row = running.db.row("SELECT delivered, reject_reason FROM messages WHERE id = ?", (seq,))
    assert row is not None
    return row[0], row[1]


async def test_answer_comes_to_the_one_who_asked_and_is_confirmed(database: Path) -> None:
    async with gateway(database) as running, both(running) as (asker, worker):
        asking = asyncio.ensure_future(asker.ask("octavia", {"task": "status"}, "query", timeout=20))
        request = await one(worker)
        assert (request.wants_reply, request.msg_type, request.content) == (True, "query", {"task": "status"})
        async with request:
            answer_id = await request.reply({"up": True})
        answer = await within(asking)
        assert (answer.msg_id, answer.reply_to, answer.content) == (answer_id, request.msg_id, {"up": True})
        assert (answer.sender_id, answer.msg_type) == ("ws-001", "reply")
        await running.confirmed(request.seq, answer.seq)
        # It is not handed out as well: the next message is the next.
        running.send("next", "ws-002")
        assert (await one(asker)).content == "next"


async def test_answering_confirms_no_other_message_and_the_block_does_not_ack_again(database: Path) -> None:
    async with gateway(database) as running, both(running) as (_, worker):
        before = running.send()
        sent = running.ledger.ask("ws-001", 1)
        behind = running.send()
        assert sent is not None
        first, request, third = [await one(worker) for _ in range(3)]
        async with request:
            await request.reply("done")
            assert running.delivered() == [request.seq]
        async with third:
            pass
        # The ack of the third covers the first.
        await running.confirmed(before, behind)
        await worker.ack(first)
        assert running.db.value("SELECT count(*) FROM receipts") == 2


async def test_answers_out_of_order_leave_the_others_pending_over_a_reconnect(database: Path) -> None:
    async with gateway(database) as running, both(running) as (_, worker):
        for number in range(3):
            running.ledger.ask("ws-001", number)
        first, second, third = [await one(worker) for _ in range(3)]
        await third.reply("c")
        await second.reply("b")
        assert running.delivered() == [second.seq, third.seq]
        # Registered by somebody else: the gateway sends the client away, and it comes back.
        running.offline()
        await first.reply("a")
        assert running.delivered() == [first.seq, second.seq, third.seq]
        seq = running.send()
        assert (await one(worker)).seq == seq


async def test_answer_that_nobody_waits_for_any_more_is_a_message(database: Path) -> None:
    async with gateway(database) as running, both(running) as (asker, worker):
        with pytest.raises(NoAnswer, match=r"no answer within 0\.2 s to message"):
            await asker.ask("octavia", 1, timeout=0.2)
        request = await one(worker)
        await request.reply("late")
        answer = await one(asker)
        assert (answer.reply_to, answer.content) == (request.msg_id, "late")
        assert state(running, answer.seq) == (0, None)


async def test_answer_does_not_confirm_what_was_handed_out_before_it(database: Path) -> None:
    async with gateway(database) as running, both(running) as (asker, worker):
        earlier = running.send("earlier", "ws-002")
        message = await one(asker)
        asking = asyncio.ensure_future(asker.ask("ws-001", 1, timeout=20))
        await (await one(worker)).reply("fine")
        answer = await within(asking)
        assert not {earlier, answer.seq} & set(running.delivered())
        await asker.ack(message)
        await running.confirmed(earlier, answer.seq)


async def test_hundred_asks_at_once(database: Path) -> None:
    async with gateway(database) as running, both(running) as (asker, worker):

        @worker.on(concurrency=8)
        async def double(message: AgentMessage) -> None:
            await message.reply(message.content * 2)

        working = asyncio.ensure_future(worker.run())
        answers = await asyncio.gather(*(asker.ask("octavia", number, timeout=60) for number in range(100)))
        assert [answer.content for answer in answers] == [2 * number for number in range(100)]
        await running.until(
            lambda: running.db.value("SELECT count(*) FROM messages WHERE delivered = 0") == 0
        )
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def test_nobody_is_there(database: Path) -> None:
    async with gateway(database) as running, both(running) as (asker, _):
        with pytest.raises(NotFound, match="no active connection nobody"):
            await asker.ask("nobody", 1)


async def test_what_wants_no_answer_gets_none_and_stays_pending(database: Path) -> None:
    async with gateway(database) as running, both(running) as (_, worker):
        seq = running.send()
        message = await one(worker)
        with pytest.raises(InvalidInput, match="wants no answer"):
            async with message:
                await message.reply(1)
        assert state(running, seq) == (0, None)
        await worker.ack(message)
        await running.confirmed(seq)


async def test_second_answer_is_refused(database: Path) -> None:
    async with gateway(database) as running, both(running) as (_, worker):
        running.ledger.ask("ws-001", 1)
        request = await one(worker)
        first = await request.reply("a")
        assert await request.reply("a") == first
        with pytest.raises(Conflict, match="was answered before"):
            await request.reply("b")


async def test_ask_that_waits_ends_with_the_client(database: Path) -> None:
    async with gateway(database) as running:
        async with AgentClient("cipher", url=running.url, ws_id="ws-002") as asker:
            running.offline()
            asking = asyncio.ensure_future(asker.ask("ws-001", 1))
            await running.until(lambda: running.db.value("SELECT count(*) FROM asks") == 1)
        with pytest.raises(GatewayUnavailable, match="has left"):
            await within(asking)


async def test_ask_whose_result_comes_in_the_moment_of_leaving_ends_too() -> None:
    left = GatewayUnavailable("this client has left")

    async def write(text: str) -> None:
        requests.answer(Result(json.loads(text)["ref"], msg_id="m-1"))
        requests.end(left)
        asks.end(left)

    requests = Requests(write, lambda: 0.5, None)
    asks = Asks(requests, Receipts(AgentSession(), write, lambda: None, requests), print)
    requests.begin()
    with pytest.raises(GatewayUnavailable, match="has left"):
        await within(asks.ask("ws-001", 1, "data", None, None, None))


def answer_frame(seq: int, reply_to: str) -> dict[str, object]:
    """The frame of an answer."""
    return {
        "type": "message", "seq": seq, "msg_id": f"a-{seq}", "msg_type": "reply", "sender_id": "ws-009",
        "recipient_id": "ws-001", "broadcast_id": None, "sent_at": "2026-11-22T17:15:18.644305+00:00",
        "reply_to": reply_to, "content": seq,
    }  # fmt: skip


class TestLost:
    async def test_answer_that_comes_before_the_result_is_the_answer(self) -> None:
        async with scripted() as (script, client):
            asking = asyncio.ensure_future(client.ask("ws-009", 1))
            request = await script.request()
            # Its result was lost with the first socket; the key is the same.
            script.cut()
            again = await script.request()
            assert again == request
            await script.socket.send_json(answer_frame(7, "another"))
            await script.socket.send_json(answer_frame(8, "m-1"))
            await script.done(again, msg_id="m-1")
            assert (await within(asking)).content == 8
            (other,) = await within(client.batch(1))
            assert other.reply_to == "another"
            await client.ack(other)
            assert await script.request() == {"type": "ack", "seq": 8}

    async def test_result_of_an_answer_that_was_lost_is_asked_for_again(self) -> None:
        async with scripted() as (script, client):
            frame = {**answer_frame(7, ""), "wants_reply": True}
            del frame["reply_to"]
            await script.socket.send_json(frame)
            (request,) = await within(client.batch(1))
            replying = asyncio.ensure_future(request.reply({"up": True}))
            said = await script.request()
            assert said == {"type": "reply", "ref": said["ref"], "seq": 7, "content": {"up": True}}
            script.cut()
            assert await script.request() == said
            # It comes again meanwhile, and is neither handed out nor acked.
            await script.socket.send_json(frame)
            await script.done(said, msg_id="m-2")
            assert await within(replying) == "m-2"
            await script.socket.send_json(answer_frame(8, "x"))
            (after,) = await within(client.batch(1))
            assert after.seq == 8
