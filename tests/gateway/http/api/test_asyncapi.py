"""`/v1/asyncapi.json`: the document, and the frames that really are sent."""

from __future__ import annotations

import inspect
import json
import re
from collections import UserDict
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.http.api.support import KEY, ask, token
from tests.support import gateway
from ws_manager.errors import InvalidInput
from ws_manager.forms import WIRE_FIELDS
from ws_manager.gateway.http.api.asyncapi import FROM_AGENT, FROM_GATEWAY, QUERY, Frame, document
from ws_manager.gateway.http.api.parsing import BadParameter, check_value
from ws_manager.gateway.http.api.schemas import Schema
from ws_manager.gateway.http.handshake import parse_query
from ws_manager.protocol import ask_frames, attempt_frames, frames, request_frames
from ws_manager.protocol.ask_frames import reply_frame
from ws_manager.protocol.attempt_frames import failed_frame, pending_frame, started_frame
from ws_manager.protocol.close_codes import CloseCode
from ws_manager.protocol.frames import (
    BadRequest,
    ack_frame,
    parse_agent_frame,
    parse_gateway_frame,
    reject_frame,
)
from ws_manager.protocol.request_frames import broadcast_frame, send_frame


def fits(value: Any, schema: Schema) -> bool:
    """Whether a value is as a schema of the document says, as far as that says it in the words used there."""
    try:
        check_value(value, schema, "frame")
    except BadParameter:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if not isinstance(value, dict) or "properties" not in schema:
        return True
    members = schema["properties"]
    return set(schema["required"]) <= set(value) <= set(members) and all(
        fits(each, members[name]) for name, each in value.items()
    )


def names_of(frame: dict[str, Any], described: dict[str, Frame]) -> list[str]:
    """Which of the described forms a frame has."""
    return [name for name, each in described.items() if fits(frame, each.schema)]


async def test_it_needs_no_token_and_names_the_gateway(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        answer = await ask(running, "GET", "/v1/asyncapi.json", bearer="")
        assert (answer.status, answer.body["asyncapi"]) == (200, "3.0.0")
        server = answer.body["servers"]["gateway"]
        assert f"{server['protocol']}://{server['host']}" == running.url.replace("http://", "ws://")
        assert answer.body == json.loads(json.dumps(document(running.url)))
        foreign = await ask(running, "GET", "/v1/asyncapi.json", bearer="", headers={"Host": "example.com"})
        assert foreign.status == 403
    assert document("https://example.com")["servers"]["gateway"]["protocol"] == "wss"


def test_what_it_refers_to_is_there() -> None:
    whole = document("http://127.0.0.1:8765")
    found = re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(whole))
    assert found
    for reference in found:
        place: Any = whole
        for part in reference.split("/"):
            place = place[part]


def test_every_frame_is_in_an_operation_of_its_direction() -> None:
    whole = document("")
    sides: dict[str, set[str]] = {"send": set(), "receive": set()}
    for operation in whole["operations"].values():
        sides[operation["action"]] |= {each["$ref"].split("/")[-1] for each in operation["messages"]}
        sides["send"] |= {
            each["$ref"].split("/")[-1] for each in operation.get("reply", {}).get("messages", ())
        }
    assert sides == {"send": set(FROM_GATEWAY), "receive": set(FROM_AGENT)}


def test_every_type_that_the_protocol_reads_or_writes_is_described_and_no_other() -> None:
    sources = (frames, attempt_frames, request_frames, ask_frames)
    source = "".join(map(inspect.getsource, sources))
    written = set(re.findall(r'"type": ?"(\w+)"', source))
    read = set(re.findall(r'kind == "(\w+)"', source))
    for several in re.findall(r"_REQUESTS = \(([^)]+)\)", source):
        read |= set(re.findall(r'"(\w+)"', several))
    from_gateway, from_agent = ({each.kind for each in side.values()} for side in (FROM_GATEWAY, FROM_AGENT))
    # `send_frame` writes both: its parameter `kind` is the type.
    assert written | {"send", "ask"} == read == from_gateway | from_agent


@pytest.mark.parametrize("name", FROM_GATEWAY)
def test_example_of_the_gateway_is_read_by_an_agent(name: str) -> None:
    example = FROM_GATEWAY[name].example
    assert names_of(example, FROM_GATEWAY) == [name]
    assert parse_gateway_frame(json.dumps(example)) is not None
    with pytest.raises(InvalidInput, match="unknown frame type"):
        parse_agent_frame(json.dumps(example))


@pytest.mark.parametrize("name", FROM_AGENT)
def test_example_of_an_agent_is_read_by_the_gateway(name: str) -> None:
    example = FROM_AGENT[name].example
    assert names_of(example, FROM_AGENT) == [name]
    assert not isinstance(parse_agent_frame(json.dumps(example)), BadRequest)
    assert parse_gateway_frame(json.dumps(example)) is None


@pytest.mark.parametrize("name", FROM_AGENT)
def test_gateway_asks_for_what_is_required_of_an_agent_and_reads_the_rest(name: str) -> None:
    frame = FROM_AGENT[name]
    for member, schema in frame.schema["properties"].items():
        if member in frame.schema["required"]:
            without = {key: value for key, value in frame.example.items() if key != member}
            assert refused(without), member
        elif "type" in schema:
            assert refused({**frame.example, member: 1}), member


def refused(frame: dict[str, Any]) -> bool:
    """Whether a gateway does not accept a frame."""
    try:
        return isinstance(parse_agent_frame(json.dumps(frame)), BadRequest)
    except InvalidInput:
        return True


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("ack", ack_frame(41)),
        ("reject", reject_frame(41, "no")),
        ("send", send_frame(7, "ws-002", {"n": 1}, "data")),
        ("send", send_frame(7, "ws-002", {"n": 1}, "data", "k", f"00-{'a' * 32}-{'b' * 16}-01")),
        ("broadcast", broadcast_frame(8, None, [1], "broadcast")),
        ("ask", send_frame(7, "octavia", {"n": 1}, "data", "k", kind="ask")),
        ("reply", reply_frame(9, 41, {"n": 1})),
        ("started", started_frame(9, 41)),
        ("failed", failed_frame(10, 41, "exit code 1")),
        ("pending", pending_frame(11)),
    ],
)
def test_what_our_own_agents_write_is_described(name: str, frame: str) -> None:
    assert names_of(json.loads(frame), FROM_AGENT) == [name]


def test_a_message_is_described_as_it_is() -> None:
    message = FROM_GATEWAY["message"].schema
    assert set(message["properties"]) == {"type", *WIRE_FIELDS}
    # A frame leaves them out where they would say nothing.
    optional = {"traceparent", "wants_reply", "reply_to"}
    assert set(message["properties"]) - set(message["required"]) == optional


async def test_frames_of_a_real_socket_are_described(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        everything = token("connect", "send", "broadcast")
        agent = await running.agent(ack="explicit", worker="w-1", max_attempts="5", access_token=everything)
        by_pong = await running.agent("cipher", "ws-002", access_token=token("connect"))
        seen = [agent.greeting]

        async def said(*forms: str, **frame: Any) -> None:
            """Say something that is described, and see that what comes back has these forms."""
            assert names_of(frame, FROM_AGENT) == [frame["type"]]
            await agent.say(**frame)
            answers = [await agent.json() for _ in forms]
            assert sorted(name for each in answers for name in names_of(each, FROM_GATEWAY)) == sorted(forms)
            seen.extend(answers)

        await said("sent", type="send", ref={"any": [1]}, to="ws-002", content=None, msg_type="note", key="k")
        await said(
            "broadcasted", "message", type="broadcast", ref="r", content={"n": 1.5}, agent=None, key=None
        )
        await said("refused", type="send", ref=None, to="nobody", content=1)
        await said("message", "sent", type="send", ref=1, to="ws-001", content=[None, "ü"])
        await said("message", "sent", type="ask", ref=2, to="octavia", content="status?", key=None)
        wanted = next(each["seq"] for each in seen if each.get("wants_reply"))
        await said("message", "sent", type="reply", ref=3, seq=wanted, content={"up": True})
        await said("error", type="reject", seq=2**62, reason="why")
        first = next(each["seq"] for each in seen if each["type"] == "message")
        await said("attempt", type="started", ref=9, seq=first)
        await said("attempt", type="failed", ref=10, seq=first, reason="exit code 1")
        await said("count", type="pending", ref=11)
        # Without an answer, and so before one that has.
        await said(type="ack", seq=max(each.get("seq", 0) for each in seen))
        running.ledger.send("ws-001", "from the system")
        seen.append(await agent.message())
        await by_pong.message()
        assert {name for each in seen for name in names_of(each, FROM_GATEWAY)} == set(FROM_GATEWAY)
        assert all(len(names_of(each, FROM_GATEWAY)) == 1 for each in seen)
        # Both kinds of sender and of what a message belongs to.
        messages = [each for each in seen if each["type"] == "message"]
        assert {each["sender_id"] for each in messages} == {None, "ws-001"}
        assert None in {each["broadcast_id"] for each in messages}


def test_parameters_of_the_handshake_are_those_that_it_reads() -> None:
    asked: set[str] = set()

    class Query(UserDict[str, str]):
        def __getitem__(self, name: str) -> str:
            asked.add(name)
            return super().__getitem__(name)

    values = {"metadata": "{}", "max_attempts": "5"}
    query = Query({name: values.get(name, "explicit") for name in QUERY["properties"]})
    assert parse_query(query).explicit_ack
    assert {*asked, "access_token"} == set(QUERY["properties"])
    for choice in QUERY["properties"]["ack"]["enum"]:
        parse_query({"agent": "octavia", "ack": choice})
    with pytest.raises(InvalidInput):
        parse_query({name: "x" for name in QUERY["properties"] if name not in QUERY["required"]})


def test_every_close_code_is_described() -> None:
    described = document("")["channels"]["socket"]["x-close-codes"]
    assert [each["code"] for each in described] == list(CloseCode)
    reconnects = {each["code"]: each["reconnect"] for each in described}
    assert (reconnects[4001], reconnects[4009]) == (True, False)
