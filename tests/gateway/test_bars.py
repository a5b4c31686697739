"""Barred agents and revoked tokens at a gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import Closed, Refused, gateway
from ws_manager.tokens import mint, verify

KEY = b"the key of this test, not a secret"


def jti(token: str) -> str:
    return verify(KEY, token).key or ""


async def test_sockets_of_a_barred_agent_are_closed_and_others_stay(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        first = await running.agent(access_token=mint(KEY, "octavia"))
        second = await running.agent(ws_id="ws-002", access_token=mint(KEY, "*"))
        other = await running.agent("cipher", "ws-003", access_token=mint(KEY, "cipher"))
        running.ledger.bar("octavia")
        assert [await first.closed(), await second.closed()] == [4003, 4003]
        for token in (mint(KEY, "octavia"), mint(KEY, "*")):
            with pytest.raises(Refused) as refused:
                await running.agent(access_token=token)
            assert refused.value.status == 403
            assert json.loads(refused.value.body)["detail"] == "the agent is barred"
        running.send("still here", "ws-003")
        assert (await other.message())["content"] == "still here"
        running.ledger.unbar("octavia")
        await running.agent(access_token=mint(KEY, "octavia"))


async def test_barred_without_tokens_too(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent()
        running.ledger.bar("octavia")
        assert await agent.closed() == 4003
        with pytest.raises(Refused):
            await running.agent()


async def test_revoked_token_ends_its_sockets_and_what_they_confirm_does_not_count(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        revoked, kept = mint(KEY, "*"), mint(KEY, "*")
        agent = await running.agent(ack="explicit", access_token=revoked)
        other = await running.agent(ws_id="ws-002", access_token=kept)
        seq = running.send("for me", "ws-001")
        assert (await agent.message())["seq"] == seq
        running.ledger.revoke(jti(revoked))
        # Whether the gateway knows already or not.
        await agent.ack(seq)
        assert await agent.closed() == 4003
        await running.server.settled()
        assert seq not in running.delivered()
        with pytest.raises(Refused) as refused:
            await running.agent(access_token=revoked)
        assert refused.value.status == 403
        again = await running.agent(ack="explicit", access_token=kept)
        assert (await again.message())["seq"] == seq
        running.send("still here", "ws-002")
        assert (await other.message())["content"] == "still here"


async def test_close_frame_says_not_to_come_back(database: Path) -> None:
    async with gateway(database) as running:
        agent = await running.agent()
        running.ledger.bar("octavia")
        with pytest.raises(Closed, match="4003 barred or revoked, do not come back"):
            await agent.json()
