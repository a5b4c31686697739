"""A message that an agent cannot take does not keep the others from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import RunningGateway, gateway


async def refuse(running: RunningGateway, poison: int, code: int = 1009) -> list[int]:
    """Connect, confirm up to the message that cannot be taken, close on it, and return what came."""
    agent = await running.agent(ack="explicit")
    came: list[int] = []
    while not came or came[-1] != poison:
        came.append((await agent.message())["seq"])
        if came[-1] != poison:
            await agent.ack(came[-1])
    await agent.say_goodbye(code)
    await running.socket_ended()
    return came


@pytest.mark.parametrize("code", [1003, 1007, 1009])
async def test_after_three_refusals_it_is_set_aside_and_the_rest_arrives(code: int, database: Path) -> None:
    async with gateway(database) as running:
        running.offline()
        seqs = running.send_many(5)
        poison = seqs[1]
        # The first socket may have had many in flight: which one it was is not known yet.
        assert await refuse(running, poison, code) == seqs[:2]
        for _ in range(3):
            assert await refuse(running, poison, code) == [poison]
        agent = await running.agent(ack="explicit")
        for seq in seqs[2:]:
            assert (await agent.message())["seq"] == seq
            await agent.ack(seq)
        await running.confirmed(seqs[0], *seqs[2:])
        row = running.db.row("SELECT refusals, reject_reason FROM messages WHERE id = ?", (poison,))
        assert row == (3, f"the agent refused it: {code}")


async def test_after_a_refusal_one_message_comes_at_a_time(database: Path) -> None:
    async with gateway(database) as running:
        running.offline()
        first, second, *_ = running.send_many(5)
        await refuse(running, first)
        agent = await running.agent(ack="explicit")
        assert (await agent.message())["seq"] == first
        # Nothing more before the answer: an error of our own making comes before the second message.
        await agent.say(type="reject", seq=second, reason="not yet here")
        assert await agent.error() == "conflict"
        await agent.ack(first)
        assert (await agent.message())["seq"] == second


async def test_with_the_backlog_confirmed_the_window_is_the_usual_one(database: Path) -> None:
    async with gateway(database) as running:
        running.offline()
        (first,) = running.send_many(1)
        await refuse(running, first)
        agent = await running.agent(ack="explicit")
        assert (await agent.message())["seq"] == first
        await agent.ack(first)
        await running.confirmed(first)
        # What is sent before that is backlog too.
        await running.until(lambda: running.server._hub._sockets["ws-001"].session.live)
        more = running.send_many(5)
        assert await agent.messages(5) == more


async def test_another_close_counts_nothing(database: Path) -> None:
    async with gateway(database) as running:
        running.offline()
        (first,) = running.send_many(1)
        await refuse(running, first, 1011)
        assert running.db.value("SELECT refusals FROM messages") == 0
