"""Workers that tell of their attempts, over real sockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import RawAgent, Refused, RunningGateway, gateway


async def worker(running: RunningGateway, name: str, most: int = 5) -> RawAgent:
    return await running.agent(ack="explicit", worker=name, max_attempts=str(most))


async def answer(agent: RawAgent, **request: object) -> dict[str, Any]:
    """Ask, and return the result; messages that come meanwhile are left out."""
    await agent.say(ref=1, **request)
    while True:
        frame = await agent.json()
        if frame["type"] == "result":
            return frame


async def test_started_is_answered_once_it_is_committed(database: Path) -> None:
    async with gateway(database) as running:
        agent = await worker(running, "w-1")
        seq = running.send()
        await agent.message()
        assert await answer(agent, type="started", seq=seq) == {
            "type": "result", "ref": 1, "ok": True, "attempt": 1, "set_aside": False
        }  # fmt: skip
        assert running.db.value("SELECT running FROM attempts WHERE seq = ?", (seq,)) == 1
        await agent.ack(seq)
        await running.confirmed(seq)


async def test_message_that_kills_its_worker_is_set_aside_after_five_and_the_others_are_done(
    database: Path,
) -> None:
    async with gateway(database) as running:
        running.offline()
        before, killer, *behind = running.send_many(6)
        done: list[int] = []
        for process in range(1, 7):
            agent = await worker(running, f"w-{process}")
            for seq in await agent.messages(6 - len(done) - (process > 5)):
                said = await answer(agent, type="started", seq=seq)
                if seq == killer:
                    assert said["attempt"] == process
                    break
                done.append(seq)
                await agent.ack(seq)
                await running.confirmed(seq)
            agent.reset()
        assert done == [before, *behind]
        row = running.db.row("SELECT reject_reason FROM messages WHERE id = ?", (killer,))
        assert row is not None
        assert row[0] == "attempt 5 of 5 failed: the worker ended"


async def test_lost_networks_and_lost_gateways_are_no_attempts(database: Path) -> None:
    running_seq = 0
    for lost in range(6):
        async with gateway(database) as running:
            agent = await worker(running, "w-1", most=1)
            running_seq = running_seq or running.send()
            assert (await agent.message())["seq"] == running_seq
            assert (await answer(agent, type="started", seq=running_seq))["attempt"] == 1
            agent.reset()
            if lost % 2:
                # The socket again, at the same gateway.
                again = await worker(running, "w-1", most=1)
                assert (await again.message())["seq"] == running_seq
    async with gateway(database) as running:
        agent = await worker(running, "w-1", most=1)
        await agent.message()
        await agent.ack(running_seq)
        await running.confirmed(running_seq)


async def test_after_several_were_begun_the_next_process_gets_them_one_by_one(database: Path) -> None:
    async with gateway(database) as running:
        agent = await worker(running, "w-1")
        seqs = running.send_many(8)
        assert await agent.messages(8) == seqs
        for seq in seqs[:2]:
            await answer(agent, type="started", seq=seq)
        agent.reset()
        careful = await worker(running, "w-2")
        for seq in seqs:
            assert await careful.messages(1) == [seq]
            # Nothing else came before this result.
            await careful.say(type="started", ref=2, seq=seq)
            assert (await careful.json())["attempt"] == (2 if seq in seqs[:2] else 1)
            await careful.ack(seq)


async def test_failed_says_it_and_the_last_sets_aside(database: Path) -> None:
    async with gateway(database) as running:
        agent = await worker(running, "w-1", most=2)
        seq, behind = running.send_many(2)
        await agent.messages(2)
        results = []
        for number in (1, 2):
            await answer(agent, type="started", seq=seq)
            results.append(await answer(agent, type="failed", seq=seq, reason=f"exit code {number} \ud800"))
        assert [each["set_aside"] for each in results] == [False, True]
        await agent.ack(behind)
        await running.confirmed(behind)
        assert running.delivered() == [behind]
        assert (await answer(agent, type="failed", seq=seq))["error"]["code"] == "conflict"


@pytest.mark.parametrize(
    "request_",
    [{"type": "started"}, {"type": "failed", "seq": 1, "reason": 5}, {"type": "started", "seq": -1}],
)
async def test_request_that_is_none_is_answered(database: Path, request_: dict[str, object]) -> None:
    async with gateway(database) as running:
        agent = await worker(running, "w-1")
        assert (await answer(agent, **request_))["error"]["code"] == "invalid"
        seq = running.send()
        assert (await agent.message())["seq"] == seq


async def test_plain_agents_message_never_expires_and_it_may_not_count(database: Path) -> None:
    async with gateway(database) as running:
        running.offline()
        seq = running.send()
        for _ in range(8):
            agent = await running.agent(ack="explicit")
            assert (await agent.message())["seq"] == seq
            assert (await answer(agent, type="started", seq=seq))["error"]["code"] == "invalid"
            agent.reset()
        agent = await running.agent(ack="explicit")
        assert (await agent.message())["seq"] == seq


@pytest.mark.parametrize(
    "query",
    [
        {"worker": "w-1", "ack": "explicit"},
        {"max_attempts": "5", "ack": "explicit"},
        {"worker": "w-1", "max_attempts": "5"},
        {"worker": "w-1", "max_attempts": "0", "ack": "explicit"},
        {"worker": "w-1", "max_attempts": "101", "ack": "explicit"},
        {"worker": "w-1", "max_attempts": "five", "ack": "explicit"},
        {"worker": "w-1", "max_attempts": "\u0665", "ack": "explicit"},
        {"worker": "w\n1", "max_attempts": "5", "ack": "explicit"},
        {"worker": "", "max_attempts": "5", "ack": "explicit"},
    ],
)
async def test_handshake_that_asks_wrongly_is_refused(database: Path, query: dict[str, str]) -> None:
    async with gateway(database) as running:
        with pytest.raises(Refused) as refused:
            await running.agent(**query)  # type: ignore[arg-type]
        assert refused.value.status == 400
        assert json.loads(refused.value.body)["code"] == "invalid"
        assert running.ledger.find("ws-001") is None


async def test_last_attempt_that_failed_makes_room_for_the_next_message(database: Path) -> None:
    async with gateway(database) as running:
        running.offline()
        failing, behind = running.send_many(2)
        before = await worker(running, "w-1", most=2)
        for seq in await before.messages(2):
            await answer(before, type="started", seq=seq)
        before.reset()
        # Its process had begun several, so that the next one gets them one by one.
        agent = await worker(running, "w-2", most=2)
        assert (await agent.message())["seq"] == failing
        await answer(agent, type="started", seq=failing)
        assert (await answer(agent, type="failed", seq=failing, reason="exit code 1"))["set_aside"]
        assert (await agent.message())["seq"] == behind
        await running.until(
            lambda: running.db.value("SELECT written_at FROM messages WHERE id = ?", (failing,)) is not None
        )
