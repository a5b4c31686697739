"""`/v1/asks`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Optional

import pytest

from tests.gateway.http.api.support import KEY, Answer, ask, token
from tests.support import RunningGateway, gateway, within
from ws_manager.forms import ASK_FIELDS

QUESTION = {"to": "ws-001", "content": {"task": "status"}}


def two(running: RunningGateway) -> None:
    for ws_id, agent in (("ws-001", "octavia"), ("ws-002", "cipher")):
        running.ledger.connect(agent, ws_id)


def answer(running: RunningGateway, msg_id: str, content: object = "fine") -> str:
    asked = running.ledger.asked(msg_id)
    connection = running.connection(asked.recipient_id)
    return running.ledger.delivery.reply(connection.ws_id, connection.epoch, asked.seq, content)


async def asked(running: RunningGateway, bearer: Optional[str] = None) -> Answer:
    return await ask(running, "POST", "/v1/asks", QUESTION, bearer=bearer)


async def test_ask_is_in_the_ledger_when_it_is_answered_with_202(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        two(running)
        sent = await asked(running)
        assert (sent.status, tuple(sent.body), sent.body["state"]) == (202, ASK_FIELDS, "pending")
        assert sent.headers["Location"] == f"/v1/asks/{sent.body['msg_id']}"
        message = running.ledger.message(sent.body["msg_id"])
        assert message is not None
        assert (message.wants_reply, message.sender_id) == (True, None)
        assert (await ask(running, "GET", sent.headers["Location"])).body == sent.body
        answer_id = answer(running, sent.body["msg_id"], {"up": True})
        shown = await ask(running, "GET", sent.headers["Location"])
        assert (shown.body["state"], shown.body["answer"]) == ("answered", {"up": True})
        assert shown.body["answer_id"] == answer_id


async def test_wait_ends_with_the_answer_or_with_its_time(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        agent = await running.agent(ack="explicit", access_token=token("connect"))
        late = await ask(running, "POST", "/v1/asks?wait=50ms", QUESTION)
        assert (late.status, late.body["answer_id"]) == (202, None)
        seq = (await agent.message())["seq"]
        waiting = asyncio.ensure_future(ask(running, "GET", late.headers["Location"] + "?wait=20s"))
        await agent.say(type="reply", ref=1, seq=seq, content="late")
        assert (await within(waiting)).body["answer"] == "late"
        waiting = asyncio.ensure_future(
            ask(running, "POST", "/v1/asks?wait=20s", {**QUESTION, "to": "octavia"})
        )
        while "wants_reply" not in (frame := await agent.json()):
            pass
        await agent.say(type="reply", ref=2, seq=frame["seq"], content={"up": True})
        done = await within(waiting)
        assert (done.status, done.body["answer"], done.body["recipient_id"]) == (201, {"up": True}, "ws-001")


async def test_wait_ends_when_the_message_is_set_aside(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        agent = await running.agent(ack="explicit", access_token=token("connect"))
        waiting = asyncio.ensure_future(ask(running, "POST", "/v1/asks?wait=20s", QUESTION))
        await agent.say(type="reject", seq=(await agent.message())["seq"], reason="no such task")
        done = await within(waiting)
        assert (done.status, done.body["state"], done.body["reject_reason"]) == (
            202,
            "set_aside",
            "no such task",
        )


async def test_key_asks_once_and_gets_the_answer(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        two(running)
        first = await ask(running, "POST", "/v1/asks", QUESTION, key="k")
        answer(running, first.body["msg_id"])
        again = await ask(running, "POST", "/v1/asks", QUESTION, key="k")
        assert (again.status, again.body["answer"]) == (201, "fine")
        assert again.headers["Idempotency-Replayed"] == "true"
        other = await ask(running, "POST", "/v1/asks", {**QUESTION, "content": 2}, key="k")
        assert other.status == 422
        # The key of a message is another one.
        assert (await ask(running, "POST", "/v1/messages", QUESTION, key="k")).status == 201
        assert running.db.value("SELECT count(*) FROM asks") == 1


@pytest.mark.parametrize("to", ["nobody", "aria"])
async def test_nobody_is_there(database: Path, to: str) -> None:
    async with gateway(database, key=KEY) as running:
        two(running)
        refused = await ask(running, "POST", "/v1/asks", {**QUESTION, "to": to})
        assert (refused.status, refused.body["detail"]) == (404, f"{to} is not active")


async def test_asker_reads_its_own_answers_and_nobody_elses(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        two(running)
        own, other = token("send", agent="cipher"), token("send", agent="aria")
        sent = await asked(running, own)
        answer(running, sent.body["msg_id"])
        path = sent.headers["Location"]
        assert (await ask(running, "GET", path, bearer=own)).body["answer"] == "fine"
        unknown = await ask(running, "GET", "/v1/asks/none", bearer=other)
        refused = await ask(running, "GET", path, bearer=other)
        assert (refused.status, refused.body["code"], refused.body["hint"]) == (
            404,
            unknown.body["code"],
            unknown.body["hint"],
        )
        # A token for every agent sees it if it may see contents.
        assert (await ask(running, "GET", path, bearer=token("send"))).status == 404
        assert (await ask(running, "GET", path, bearer=token("send", "content"))).status == 200
        assert (await ask(running, "GET", path, bearer=token("read", "content"))).status == 403


async def test_token_of_one_connection_asks_in_its_name_and_reads_only_its_own(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        two(running)
        running.ledger.connect("cipher", "ws-sibling")
        own, sibling = (token("send", agent="cipher", ws_id=name) for name in ("ws-002", "ws-sibling"))
        sent = await asked(running, own)
        answer_id = answer(running, sent.body["msg_id"])
        message = running.ledger.message(answer_id)
        assert message is not None
        assert (message.recipient_id, message.reply_to) == ("ws-002", sent.body["msg_id"])
        assert (await ask(running, "GET", sent.headers["Location"], bearer=own)).status == 200
        assert (await ask(running, "GET", sent.headers["Location"], bearer=sibling)).status == 404
        named = await ask(running, "POST", "/v1/asks", {**QUESTION, "sender_id": "ws-002"}, bearer=sibling)
        assert named.status == 403


@pytest.mark.parametrize(
    "body",
    [{"reply": 1}, {"ack": 1, "content": 1}, {"reply": 1, "content": 1, "ack": 1}, {"content": 1}, {}],
)
async def test_receipt_that_is_none_is_refused(database: Path, body: dict[str, int]) -> None:
    async with gateway(database, key=KEY) as running:
        two(running)
        path = "/v1/connections/ws-001"
        hold = (await ask(running, "POST", f"{path}/hold")).body
        refused = await ask(running, "POST", f"{path}/receipts", {**hold, **body})
        assert refused.status == 422, refused
