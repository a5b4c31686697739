"""What an agent may say that a ledger cannot hold, on every engine: nobody else may notice."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Union
from urllib.parse import quote

import aiohttp
import pytest

from tests.support import CLOSE, TEXT, Closed, RawAgent, Refused, gateway, until
from ws_manager.protocol.close_codes import CloseCode
from ws_manager.repository.findings import MessageFilter

HOSTILE = ["\0", "a\0b", "\ud800", "\U0001f600", "x" * 6000, "\n\t\x1b[31m", "\u202e"]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def location(request: pytest.FixtureRequest, database: Path) -> Union[Path, str]:
    """Where the ledger is."""
    return str(request.getfixturevalue("postgres_url")) if request.param == "postgres" else database


async def say(socket: RawAgent, **frame: Any) -> None:
    # With the escapes of JSON, as which a frame can have everything.
    await socket.send(TEXT, json.dumps(frame).encode())


@pytest.mark.parametrize("text", HOSTILE)
async def test_reasons(location: Union[Path, str], text: str) -> None:
    async with gateway(location) as running:
        agent = await running.agent(ack="explicit", worker="w", max_attempts="1")
        others = await running.agent("cipher", "ws-002", ack="explicit")
        rejected, failed, other = running.send(), running.send(), running.send(ws_id="ws-002")
        await agent.messages(2)
        await others.messages(1)
        await say(agent, type="reject", seq=rejected, reason=text)
        await say(agent, type="started", ref=1, seq=failed)
        await say(agent, type="failed", ref=2, seq=failed, reason=text)
        assert [(await agent.json())["ok"] for _ in range(2)] == [True, True]
        valid = text.encode("utf-8", "ignore")[:123]
        await agent.send(CLOSE, struct.pack("!H", 1000) + valid)
        await others.ack(other)

        def of(seq: int) -> Any:
            return next(each for each in running.ledger.messages(MessageFilter()) if each.db_id == seq)

        await until(lambda: of(other).delivered and running.connection().close_code is not None)
        kept = text.replace("\0", "\ufffd").replace("\ud800", "\ufffd")
        assert of(rejected).reject_reason == kept[:200]
        assert of(failed).reject_reason == f"attempt 1 of 1 failed: {kept[:5000]}"
        goodbye = valid.decode().replace("\0", "\ufffd")
        assert running.connection().close_reason == (goodbye or "done")


REQUESTS: list[dict[str, Any]] = [
    {"type": "send", "to": "HOSTILE", "content": 1},
    {"type": "send", "to": "ws-001", "content": "HOSTILE"},
    {"type": "send", "to": "ws-001", "content": {"HOSTILE": 1}},
    {"type": "send", "to": "ws-001", "content": 1, "msg_type": "HOSTILE"},
    {"type": "send", "to": "ws-001", "content": 1, "key": "HOSTILE"},
    {"type": "send", "to": "ws-001", "content": 1, "traceparent": "HOSTILE"},
    {"type": "ask", "to": "HOSTILE", "content": 1},
    {"type": "broadcast", "agent": "HOSTILE", "content": 1},
    {"type": "broadcast", "content": "HOSTILE", "msg_type": "HOSTILE"},
    {"type": "pending", "ref": "HOSTILE"},
    {"type": "send", "ref": "HOSTILE", "to": "ws-001", "content": 1},
    {"type": "send", "ref": 2**80, "to": "ws-001", "content": 2**80},
    {"type": "started", "seq": 2**63 - 1},
    {"type": "reply", "seq": 2**63 - 1, "content": "HOSTILE"},
]


def put(text: str, into: Any) -> Any:
    """Put a text where it is to go."""
    if isinstance(into, dict):
        return {put(text, key): put(text, value) for key, value in into.items()}
    return text if into == "HOSTILE" else into


async def test_requests(location: Union[Path, str]) -> None:
    async with gateway(location) as running:
        await running.agent("cipher", "ws-002")
        for text in HOSTILE[:4]:
            for request in REQUESTS:
                agent = await running.agent("lucidia", "ws-003")
                frame = {"ref": 7, **put(text, request)}
                await say(agent, **frame)
                # Each is answered, or is no frame of this protocol.
                try:
                    answer = await agent.json()
                    while answer["type"] == "message":
                        answer = await agent.json()
                except Closed as closed:
                    assert closed.code == CloseCode.NOT_THIS_PROTOCOL, (frame, closed)
                else:
                    assert answer["type"] == "result", (frame, answer)
                    code = answer.get("error", {}).get("code", "ok")
                    assert code in ("ok", "invalid", "not_found", "conflict"), (frame, answer)
                agent.drop()
        # The gateway still does its work.
        agent = await running.agent("octavia", "ws-001", ack="explicit")
        seq = running.send()
        seqs = await agent.messages(1)
        while seq not in seqs:
            seqs += await agent.messages(1)
        await agent.ack(seq)
        await until(lambda: not running.ledger.count_pending(running.connection(), 1000))


async def test_handshakes(location: Union[Path, str]) -> None:
    async with gateway(location) as running:
        for text in [*HOSTILE[:4], "x" * 300]:
            text = text.encode("utf-8", "ignore").decode()
            for name in ("agent", "ws_id", "metadata", "worker", "ack"):
                query: dict[str, Any] = {"agent": "octavia", "ws_id": "ws-009", name: text}
                query.update({"max_attempts": "2"} if name == "worker" else {})
                query.update({"metadata": json.dumps({"a": text})} if name == "metadata" else {})
                try:
                    agent = await running.agent(**query)
                except Refused as refused:
                    assert 400 <= refused.status < 500, (query, refused.status)
                else:
                    agent.drop()


async def test_over_http(location: Union[Path, str]) -> None:
    async with gateway(location) as running, aiohttp.ClientSession() as session:
        running.offline()
        requests: list[tuple[str, str, Any]] = [
            ("GET", "/v1/connections/HOSTILE", None),
            ("GET", "/v1/connections?agent=HOSTILE", None),
            ("GET", "/v1/connections?where=a%3DHOSTILE", None),
            ("GET", "/v1/connections?after=HOSTILE", None),
            ("PUT", "/v1/connections/HOSTILE", {"agent": "octavia"}),
            ("PUT", "/v1/connections/ws-010", {"agent": "HOSTILE"}),
            ("PUT", "/v1/connections/ws-010", {"agent": "octavia", "metadata": {"HOSTILE": "HOSTILE"}}),
            ("DELETE", "/v1/connections/ws-010?reason=HOSTILE", None),
            ("DELETE", "/v1/connections?agent=HOSTILE", None),
            ("POST", "/v1/connections/ws-001/heartbeat", {"latency_ms": 86_400_000, "epoch": 2**70}),
            ("POST", "/v1/connections/ws-001/hold?hold=HOSTILE", None),
            ("DELETE", "/v1/connections/ws-001/hold?hold=HOSTILE", None),
            ("GET", "/v1/connections/ws-001/pending?hold=HOSTILE", None),
            ("POST", "/v1/messages", {"to": "HOSTILE", "content": 1}),
            ("POST", "/v1/messages", {"to": "ws-001", "content": "HOSTILE", "sender_id": "HOSTILE"}),
            ("GET", "/v1/messages?type=HOSTILE", None),
            ("GET", "/v1/messages?text=HOSTILE", None),
            ("GET", "/v1/messages/HOSTILE", None),
            ("POST", "/v1/messages/HOSTILE/retry", None),
            ("POST", "/v1/messages/HOSTILE/replay", {"to": "HOSTILE"}),
            ("POST", "/v1/retries", {"agent": "HOSTILE"}),
            ("PUT", "/v1/revocations/HOSTILE", None),
            ("POST", "/v1/broadcasts", {"agent": "HOSTILE", "content": 1}),
            ("POST", "/v1/broadcasts", {"where": ["a=HOSTILE"], "content": 1}),
            ("GET", "/v1/broadcasts/HOSTILE", None),
            ("POST", "/v1/asks", {"to": "HOSTILE", "content": 1}),
            ("GET", "/v1/asks/HOSTILE", None),
            ("PUT", "/v1/bars/HOSTILE", None),
            ("DELETE", "/v1/bars/HOSTILE", None),
            ("GET", "/v1/show/HOSTILE", None),
            ("GET", "/v1/messages?broadcast=HOSTILE", None),
            ("GET", "/v1/snapshot?text=HOSTILE", None),
            ("GET", "/v1/snapshot?agent=HOSTILE", None),
            ("GET", "/v1/stripe-events?event=HOSTILE", None),
            ("GET", "/v1/stripe-events?after=HOSTILE", None),
            ("POST", "/v1/stripe-replays", {"event_ids": ["HOSTILE"]}),
            ("GET", "/v1/events?ws_id=HOSTILE&cursor=HOSTILE", None),
        ]
        for text in HOSTILE[:4]:
            for method, path, body in requests:
                address = path.replace("HOSTILE", quote(text, safe="", errors="surrogatepass"))
                data = None if body is None else json.dumps(put(text, body)).encode()
                async with session.request(
                    method, f"{running.url}{address}", data=data, headers={"Content-Type": "application/json"}
                ) as answer:
                    said = await answer.text()
                assert answer.status < 500, (method, path, text, answer.status, said)
                if text == "\0" and "HOSTILE" in path.partition("?")[0]:
                    assert answer.status in (400, 404, 405, 422), (method, path, answer.status, said)
