"""What an operator asks: did it arrive, if not why, and why did this connection end."""

from __future__ import annotations

import os

import pytest

from tests.support import db_of, ledger_of, running
from ws_manager import NotFound
from ws_manager.core.delivery import Delivery
from ws_manager.core.ledger import ledger_over
from ws_manager.core.read.explain import BAD, GOOD, WAITING, Explanation
from ws_manager.models import Closure, Gateway, Receipt, Rejection, Written, utc_now
from ws_manager.repository.sqlite.database import Database
from ws_manager.strict_json import Json

GATEWAY = Gateway("g", os.getpid(), "http://127.0.0.1:1", "2026-01-01", "2026-01-01")


@pytest.fixture
def delivery(db: Database) -> Delivery:
    """ws-001 has a socket of the gateway `g`, ws-002 was registered by a command."""
    delivery = ledger_over(db).delivery
    delivery.record_gateway(GATEWAY).release()
    delivery.open_socket("octavia", "ws-001", Json('{"region":"us-west"}'), "g")
    ledger_of(delivery).connect("cipher", "ws-002")
    return delivery


def show(delivery: Delivery, identifier: str) -> Explanation:
    return ledger_of(delivery).explain(identifier)


def sent(delivery: Delivery, ws_id: str = "ws-001") -> tuple[str, int]:
    """Send a message, and return its msg_id and its id."""
    message = ledger_of(delivery).send(ws_id, {"event": "deploy"})
    assert message is not None
    assert message.db_id is not None
    return message.msg_id, message.db_id


def seqs(delivery: Delivery) -> list[int]:
    """The numbers of all messages, in order."""
    return [row[0] for row in db_of(delivery).rows("SELECT id FROM messages ORDER BY id")]


def happened(answer: Explanation) -> list[str]:
    return [entry.what for entry in answer.timeline]


def test_what_there_is_not(delivery: Delivery) -> None:
    with pytest.raises(NotFound, match="no connection, message or broadcast ws-009"):
        show(delivery, "ws-009")


class TestMessage:
    def test_that_was_confirmed(self, delivery: Delivery) -> None:
        msg_id, seq = sent(delivery)
        delivery.settle([Receipt("ws-001", 1, [seq], written_at=utc_now())])
        answer = show(delivery, msg_id)
        assert answer.kind == "message"
        assert answer.verdict.startswith("delivered ")
        assert answer.verdict.endswith(" ms after it was sent")
        assert happened(answer) == ["sent", "written", "confirmed"]
        assert answer.facts["delivered"] is True
        assert answer.facts["content"] == '{"event":"deploy"}'

    def test_that_was_sent_within_a_trace(self, delivery: Delivery) -> None:
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        ledger = ledger_of(delivery)
        message, broadcast = (
            ledger.send("ws-001", 1, traceparent=trace),
            ledger.broadcast(1, traceparent=trace),
        )
        assert message is not None
        for identifier in (message.msg_id, broadcast.broadcast_id):
            assert show(delivery, identifier).facts["traceparent"] == trace

    def test_that_was_set_aside(self, delivery: Delivery) -> None:
        msg_id, seq = sent(delivery)
        delivery.settle([Rejection("ws-001", 1, seq, "no such printer")])
        answer = show(delivery, msg_id)
        assert answer.verdict == "set aside: no such printer"
        assert happened(answer) == ["sent", "set aside"]

    def test_that_was_set_aside_with_others_tells_it_once(self, delivery: Delivery) -> None:
        msg_id, _ = sent(delivery, "ws-002")
        ledger_of(delivery).connect("octavia", "ws-002")
        assert happened(show(delivery, msg_id)).count("set aside") == 1

    def test_that_waits_for_a_command(self, delivery: Delivery) -> None:
        msg_id, _ = sent(delivery, "ws-002")
        assert show(delivery, msg_id).verdict == (
            "pending: ws-002 was registered by a command: `receive` takes what is pending"
        )

    def test_that_waits_behind_others(self, delivery: Delivery) -> None:
        sent(delivery, "ws-002")
        msg_id, _ = sent(delivery, "ws-002")
        assert show(delivery, msg_id).verdict.endswith("; 1 earlier message(s) wait too")

    def test_that_was_written_and_not_confirmed(self, delivery: Delivery) -> None:
        msg_id, seq = sent(delivery)
        delivery.settle([Written("ws-001", 1, seq, seq, utc_now())])
        with running(db_of(delivery).path, GATEWAY.id):
            verdict = show(delivery, msg_id).verdict
        assert verdict == "pending: written to the socket, and the agent has not confirmed it yet"

    def test_whose_socket_was_lost(self, delivery: Delivery) -> None:
        msg_id, seq = sent(delivery)
        delivery.settle([Written("ws-001", 1, seq, seq, utc_now())])
        delivery.settle([Closure("ws-001", 1, 1006, "connection lost", ended=False)])
        with running(db_of(delivery).path, GATEWAY.id):
            answer = show(delivery, msg_id)
        assert answer.verdict == (
            "pending: the socket of ws-001 was lost: connection lost (close code 1006); it may still come back;"
            " it was written to an earlier socket, which did not confirm it"
        )
        assert happened(answer) == ["sent", "written", "closed"]

    def test_whose_gateway_does_not_run(self, delivery: Delivery) -> None:
        msg_id, _ = sent(delivery)
        assert "the gateway does not run: start it" in show(delivery, msg_id).verdict
        delivery.settle([Closure("ws-001", 1, 1006, "connection lost", ended=False)])
        verdict = show(delivery, msg_id).verdict
        assert "was lost: connection lost (close code 1006); the gateway does not run" in verdict

    def test_whose_agent_has_not_come_back(self, delivery: Delivery) -> None:
        msg_id, _ = sent(delivery)
        delivery.record_gateway(GATEWAY._replace(id="h")).release()
        with running(db_of(delivery).path, "h"):
            verdict = show(delivery, msg_id).verdict
        assert verdict == "pending: ws-001 has not come back since the gateway was started again"

    def test_whose_connection_has_gone(self, delivery: Delivery) -> None:
        msg_id, _ = sent(delivery)
        delivery.settle([Closure("ws-001", 1, 1000, "done", ended=True)])
        answer = show(delivery, msg_id)
        assert answer.verdict.startswith("pending: ws-001 is disconnected since ")
        assert ": done (close code 1000); it gets what is pending when it connects again" in answer.verdict
        assert happened(answer) == ["sent", "closed", "disconnected"]

    def test_to_nobody_that_is_known(self, delivery: Delivery) -> None:
        msg_id, _ = sent(delivery)
        db_of(delivery).execute("DELETE FROM connections")
        assert show(delivery, msg_id).verdict == "pending: there is no connection ws-001"

    def test_with_times_of_an_earlier_file(self, delivery: Delivery) -> None:
        msg_id, _ = sent(delivery)
        db_of(delivery).execute(
            "UPDATE messages SET sent_at = 'yesterday', delivered = 1, confirmed_at = 'today'"
        )
        assert show(delivery, msg_id).verdict == "delivered some time after it was sent"

    def test_that_was_sent_before_the_clock_was_set_back(self, delivery: Delivery) -> None:
        msg_id, seq = sent(delivery)
        delivery.settle([Closure("ws-001", 1, 1006, "connection lost", ended=False)])
        db_of(delivery).execute("UPDATE messages SET sent_at = '2099-01-01T00:00:00.000000+00:00'")
        db_of(delivery).execute(
            "UPDATE events SET ts = '2099-01-01T00:00:01.000000+00:00' WHERE kind = 'closed'"
        )
        assert happened(show(delivery, msg_id)) == ["sent", "closed"]
        delivery.settle([Receipt("ws-001", 1, [seq])])
        answer = show(delivery, msg_id)
        assert answer.verdict == "delivered some time after it was sent"
        assert happened(answer) == ["confirmed", "sent"]


class TestConnection:
    @pytest.mark.parametrize("ws_id", ["ws-001", "ws-002"])
    def test_that_was_heard_in_the_future(self, delivery: Delivery, ws_id: str) -> None:
        db_of(delivery).execute("UPDATE connections SET last_heartbeat = '2099-01-01T00:00:00.000000+00:00'")
        assert show(delivery, ws_id).verdict.endswith(
            "; its last heartbeat lies in the future: the clock was set back, and it counts as silent"
        )

    def test_that_is_well(self, delivery: Delivery) -> None:
        with running(db_of(delivery).path, GATEWAY.id):
            answer = show(delivery, "ws-001")
        assert (answer.kind, answer.verdict) == ("connection", "the socket of ws-001 is open")
        assert happened(answer) == ["opened", "last heard"]
        assert answer.facts["metadata"] == '{"region":"us-west"}'
        assert answer.facts["pending"] == 0

    def test_that_has_messages_to_take(self, delivery: Delivery) -> None:
        msg_id, _ = sent(delivery, "ws-002")
        answer = show(delivery, "ws-002")
        assert answer.verdict.endswith("; 1 message(s) pending")
        assert f"{msg_id} to ws-002" in [entry.detail for entry in answer.timeline]

    def test_that_an_operator_ended(self, delivery: Delivery) -> None:
        ledger_of(delivery).disconnect("ws-002", "disk full")
        answer = show(delivery, "ws-002")
        assert "is disconnected since " in answer.verdict
        assert ": disk full;" in answer.verdict
        assert happened(answer) == ["registered", "last heard", "disconnected"]

    def test_that_set_messages_aside_tells_each_once(self, delivery: Delivery) -> None:
        rejected = [sent(delivery) for _ in range(12)]
        for msg_id, seq in rejected:
            delivery.settle([Rejection("ws-001", 1, seq, f"no {msg_id}")])
        told = [entry.detail for entry in show(delivery, "ws-001").timeline if entry.what == "set aside"]
        assert sorted(told) == sorted(f"{msg_id} no {msg_id}" for msg_id, _ in rejected)

    def test_that_lost_its_heartbeat(self, delivery: Delivery) -> None:
        db_of(delivery).execute("UPDATE connections SET last_heartbeat = '2020-01-01T00:00:00.000000+00:00'")
        ledger_of(delivery).heartbeat_check(30)
        assert "heartbeat timeout" in show(delivery, "ws-002").verdict

    def test_that_was_moved_tells_it_in_the_order_of_the_ledger(self, delivery: Delivery) -> None:
        sent(delivery, "ws-002")
        ledger_of(delivery).connect("octavia", "ws-002")
        answer = show(delivery, "ws-002")
        kinds = [what for what in happened(answer) if what in ("moved", "set aside", "registered")]
        assert kinds[:4] == ["registered", "moved", "set aside", "registered"]


class TestBroadcast:
    def test_of_which_some_arrived(self, delivery: Delivery) -> None:
        call = ledger_of(delivery).broadcast(1)
        first, _ = seqs(delivery)
        delivery.settle([Receipt("ws-001", 1, [first])])
        answer = show(delivery, call.broadcast_id)
        assert answer.verdict == "confirmed by 1 of 2: 1 pending, 0 set aside"
        (missing,) = answer.facts["unconfirmed"]
        assert missing["ws_id"] == "ws-002"
        assert missing["why"].startswith("pending: ws-002 was registered by a command")
        assert happened(answer) == ["sent", "first confirmed", "last confirmed"]

    def test_of_which_all_arrived_counts_what_was_pruned(self, delivery: Delivery) -> None:
        call = ledger_of(delivery).broadcast(1)
        first, last = seqs(delivery)
        delivery.settle([Receipt("ws-001", 1, [first])])
        delivery.settle([Receipt("ws-002", 1, [last])])
        db_of(delivery).execute(
            "UPDATE messages SET confirmed_at = '2020-01-01T00:00:00.000000+00:00' WHERE id = ?",
            (first,),
        )
        ledger_of(delivery).maintenance.prune(86400)
        answer = show(delivery, call.broadcast_id)
        assert answer.verdict == "confirmed by 2 of 2"
        assert answer.facts["pruned"] == 1

    def test_to_nobody(self, delivery: Delivery) -> None:
        call = ledger_of(delivery).broadcast(1, agent="nobody")
        answer = show(delivery, call.broadcast_id)
        assert answer.verdict.startswith("addressed to nobody")
        assert (answer.facts["confirmed"], answer.facts["unconfirmed"]) == (0, [])


class TestStanding:
    """What decides the colour is how it stands, whatever the words of its names and reasons are."""

    WORDS = "lost-and-found"

    def test_connection(self, delivery: Delivery) -> None:
        ledger_of(delivery).connect(self.WORDS, self.WORDS)
        assert show(delivery, self.WORDS).standing == GOOD
        sent(delivery, self.WORDS)
        assert show(delivery, self.WORDS).standing == WAITING
        ledger_of(delivery).disconnect(self.WORDS, "all messages delivered, confirmed")
        assert show(delivery, self.WORDS).standing == BAD

    def test_connection_with_a_socket(self, delivery: Delivery) -> None:
        assert show(delivery, "ws-001").standing == WAITING  # no gateway runs
        with running(db_of(delivery).path, GATEWAY.id):
            assert show(delivery, "ws-001").standing == GOOD
            delivery.settle([Closure("ws-001", 1, 1006, "delivered", ended=False)])
            assert show(delivery, "ws-001").standing == BAD

    @pytest.mark.parametrize("word", ["delivered", "set aside", "disconnected", "lost"])
    def test_message(self, delivery: Delivery, word: str) -> None:
        ws_id = f"{word} confirmed"
        ledger_of(delivery).connect("cipher", ws_id)
        delivery.open_socket("cipher", ws_id, None, "g")
        (confirmed, first), (refused, second), (pending, _) = (sent(delivery, ws_id) for _ in range(3))
        delivery.settle([Receipt(ws_id, 2, [first]), Rejection(ws_id, 2, second, "delivered")])
        standings = [show(delivery, msg_id).standing for msg_id in (confirmed, refused, pending)]
        assert standings == [GOOD, BAD, WAITING]
        delivery.settle([Closure(ws_id, 2, 1000, "well", ended=True)])
        assert show(delivery, pending).standing == BAD

    def test_broadcast(self, delivery: Delivery) -> None:
        call = ledger_of(delivery).broadcast(1)
        first, last = seqs(delivery)
        assert show(delivery, call.broadcast_id).standing == WAITING
        delivery.settle([Receipt("ws-001", 1, [first])])
        assert show(delivery, call.broadcast_id).standing == WAITING
        delivery.settle([Receipt("ws-002", 1, [last])])
        assert show(delivery, call.broadcast_id).standing == GOOD
        db_of(delivery).execute(
            "UPDATE messages SET delivered = 0, rejected_at = sent_at WHERE id = ?", (last,)
        )
        assert show(delivery, call.broadcast_id).standing == BAD
        nobody = ledger_of(delivery).broadcast(1, agent="nobody")
        assert show(delivery, nobody.broadcast_id).standing == WAITING


def test_asking_writes_nothing(delivery: Delivery, db: Database) -> None:
    msg_id, _ = sent(delivery)
    other = ledger_over(db)
    before = db.total_changes
    for identifier in ("ws-001", msg_id, "ws-002"):
        show(delivery, identifier)
    assert db.total_changes == before
    assert other.count() == 2
