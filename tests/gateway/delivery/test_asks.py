"""Asking and answering over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Optional

import pytest

from tests.support import RawAgent, RunningGateway, gateway, within
from ws_manager.models import Message


async def result(agent: RawAgent, **request: object) -> dict[str, Any]:
    """Ask, and return the result; messages that come meanwhile are left out."""
    await agent.say(ref=1, **request)
    while True:
        frame = await agent.json()
        if frame["type"] == "result":
            return frame


def asked(running: RunningGateway, content: object = "status?", sender: Optional[str] = None) -> Message:
    message = running.ledger.ask("ws-001", content, "data", sender)
    assert message is not None
    return message


def pending(running: RunningGateway, ws_id: str = "ws-001") -> list[int]:
    return [message.seq for message in running.ledger.delivery.pending(ws_id, 0, 1000)]


async def test_answer_is_committed_with_the_confirmation_of_this_message_alone(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        before = running.send()
        ask = asked(running)
        assert await agent.messages(1) == [before]
        frame = await agent.message()
        assert (frame["seq"], frame["wants_reply"], frame["content"]) == (ask.db_id, True, "status?")
        done = await result(agent, type="reply", seq=frame["seq"], content={"up": True})
        found = running.ledger.asked(ask.msg_id)
        assert (done["ok"], done["msg_id"]) == (True, found.answer_id)
        assert (found.state, found.answer) == ("answered", '{"up":true}')
        await running.until(lambda: getattr(running.ledger.message(ask.msg_id), "written_at", None))
        steps = [entry.what for entry in running.ledger.explain(ask.msg_id).timeline]
        assert steps == ["sent", "written", "confirmed", "answered"]
        assert (running.delivered(), pending(running)) == ([ask.db_id], [before])


async def test_frames_of_other_messages_do_not_mention_answers(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        running.send()
        assert not {"wants_reply", "reply_to"} & set(await agent.message())


async def test_socket_that_asks_gets_the_answer_as_a_message(database: Path) -> None:
    async with gateway(database) as running:
        asker = await running.agent("cipher", "ws-002", ack="explicit")
        agent = await running.agent(ack="explicit")
        asking = await result(asker, type="ask", to="octavia", content="status?", msg_type="query", key="k")
        assert (
            await result(asker, type="ask", to="octavia", content="status?", msg_type="query", key="k")
            == asking
        )
        frame = await agent.message()
        assert (frame["msg_type"], frame["sender_id"], frame["wants_reply"]) == ("query", "ws-002", True)
        answered = await result(agent, type="reply", seq=frame["seq"], content="fine")
        answer = await asker.message()
        assert (answer["msg_id"], answer["reply_to"]) == (answered["msg_id"], asking["msg_id"])
        assert (answer["msg_type"], answer["sender_id"], answer["content"]) == ("reply", "ws-001", "fine")
        assert "wants_reply" not in answer


async def test_socket_that_asks_nobody_is_told(database: Path) -> None:
    async with gateway(database) as running:
        asker = await running.agent("cipher", "ws-002")
        refused = await result(asker, type="ask", to="octavia", content=1)
        assert refused["error"] == {"code": "not_found", "message": "no active connection octavia"}


async def test_answers_out_of_order_and_acks_between_them_leave_nothing_in_flight(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        seqs = [asked(running, number).db_id for number in range(6)]
        assert await agent.messages(6) == seqs
        for place in (4, 1, 3):
            assert (await result(agent, type="reply", seq=seqs[place], content=place))["ok"]
        assert pending(running) == [seqs[0], seqs[2], seqs[5]]
        # The ack of the third covers the first, and what was answered before.
        await agent.ack(seqs[2] or 0)
        await running.confirmed(seqs[0] or 0, seqs[2] or 0)
        assert (await result(agent, type="reply", seq=seqs[5], content=5))["ok"]
        assert pending(running) == []
        # Nothing is in flight: the window is free, and nothing is left to reject.
        await agent.say(type="reject", seq=seqs[5])
        assert await agent.error() == "conflict"


async def test_what_was_not_confirmed_before_an_answer_comes_again_after_a_reconnect(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        first, second, third = (asked(running, number).db_id for number in range(3))
        await agent.messages(3)
        for seq in (third, second):
            await result(agent, type="reply", seq=seq, content="done")
        agent.reset()
        again = await running.agent(ack="explicit")
        assert (await again.message())["seq"] == first
        assert (await result(again, type="reply", seq=first, content="done"))["ok"]
        behind = running.send()
        assert await again.messages(1) == [behind]


async def test_cautious_window_goes_on_after_an_answer(database: Path) -> None:
    async with gateway(database) as running:
        running.offline()
        refused, *seqs = (asked(running, number).db_id for number in range(4))
        closing = await running.agent(ack="explicit")
        await closing.messages(4)
        await closing.say_goodbye(1009)
        await running.socket_ended()
        careful = await running.agent(ack="explicit")
        for seq in (refused, *seqs):
            assert (await careful.message())["seq"] == seq
            assert (await result(careful, type="reply", seq=seq, content="done"))["ok"]
        assert pending(running) == []


async def test_socket_that_confirms_by_pong_may_answer_what_it_has_confirmed(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent()
        ask = asked(running)
        frame = await agent.message()
        confirming = asyncio.ensure_future(agent.json())
        await running.confirmed(ask.db_id or 0)
        await agent.say(type="reply", ref=1, seq=frame["seq"], content="late")
        assert (await within(confirming))["ok"]
        assert running.ledger.asked(ask.msg_id).answer == '"late"'


async def test_same_answer_again_is_the_first_and_another_is_refused(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        seq = asked(running).db_id
        await agent.message()
        first = await result(agent, type="reply", seq=seq, content={"up": True})
        agent.reset()
        # Its result was lost: the agent says it again on its next socket.
        again = await running.agent(ack="explicit")
        assert await result(again, type="reply", seq=seq, content={"up": True}) == first
        refused = await result(again, type="reply", seq=seq, content={"up": False})
        assert refused["error"]["code"] == "conflict"
        assert running.db.value("SELECT count(*) FROM events WHERE kind = 'answered'") == 1


async def test_foreign_connection_and_an_old_socket_may_not_answer(database: Path) -> None:
    async with gateway(database) as running:
        await running.agent(ack="explicit")
        other = await running.agent("cipher", "ws-002", ack="explicit")
        ask = asked(running)
        refused = await result(other, type="reply", seq=ask.db_id, content="mine")
        assert refused["error"] == {"code": "not_found", "message": f"ws-002 has no message {ask.db_id}"}
        assert running.ledger.asked(ask.msg_id).state == "pending"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"seq": 1}, "invalid"),
        ({"seq": -1, "content": 1}, "invalid"),
        ({"content": 1}, "invalid"),
        ({"seq": 1, "content": "not an ask"}, "invalid"),
        ({"seq": 99, "content": 1}, "not_found"),
        ({"seq": 2**63 - 1, "content": 1}, "not_found"),
    ],
)
async def test_answer_that_cannot_be_taken_changes_nothing(
    database: Path, request_: dict[str, object], code: str
) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        assert running.send() == 1
        await agent.message()
        assert (await result(agent, type="reply", **request_))["error"]["code"] == code
        assert pending(running) == [1]


async def test_hundred_asks_at_once(database: Path) -> None:
    async with gateway(database) as running:
        asker = await running.agent("cipher", "ws-002", ack="explicit")
        agent = await running.agent(ack="explicit")
        for number in range(100):
            await asker.say(type="ask", ref=number, to="ws-001", content=number)

        async def work() -> None:
            done = 0
            while done < 100:
                frame = await agent.json()
                if frame["type"] == "message":
                    await agent.say(type="reply", ref=1, seq=frame["seq"], content=frame["content"] * 2)
                done += frame["type"] == "result"

        working = asyncio.ensure_future(work())
        numbers: dict[str, int] = {}
        answers: dict[str, int] = {}
        while len(numbers) < 100 or len(answers) < 100:
            frame = await asker.json()
            if frame["type"] == "result":
                numbers[frame["msg_id"]] = frame["ref"]
            else:
                answers[frame["reply_to"]] = frame["content"]
        await within(working)
        assert answers == {msg_id: 2 * number for msg_id, number in numbers.items()}
