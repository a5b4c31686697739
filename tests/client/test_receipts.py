"""Messages that confirm themselves when their block is left, against the real gateway."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import gateway, within
from ws_manager.client.agent import AgentClient
from ws_manager.client.receipts import AgentMessage
from ws_manager.protocol.frames import Received


class Defect(Exception):
    """What a program raises."""


async def fail(message: AgentMessage) -> None:
    """Leave a message's block with an exception."""
    with pytest.raises(Defect):
        async with message:
            raise Defect


async def test_block_that_is_left_confirms(database: Path) -> None:
    async with (
        gateway(database) as running,
        AgentClient("octavia", url=running.url, ws_id="ws-001") as client,
    ):
        seqs = running.send_many(2)
        async for message in client:
            async with message:
                assert running.delivered() == seqs[: seqs.index(message.seq)]
            await running.confirmed(message.seq)
            if message.seq == seqs[-1]:
                break


async def test_exception_is_passed_on_and_the_message_stays_pending(database: Path) -> None:
    async with gateway(database) as running:
        with pytest.raises(Defect):
            async with AgentClient("octavia", url=running.url, ws_id="ws-001") as client:
                running.send()
                async for message in client:
                    async with message:
                        raise Defect
        await running.socket_ended()
        assert running.delivered() == []


async def test_later_acks_wait_until_the_failed_message_is_acked(database: Path) -> None:
    async with (
        gateway(database) as running,
        AgentClient("octavia", url=running.url, ws_id="ws-001") as client,
    ):
        seqs = running.send_many(4)
        messages = [(await within(client.batch(1)))[0] for _ in seqs]
        await client.ack(messages[0])
        await fail(messages[1])
        async with messages[2]:
            pass
        await client.ack(messages[3])
        # The gateway has read the acks before it, if there were any.
        await within(client.send("ws-001", "a marker"))
        await running.confirmed(seqs[0])
        assert running.delivered() == seqs[:1]
        await client.ack(messages[1])
        await running.confirmed(*seqs)


async def test_later_acks_follow_the_rejection_of_the_failed_message(database: Path) -> None:
    async with (
        gateway(database) as running,
        AgentClient("octavia", url=running.url, ws_id="ws-001") as client,
    ):
        seqs = running.send_many(2)
        first, second = [(await within(client.batch(1)))[0] for _ in seqs]
        await fail(first)
        await client.ack(second)
        await client.reject(first, "no")
        await running.confirmed(seqs[1])
        assert running.db.rows("SELECT delivered, reject_reason FROM messages ORDER BY id")[0] == (0, "no")


async def test_ack_of_a_later_message_does_not_confirm_one_whose_block_is_open(database: Path) -> None:
    async with (
        gateway(database) as running,
        AgentClient("octavia", url=running.url, ws_id="ws-001") as client,
    ):
        seqs = running.send_many(2)
        first, second = [(await within(client.batch(1)))[0] for _ in seqs]
        async with first:
            async with second:
                pass
            await within(client.send("ws-001", "a marker"))
            assert running.delivered() == []
        await running.confirmed(*seqs)


async def test_message_that_was_rejected_within_its_block_stays_rejected(database: Path) -> None:
    async with (
        gateway(database) as running,
        AgentClient("octavia", url=running.url, ws_id="ws-001") as client,
    ):
        seqs = running.send_many(3)
        first, second, third = [(await within(client.batch(1)))[0] for _ in seqs]
        async with second:
            await client.reject(second, "no")
        await within(client.send("ws-001", "a marker"))
        assert running.delivered() == []
        await client.ack(third)
        await running.confirmed(first.seq, third.seq)
        assert running.delivered() == [first.seq, third.seq]


async def test_failed_message_is_handed_out_again_after_a_reconnect(database: Path) -> None:
    connected: list[object] = []
    async with (
        gateway(database) as running,
        AgentClient("octavia", url=running.url, ws_id="ws-001", on_connected=connected.append) as client,
    ):
        seqs = running.send_many(2)
        first, second = [(await within(client.batch(1)))[0] for _ in seqs]
        await fail(first)
        async with second:
            pass
        # Registered again by somebody else: the gateway sends the client away with 1012.
        running.offline()
        await running.until(lambda: len(connected) == 2)
        (again,) = await within(client.batch(1))
        assert again == first
        async with again:
            pass
        await running.confirmed(*seqs)


def test_message_has_the_form_of_what_was_received() -> None:
    fields = (
        7,
        "id",
        "data",
        None,
        "ws-001",
        None,
        "2026-11-22T17:15:18+00:00",
        False,
        None,
        {"n": 1},
        '{"n":1}',
    )
    received = Received(*fields)  # type: ignore[arg-type]
    message = AgentMessage(received, None)  # type: ignore[arg-type]
    assert message.as_dict() == received.as_dict()
    assert message.content_json == received.content_json
