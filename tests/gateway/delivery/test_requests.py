"""Agents speak too: they send to one, or to many, over their own socket."""

from __future__ import annotations

import socket
from collections.abc import Awaitable
from pathlib import Path
from typing import Callable

import pytest

from tests.support import TEXT, RawAgent, Refused, RunningGateway, gateway, run
from ws_manager.gateway.limits import Limits

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER_TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
Scenario = Callable[[RunningGateway, RawAgent, RawAgent], Awaitable[None]]


def with_two(database: Path, scenario: Scenario) -> None:
    """Run a scenario with an octavia (ws-001) and a cipher (ws-002)."""

    async def work() -> None:
        async with gateway(database) as running:
            speaker = await running.agent(pongs=False)
            hearer = await running.agent("cipher", "ws-002")
            await scenario(running, speaker, hearer)

    run(work())


def test_send_reaches_the_other_in_the_senders_name(database: Path) -> None:
    async def scenario(running: RunningGateway, speaker: RawAgent, hearer: RawAgent) -> None:
        await speaker.say(type="send", ref=7, to="ws-002", content={"hello": "é"})
        message = await hearer.message()
        assert (message["sender_id"], message["msg_type"], message["content"]) == (
            "ws-001",
            "data",
            {"hello": "é"},
        )

    with_two(database, scenario)


def test_send_is_answered_with_its_ref_and_the_message(database: Path) -> None:
    async def scenario(running: RunningGateway, speaker: RawAgent, hearer: RawAgent) -> None:
        await speaker.say(type="send", ref={"any": ["thing"]}, to="ws-002", content=1)
        result = await speaker.json()
        assert result == {"type": "result", "ref": {"any": ["thing"]}, "ok": True, "msg_id": result["msg_id"]}
        assert (await hearer.message())["msg_id"] == result["msg_id"]

    with_two(database, scenario)


def test_broadcast_to_an_agent_is_answered_with_the_number_of_recipients(database: Path) -> None:
    async def scenario(running: RunningGateway, speaker: RawAgent, hearer: RawAgent) -> None:
        await speaker.say(type="broadcast", ref=8, agent="cipher", content="all of you", msg_type="note")
        message = await hearer.message()
        assert (message["sender_id"], message["msg_type"]) == ("ws-001", "note")
        result = await speaker.json()
        assert (result["ref"], result["ok"], result["recipients"]) == (8, True, 1)
        assert result["broadcast_id"] == message["broadcast_id"]

    with_two(database, scenario)


def test_a_trace_reaches_the_other_and_without_one_the_member_is_left_out(database: Path) -> None:
    async def scenario(running: RunningGateway, speaker: RawAgent, hearer: RawAgent) -> None:
        for kind in ({"type": "send", "to": "ws-002"}, {"type": "broadcast", "agent": "cipher"}):
            await speaker.say(**kind, ref=1, content=1, traceparent=TRACEPARENT)
            assert (await hearer.message())["traceparent"] == TRACEPARENT
            await speaker.say(**kind, ref=2, content=1, traceparent=None)
            assert "traceparent" not in await hearer.message()

    with_two(database, scenario)


def test_a_key_does_not_stand_for_the_trace(database: Path) -> None:
    async def scenario(running: RunningGateway, speaker: RawAgent, hearer: RawAgent) -> None:
        for trace in (TRACEPARENT, OTHER_TRACEPARENT):
            await speaker.say(type="send", to="ws-002", content=1, key="one", traceparent=trace)
            await speaker.say(type="broadcast", agent="cipher", content=2, key="one", traceparent=trace)
        results = [await speaker.json() for _ in range(4)]
        assert all(result["ok"] for result in results)
        assert results[:2] == results[2:]
        assert [(await hearer.message())["traceparent"] for _ in range(2)] == [TRACEPARENT] * 2
        assert running.db.value("SELECT count(*) FROM messages") == 2

    with_two(database, scenario)


def test_a_request_with_a_key_is_done_once(database: Path) -> None:
    async def scenario(running: RunningGateway, speaker: RawAgent, hearer: RawAgent) -> None:
        for ref in range(3):
            await speaker.say(type="send", ref=ref, to="ws-002", content={"once": 1}, key="one")
        sent = [await speaker.json() for _ in range(3)]
        assert [(result["ref"], result["msg_id"]) for result in sent] == [
            (ref, sent[0]["msg_id"]) for ref in range(3)
        ]
        for ref in range(3):
            await speaker.say(type="broadcast", ref=ref, agent="cipher", content=2, key="one")
        sent = [await speaker.json() for _ in range(3)]
        assert {(result["broadcast_id"], result["recipients"]) for result in sent} == {
            (sent[0]["broadcast_id"], 1)
        }
        assert [(await hearer.message())["content"] for _ in range(2)] == [{"once": 1}, 2]
        assert running.db.value("SELECT count(*) FROM messages") == 2

    with_two(database, scenario)


@pytest.mark.parametrize(
    ("changed", "code"),
    [({"content": 2}, "key_reused"), ({"to": "ws-001"}, "key_reused"), ({"key": ""}, "invalid")],
)
def test_a_key_that_cannot_be_used_changes_nothing(
    database: Path, changed: dict[str, object], code: str
) -> None:
    async def scenario(running: RunningGateway, speaker: RawAgent, hearer: RawAgent) -> None:
        request: dict[str, object] = {"type": "send", "to": "ws-002", "content": 1, "key": "one"}
        await speaker.say(**request)
        await speaker.json()
        await speaker.say(**{**request, **changed})
        assert (await speaker.json())["error"]["code"] == code
        assert running.db.value("SELECT count(*) FROM messages") == 1

    with_two(database, scenario)


def test_requests_are_done_in_their_order(database: Path) -> None:
    async def scenario(running: RunningGateway, speaker: RawAgent, hearer: RawAgent) -> None:
        for number in range(50):
            await speaker.say(type="send", ref=number, to="ws-002", content=number)
        assert [(await speaker.json())["ref"] for _ in range(50)] == list(range(50))
        assert [(await hearer.message())["content"] for _ in range(50)] == list(range(50))

    with_two(database, scenario)


@pytest.mark.parametrize(
    ("request_frame", "code"),
    [
        ({"type": "send", "to": "nobody", "content": 1}, "not_found"),
        ({"type": "send", "to": "", "content": 1}, "invalid"),
        ({"type": "send", "to": 5, "content": 1}, "invalid"),
        ({"type": "send", "to": "ws-002", "content": 1, "traceparent": "nonsense"}, "invalid"),
        ({"type": "send", "to": "ws-002", "content": 1, "traceparent": 5}, "invalid"),
        ({"type": "broadcast", "content": 1, "traceparent": "nonsense"}, "invalid"),
        ({"type": "send", "to": "ws-002"}, "invalid"),
        ({"type": "send", "content": 1}, "invalid"),
        ({"type": "send", "to": "ws-002", "content": 1, "msg_type": "a\nb"}, "invalid"),
        ({"type": "send", "to": "ws-002", "content": 1, "msg_type": "a\u200bb"}, "invalid"),
        ({"type": "broadcast", "content": 1, "msg_type": "a\u2028b"}, "invalid"),
        ({"type": "send", "to": "no\u200bbody", "content": 1}, "not_found"),
        ({"type": "broadcast"}, "invalid"),
        ({"type": "broadcast", "agent": ["cipher"], "content": 1}, "invalid"),
    ],
)
def test_what_cannot_be_done_is_answered_and_changes_nothing(
    request_frame: dict[str, object], code: str, database: Path
) -> None:
    async def scenario(running: RunningGateway, speaker: RawAgent, hearer: RawAgent) -> None:
        await speaker.say(ref=9, **request_frame)
        result = await speaker.json()
        assert (result["ref"], result["ok"], result["error"]["code"]) == (9, False, code)
        assert running.db.value("SELECT count(*) FROM messages") == 0

    with_two(database, scenario)


async def test_answers_that_nobody_reads_end_the_socket(database: Path) -> None:
    # Its close frame cannot be written either.
    async with gateway(database, limits=Limits(write_seconds=0.5)) as running:
        speaker = await running.agent(receive_buffer=4096)
        transport = running.server._hub._sockets["ws-001"]._transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        speaker.stop_reading()
        # Each is answered with its ref, which may be as long as a frame.
        for _ in range(20):
            await speaker.say(type="send", ref="x" * 60_000)
        assert (await running.socket_ended()).close_code == 4029


@pytest.mark.parametrize("ref", ["1e999", "NaN", "[Infinity]"])
def test_ref_that_no_json_can_hold_is_not_echoed(database: Path, ref: str) -> None:
    async def scenario(running: RunningGateway, speaker: RawAgent, hearer: RawAgent) -> None:
        await speaker.send(TEXT, b'{"type":"send","ref":%s,"to":"ws-002","content":1}' % ref.encode())
        result = await speaker.json()
        assert (result["ref"], result["error"]["code"]) == (None, "invalid")

    with_two(database, scenario)


def test_numbers_keep_their_text_in_content_and_ref(database: Path) -> None:
    async def scenario(running: RunningGateway, speaker: RawAgent, hearer: RawAgent) -> None:
        for kind in (b'"send","to":"ws-002"', b'"broadcast","agent":"cipher"'):
            await speaker.send(TEXT, b'{"type":%s,"ref":[1.10, 1E5],"content":{"a": 77950e8}}' % kind)
            assert b'"ref":[1.10, 1E5]' in (await speaker.frame())[1]
            while b'"content":{"a":77950e8}}' not in (await hearer.frame())[1]:
                pass

    with_two(database, scenario)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 101 + b"]" * 101, "100 levels"),
        (b"[" * 20_000 + b"]" * 20_000, "100 levels"),
        (b"1e400", "double"),
        (b"0." + b"1" * 1001, "1000 digits"),
        (b"NaN", "NaN"),
        (b'{"a":1,"a":2}', "twice"),
        (b'"\\ud800"', "surrogate"),
    ],
)
def test_content_beyond_the_limits_is_refused_and_the_socket_stays(
    database: Path, content: bytes, words: str
) -> None:
    async def scenario(running: RunningGateway, speaker: RawAgent, hearer: RawAgent) -> None:
        await speaker.send(TEXT, b'{"type":"send","to":"ws-002","ref":9,"content":%s}' % content)
        result = await speaker.json()
        assert (result["ref"], result["error"]["code"]) == (9, "invalid")
        assert words in result["error"]["message"]
        await speaker.say(type="send", ref=10, to="ws-002", content=1)
        assert (await speaker.json())["ok"]

    with_two(database, scenario)


def test_the_deepest_content_is_taken_from_a_socket(database: Path) -> None:
    async def scenario(running: RunningGateway, speaker: RawAgent, hearer: RawAgent) -> None:
        deepest = b"[" * 100 + b"]" * 100
        await speaker.send(TEXT, b'{"type":"send","to":"ws-002","content":%s}' % deepest)
        assert (await speaker.json())["ok"]

    with_two(database, scenario)


async def test_a_connection_with_a_name_of_an_earlier_version_comes_back_and_speaks(database: Path) -> None:
    async with gateway(database) as running:
        running.offline("octavia", "to be renamed")
        running.db.execute("UPDATE connections SET ws_id = 'ws\u200b1', agent = 'oct\ufeffavia'")
        running.send("waited", "ws\u200b1")
        agent = await running.agent("oct\ufeffavia", "ws\u200b1", pongs=False)
        assert (await agent.message())["content"] == "waited"
        await agent.say(type="send", ref=1, to="ws\u200b1", content="to myself")
        frames = {frame["type"]: frame for frame in (await agent.json(), await agent.json())}
        assert frames["result"]["ok"] is True
        assert frames["message"]["sender_id"] == "ws\u200b1"


@pytest.mark.parametrize(
    "metadata",
    [
        "{",
        "[1]",
        '{"a":NaN}',
        '{"a":1e400}',
        '{"a":1,"a":2}',
        '{"a":"\\ud800"}',
        f'{{"a":{"[" * 100}{"]" * 100}}}',
        f'{{"a":0.{"1" * 1001}}}',
    ],
)
async def test_metadata_beyond_the_limits_is_refused_at_the_handshake(database: Path, metadata: str) -> None:
    async with gateway(database) as running:
        with pytest.raises(Refused) as refused:
            await running.agent(metadata=metadata)
        assert refused.value.status == 400
        assert running.ledger.find("ws-001") is None


async def test_numbers_in_metadata_keep_their_text_at_the_handshake(database: Path) -> None:
    async with gateway(database) as running:
        await running.agent(metadata='{"v": 1.10, "b": 77950e8}')
        assert running.connection().metadata_json == '{"v":1.10,"b":77950e8}'
