"""The greeting, the envelope of a message, and the frames of a peer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import websockets

from tests.support import PING, PONG, TEXT, gateway, within


async def test_greeting_has_the_documented_fields(database: Path) -> None:
    async with gateway(database, heartbeat_timeout=30) as running:
        agent = await running.agent("octavia", "ws-001")
        assert agent.greeting == {
            "type": "connected",
            "ws_id": "ws-001",
            "agent": "octavia",
            "resumed": False,
            "pending": 0,
            "seq": 0,
            "heartbeat": 10.0,
        }


async def test_ws_id_is_made_up_where_none_is_given(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent("octavia", None)
        assert running.connection(agent.greeting["ws_id"]).agent == "octavia"


async def test_message_has_the_documented_envelope(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent()
        sent = running.ledger.send("ws-001", {"task": "ü"}, "alert", "ws-001")
        assert sent is not None
        assert await agent.message() == {
            "type": "message",
            "seq": sent.db_id,
            "msg_id": sent.msg_id,
            "msg_type": "alert",
            "sender_id": "ws-001",
            "recipient_id": "ws-001",
            "broadcast_id": None,
            "sent_at": sent.sent_at,
            "content": {"task": "ü"},
        }


async def test_metadata_of_the_handshake_is_kept_on_resume(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(metadata='{"region":"us-west"}')
        agent.drop()
        await running.agent()
        assert running.connection().metadata == {"region": "us-west"}


async def test_metadata_of_a_later_handshake_replaces_it(database: Path) -> None:
    async with gateway(database) as running:
        await running.agent(metadata='{"region":"us-west"}')
        await running.agent(metadata='{"v":2}')
        assert running.connection().metadata == {"v": 2}


async def test_ping_of_the_peer_is_answered_with_its_payload(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent()
        await agent.send(PING, b"are you there?")
        assert await agent.frame() == (PONG, b"are you there?")


async def test_fragmented_frames_of_the_peer_are_put_together(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent(ack="explicit")
        seq = running.send()
        await agent.message()
        text = json.dumps({"type": "ack", "seq": seq}).encode()
        await agent.send(TEXT, text[:5], last=False)
        await agent.send(PING, b"between")
        await agent.send(0, text[5:])
        await running.confirmed(seq)


async def test_agent_of_the_websockets_library_is_delivered_by_pong(database: Path) -> None:
    async with gateway(database) as running:
        url = running.url.replace("http", "ws") + "/ws?agent=octavia&ws_id=ws-001"
        async with websockets.connect(url, proxy=None) as agent:
            await within(agent.recv())
            seq = running.send("hello")
            assert json.loads(await within(agent.recv()))["content"] == "hello"
            await running.confirmed(seq)


async def test_agent_of_aiohttp_is_delivered_by_pong(database: Path) -> None:
    async with gateway(database) as running, aiohttp.ClientSession() as session:
        agent = await session.ws_connect(f"{running.url}/ws?agent=octavia&ws_id=ws-001")
        await agent.receive_json(timeout=10)
        seq = running.send("hello")
        assert (await agent.receive_json(timeout=10))["content"] == "hello"
        reading = asyncio.create_task(agent.receive())
        await running.confirmed(seq)
        reading.cancel()
        await asyncio.wait([reading])
        await agent.close()
