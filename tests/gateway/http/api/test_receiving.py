"""`/v1/connections/{ws_id}/hold`, `pending` and `receipts`: receiving without a socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.gateway.http.api.support import KEY, ask, token
from tests.support import RunningGateway, gateway, number_on, until
from ws_manager import Conflict
from ws_manager.core import holds
from ws_manager.forms import WIRE_FIELDS

PATH = "/v1/connections/ws-001"


async def held(running: RunningGateway) -> str:
    """Hold ws-001, for which three messages wait."""
    running.ledger.connect("octavia", "ws-001")
    for number in (1, 2, 3):
        running.ledger.send("ws-001", number)
    taken = await ask(running, "POST", f"{PATH}/hold")
    assert taken.status == 201, taken
    return str(taken.body["hold"])


async def contents(running: RunningGateway, hold: str, query: str = "") -> list[object]:
    answer = await ask(running, "GET", f"{PATH}/pending?hold={hold}{query}")
    assert answer.status == 200, answer
    return [item["content"] for item in answer.body["items"]]


async def test_what_is_pending_is_taken_in_order_and_confirmed(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        hold = await held(running)
        first = await ask(running, "GET", f"{PATH}/pending?hold={hold}&limit=2")
        items = first.body["items"]
        assert [tuple(item) for item in items] == [WIRE_FIELDS, WIRE_FIELDS]
        assert [item["content"] for item in items] == [1, 2]
        # Taking is not confirming.
        assert await contents(running, hold) == [1, 2, 3]
        assert await contents(running, hold, f"&after={items[-1]['seq']}") == [3]
        receipt = {"hold": hold, "epoch": first.body["epoch"], "ack": items[-1]["seq"]}
        settled = await ask(running, "POST", f"{PATH}/receipts", receipt)
        assert settled.body == {"confirmed": 2, "set_aside": 0}
        assert await contents(running, hold) == [3]
        message = running.ledger.message(items[0]["msg_id"])
        assert message is not None
        assert message.delivered


async def test_more_than_a_page_is_confirmed_by_one_ack(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        hold = await held(running)
        with running.db.transaction():
            sent = [running.ledger.send("ws-001", number) for number in range(1500)]
        assert sent[-1] is not None
        receipt = {"hold": hold, "epoch": 1, "ack": sent[-1].db_id}
        assert (await ask(running, "POST", f"{PATH}/receipts", receipt)).body["confirmed"] == 1503


async def test_one_is_rejected(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        hold = await held(running)
        item = (await ask(running, "GET", f"{PATH}/pending?hold={hold}")).body["items"][1]
        receipt = {"hold": hold, "epoch": 1, "reject": item["seq"], "reason": "cannot read it"}
        settled = await ask(running, "POST", f"{PATH}/receipts", receipt)
        assert settled.body == {"confirmed": 0, "set_aside": 1}
        message = running.ledger.message(item["msg_id"])
        assert message is not None
        assert message.reject_reason == "cannot read it"
        assert await contents(running, hold) == [1, 3]


async def test_waits_for_what_comes(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        hold = await held(running)
        waiting = asyncio.ensure_future(
            ask(running, "GET", f"{PATH}/pending?hold={hold}&after=1000&wait=60s")
        )
        number_on(running.db, 2000)
        running.ledger.send("ws-001", "new")
        assert [item["content"] for item in (await waiting).body["items"]] == ["new"]
        assert await contents(running, hold, "&after=3000&wait=10ms") == []


async def test_a_stopping_gateway_lets_nobody_wait(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        hold = await held(running)
        path = f"{PATH}/pending?hold={hold}&after=1000&wait=60s"
        waiting = asyncio.ensure_future(ask(running, "GET", path))
        await until(lambda: running.server._bell.next._waiters)
    answer = await waiting
    assert (answer.status, answer.body["items"]) == (200, [])


class TestOneReceiverAtATime:
    async def test_another_hold(self, database: Path) -> None:
        async with gateway(database, key=KEY) as running:
            hold = await held(running)
            refused = await ask(running, "POST", f"{PATH}/hold")
            assert (refused.status, refused.body["detail"]) == (409, "another receiver holds ws-001")
            released = await ask(running, "DELETE", f"{PATH}/hold?hold={hold}")
            assert released.body == {"released": True}
            assert (await ask(running, "POST", f"{PATH}/hold")).status == 201
            lost = await ask(running, "GET", f"{PATH}/pending?hold={hold}")
            assert (lost.status, lost.body["detail"]) == (409, "the hold of ws-001 has ended")
            assert (await ask(running, "DELETE", f"{PATH}/hold?hold={hold}")).body == {"released": False}

    async def test_a_receiver_on_the_file(self, database: Path) -> None:
        async with gateway(database, key=KEY) as running:
            hold = await held(running)
            with pytest.raises(Conflict, match="another receiver"), running.ledger.delivery.holding("ws-001"):
                pass
            await ask(running, "DELETE", f"{PATH}/hold?hold={hold}")
            with running.ledger.delivery.holding("ws-001"):
                assert (await ask(running, "POST", f"{PATH}/hold")).status == 409

    async def test_a_socket_is_not_held(self, database: Path) -> None:
        async with gateway(database, key=KEY) as running:
            await running.agent("octavia", "ws-001", access_token=token("connect"))
            refused = await ask(running, "POST", f"{PATH}/hold")
            assert (refused.status, refused.body["detail"]) == (409, "a socket holds ws-001")

    async def test_a_socket_takes_over_and_receipts_of_before_are_void(self, database: Path) -> None:
        async with gateway(database, key=KEY) as running:
            hold = await held(running)
            epoch = (await ask(running, "GET", f"{PATH}/pending?hold={hold}")).body["epoch"]
            await running.agent("octavia", "ws-001", access_token=token("connect"))
            receipt = {"hold": hold, "epoch": epoch, "ack": 1}
            void = await ask(running, "POST", f"{PATH}/receipts", receipt)
            assert void.status == 409
            assert "registered again" in void.body["detail"]


async def test_a_hold_ends_unless_it_is_renewed(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway(database, key=KEY) as running:
        hold = await held(running)
        for seconds, alive in ((20, True), (45, True), (80, False)):
            monkeypatch.setattr(holds, "utc_now", lambda later=seconds: _in(later))
            answer = await ask(running, "GET", f"{PATH}/pending?hold={hold}")
            assert answer.status == (200 if alive else 409)
        # After the clock was set back, a hold is not for ever.
        await ask(running, "POST", f"{PATH}/hold")
        monkeypatch.undo()
        assert (await ask(running, "POST", f"{PATH}/hold")).status == 201


def _in(seconds: float) -> str:
    from ws_manager.models import seconds_before, utc_now

    return seconds_before(utc_now(), -seconds)


async def test_who_names_its_hold_takes_it_again(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        running.ledger.connect("octavia", "ws-001")
        for _ in range(2):
            taken = await ask(running, "POST", f"{PATH}/hold?hold=my-own")
            assert (taken.status, taken.body) == (201, {"hold": "my-own", "epoch": 1})
        assert (await ask(running, "POST", f"{PATH}/hold?hold=another")).status == 409
        await ask(running, "DELETE", f"{PATH}/hold?hold=my-own")
        assert (await ask(running, "POST", f"{PATH}/hold?hold=another")).status == 201
        # It has ended, and another has it.
        assert (await ask(running, "POST", f"{PATH}/hold?hold=my-own")).status == 409


class TestAttempts:
    async def test_the_last_one_sets_the_message_aside(self, database: Path) -> None:
        async with gateway(database, key=KEY) as running:
            await held(running)
            running.db.execute("DELETE FROM holds")
            taken = await ask(running, "POST", f"{PATH}/hold?worker=w-1&max_attempts=2")
            body = {"hold": taken.body["hold"], "epoch": 1}
            for number in (1, 2):
                begun = await ask(running, "POST", f"{PATH}/attempts", {**body, "started": 1})
                assert begun.body == {"attempt": number, "set_aside": False}
                failure = {**body, "failed": 1, "reason": f"exit code {number}:\n" + "x" * 6000}
                failed = await ask(running, "POST", f"{PATH}/attempts", failure)
                assert failed.body == {"attempt": number, "set_aside": number == 2}
            again = await ask(running, "POST", f"{PATH}/attempts", failure)
            assert (again.status, again.body["code"]) == (409, "conflict")
            assert await contents(running, taken.body["hold"]) == [2, 3]
            why = running.db.value("SELECT reject_reason FROM messages WHERE id = 1")
            start = "attempt 2 of 2 failed: "
            assert str(why).startswith(f"{start}exit code 2:\nxxx")
            assert len(str(why)) == len(start) + 5000

    @pytest.mark.parametrize("query", ["worker=w-1", "max_attempts=2"])
    async def test_a_worker_has_a_name_and_a_number(self, database: Path, query: str) -> None:
        async with gateway(database, key=KEY) as running:
            running.ledger.connect("octavia", "ws-001")
            refused = await ask(running, "POST", f"{PATH}/hold?{query}")
            assert (refused.status, refused.body["detail"]) == (422, "max_attempts and worker go together")

    @pytest.mark.parametrize("extra", [{}, {"started": 1, "failed": 1}])
    async def test_a_request_says_one_thing(self, database: Path, extra: dict[str, int]) -> None:
        async with gateway(database, key=KEY) as running:
            hold = await held(running)
            body = {"hold": hold, "epoch": 1, **extra}
            assert (await ask(running, "POST", f"{PATH}/attempts", body)).status == 422

    async def test_they_need_a_worker_and_its_hold(self, database: Path) -> None:
        async with gateway(database, key=KEY) as running:
            hold = await held(running)
            for name, status in ((hold, 422), ("another", 409)):
                body = {"hold": name, "epoch": 1, "started": 1}
                assert (await ask(running, "POST", f"{PATH}/attempts", body)).status == status


async def test_what_waits_for_a_disconnected_one_is_taken_too(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        hold = await held(running)
        running.ledger.disconnect("ws-001")
        answer = await ask(running, "GET", f"{PATH}/pending?hold={hold}")
        assert (answer.body["status"], len(answer.body["items"])) == ("disconnected", 3)
        # It is not waited for: nothing comes any more.
        after = answer.body["items"][-1]["seq"]
        assert await contents(running, hold, f"&after={after}&wait=60s") == []


@pytest.mark.parametrize("extra", [{}, {"ack": 1, "reject": 1}])
async def test_a_receipt_says_one_thing(database: Path, extra: dict[str, int]) -> None:
    async with gateway(database, key=KEY) as running:
        hold = await held(running)
        receipt = {"hold": hold, "epoch": 1, **extra}
        assert (await ask(running, "POST", f"{PATH}/receipts", receipt)).status == 422


async def test_of_another_agent_is_not_there(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        hold = await held(running)
        other = token("connect", agent="cipher")
        body = {"hold": hold, "epoch": 1}
        for answer in (
            await ask(running, "POST", f"{PATH}/hold", bearer=other),
            await ask(running, "DELETE", f"{PATH}/hold?hold={hold}", bearer=other),
            await ask(running, "GET", f"{PATH}/pending?hold={hold}", bearer=other),
            await ask(running, "POST", f"{PATH}/receipts", {**body, "ack": 1}, bearer=other),
            await ask(running, "POST", f"{PATH}/attempts", {**body, "started": 1}, bearer=other),
        ):
            assert (answer.status, answer.body["detail"]) == (404, "no connection ws-001")
