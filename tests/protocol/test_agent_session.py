"""One agent's session, the agent's side."""

from __future__ import annotations

import json

import pytest

from ws_manager.errors import InvalidInput
from ws_manager.protocol.agent_session import AgentSession
from ws_manager.protocol.frames import Connected, Failure, Received


def greeting(ws_id: str = "ws-001") -> str:
    """The gateway's first frame."""
    return json.dumps(
        {
            "type": "connected",
            "ws_id": ws_id,
            "agent": "octavia",
            "resumed": False,
            "pending": 0,
            "seq": 0,
            "heartbeat": 10,
        }
    )


def message(seq: int, message_id: str = "") -> str:
    """A message frame."""
    return json.dumps(
        {
            "type": "message",
            "seq": seq,
            "msg_id": message_id or f"id-{seq}",
            "msg_type": "data",
            "sender_id": None,
            "recipient_id": "ws-001",
            "broadcast_id": None,
            "sent_at": "2026-11-22T17:15:18.644305+00:00",
            "content": {"n": seq},
        }
    )


def receive(session: AgentSession, *seqs: int) -> list[Received]:
    """Take new messages and hand them out."""
    taken = []
    for seq in seqs:
        received = session.text(message(seq))
        assert isinstance(received, Received)
        session.handed_out(received)
        taken.append(received)
    return taken


def answers(session: AgentSession) -> list[dict[str, object]]:
    """The frames to write."""
    return [json.loads(frame) for frame in session.take_answers()]


class TestGreeting:
    def test_names_the_connection(self) -> None:
        session = AgentSession()
        session.text(greeting("ws-007"))
        assert session.ws_id == "ws-007"

    def test_is_kept(self) -> None:
        session = AgentSession()
        assert (
            session.text(greeting()) == session.connected == Connected("ws-001", "octavia", False, 0, 0, 10)
        )


class TestMessages:
    def test_new_one_is_returned(self) -> None:
        received = AgentSession().text(message(1))
        assert isinstance(received, Received)
        assert received.content == {"n": 1}

    def test_ack_is_written(self) -> None:
        session = AgentSession()
        session.ack(*receive(session, 1))
        assert answers(session) == [{"type": "ack", "seq": 1}]

    def test_reject_is_written(self) -> None:
        session = AgentSession()
        (message,) = receive(session, 1)
        session.reject(message, "no")
        assert answers(session) == [{"type": "reject", "seq": 1, "reason": "no"}]

    def test_answers_are_written_once(self) -> None:
        session = AgentSession()
        session.ack(*receive(session, 1))
        session.take_answers()
        assert answers(session) == []

    def test_error_is_returned(self) -> None:
        frame = '{"type":"error","error":{"code":"conflict","message":"no"}}'
        assert AgentSession().text(frame) == Failure("conflict", "no")

    def test_unknown_type_is_ignored(self) -> None:
        assert AgentSession().text('{"type":"weather"}') is None

    def test_not_this_protocol_is_an_error(self) -> None:
        with pytest.raises(InvalidInput):
            AgentSession().text("hello")


class TestSentAgain:
    def test_while_it_is_dealt_with_is_left_out(self) -> None:
        session = AgentSession()
        receive(session, 1)
        assert session.text(message(1)) is None

    def test_while_it_is_dealt_with_is_not_confirmed(self) -> None:
        session = AgentSession()
        receive(session, 1)
        session.text(message(1))
        assert answers(session) == []

    def test_after_its_ack_is_left_out(self) -> None:
        session = AgentSession()
        session.ack(*receive(session, 1))
        assert session.text(message(1)) is None

    def test_after_its_ack_is_confirmed_again(self) -> None:
        session = AgentSession()
        session.ack(*receive(session, 1))
        session.take_answers()
        session.text(message(1))
        assert answers(session) == [{"type": "ack", "seq": 1}]

    def test_after_an_ack_that_spans_it_is_confirmed_again(self) -> None:
        session = AgentSession()
        session.ack(receive(session, 1, 2, 3)[-1])
        session.take_answers()
        session.text(message(1))
        assert answers(session) == [{"type": "ack", "seq": 1}]

    def test_after_its_rejection_is_rejected_again(self) -> None:
        session = AgentSession()
        session.reject(receive(session, 1, 2)[1], "no")
        session.take_answers()
        session.text(message(2))
        assert answers(session) == [{"type": "reject", "seq": 2, "reason": "no"}]

    def test_after_a_rejection_that_a_later_ack_spans_is_rejected_again(self) -> None:
        session = AgentSession()
        first, second = receive(session, 1, 2)
        session.reject(first, "no")
        session.ack(second)
        session.take_answers()
        session.text(message(1))
        assert answers(session) == [{"type": "reject", "seq": 1, "reason": "no"}]

    def test_under_another_number_is_known_by_its_id(self) -> None:
        session = AgentSession()
        session.ack(*receive(session, 5))
        session.take_answers()
        session.text(message(2, "id-5"))
        assert answers(session) == [{"type": "ack", "seq": 2}]

    def test_another_message_under_a_known_number_is_new(self) -> None:
        session = AgentSession()
        session.ack(*receive(session, 5))
        assert isinstance(session.text(message(5, "another")), Received)

    def test_later_message_is_not_spanned_by_an_ack(self) -> None:
        session = AgentSession()
        session.ack(receive(session, 1, 2)[0])
        session.take_answers()
        session.text(message(2))
        assert answers(session) == []

    def test_ack_twice_spans_nothing_that_was_handed_out_later(self) -> None:
        session = AgentSession()
        (first,) = receive(session, 1)
        session.ack(first)
        receive(session, 2)
        session.ack(first)
        session.take_answers()
        session.text(message(2))
        assert answers(session) == []

    @pytest.mark.parametrize("verb", ["ack", "reject"])
    def test_answer_waits_until_the_new_socket_has_brought_the_message(self, verb: str) -> None:
        session = AgentSession()
        (first,) = receive(session, 1)
        session.text(greeting())
        session.ack(first) if verb == "ack" else session.reject(first, "no")
        assert answers(session) == []
        session.text(message(1))
        assert [answer["type"] for answer in answers(session)] == [verb]

    def test_answers_of_an_earlier_socket_are_not_written_to_the_next(self) -> None:
        session = AgentSession()
        (message,) = receive(session, 1)
        session.reject(message, "no")
        session.text(greeting())
        assert answers(session) == []

    def test_memory_does_not_grow_with_batches(self) -> None:
        session = AgentSession()
        for start in range(0, 30_000, 100):
            session.ack(receive(session, *range(start, start + 100))[-1])
        assert len(session._handled) + len(session._unsettled) <= 20_000


class TestHeld:
    def test_later_ack_goes_only_up_to_it(self) -> None:
        session = AgentSession()
        _, second, third = receive(session, 1, 2, 3)
        session.hold(second)
        session.ack(third)
        assert answers(session) == [{"type": "ack", "seq": 1}]

    def test_later_ack_follows_its_own(self) -> None:
        session = AgentSession()
        first, second, _ = receive(session, 1, 2, 3)
        session.hold(first)
        session.ack(second)
        assert answers(session) == []
        session.ack(first)
        assert answers(session) == [{"type": "ack", "seq": 2}]

    def test_later_ack_follows_its_rejection(self) -> None:
        session = AgentSession()
        first, second = receive(session, 1, 2)
        session.hold(first)
        session.ack(second)
        session.reject(first, "no")
        assert answers(session) == [
            {"type": "reject", "seq": 1, "reason": "no"},
            {"type": "ack", "seq": 2},
        ]

    def test_later_acked_one_that_is_sent_again_is_neither_confirmed_nor_new(self) -> None:
        session = AgentSession()
        first, second = receive(session, 1, 2)
        session.hold(first)
        session.fail(first)
        session.ack(second)
        session.text(greeting())
        session.text(message(1))
        assert session.text(message(2)) is None
        assert answers(session) == []

    def test_while_it_is_dealt_with_is_left_out_when_it_is_sent_again(self) -> None:
        session = AgentSession()
        (first,) = receive(session, 1)
        session.hold(first)
        assert session.text(message(1)) is None

    def test_after_a_failure_is_handed_out_when_it_is_sent_again_and_stays_held(self) -> None:
        session = AgentSession()
        first, second = receive(session, 1, 2)
        session.hold(first)
        session.fail(first)
        receive(session, 1)
        session.ack(second)
        assert answers(session) == []

    def test_after_a_failure_is_not_dealt_with(self) -> None:
        session = AgentSession()
        (first,) = receive(session, 1)
        session.hold(first)
        assert session.is_dealing
        session.fail(first)
        assert not session.is_dealing

    def test_failure_after_the_ack_changes_nothing(self) -> None:
        session = AgentSession()
        first, second = receive(session, 1, 2)
        session.hold(first)
        session.ack(first)
        session.fail(first)
        session.ack(second)
        assert [answer["seq"] for answer in answers(session)] == [1, 2]

    def test_acks_that_waited_go_out_with_the_numbers_of_the_present_socket(self) -> None:
        session = AgentSession()
        first, second = receive(session, 5, 6)
        session.hold(first)
        session.ack(second)
        session.text(greeting())
        session.text(message(2, "id-5"))
        session.text(message(3, "id-6"))
        session.ack(first)
        assert answers(session) == [{"type": "ack", "seq": 3}]

    def test_after_a_failure_is_not_handed_out_again_once_it_is_settled(self) -> None:
        session = AgentSession()
        first, second = receive(session, 1, 2)
        for each in (first, second):
            session.hold(each)
            session.fail(each)
        again = [session.text(message(seq)) for seq in (1, 2)]
        session.ack(second)
        session.reject(first, "no")
        assert [session.handed_out(each) for each in again if isinstance(each, Received)] == [False, False]

    def test_after_its_own_ack_is_neither_held_nor_rejected(self) -> None:
        session = AgentSession()
        first, second = receive(session, 1, 2)
        session.hold(first)
        session.ack(second)
        session.hold(second)
        session.reject(second, "no")
        session.ack(first)
        assert answers(session) == [{"type": "ack", "seq": 2}]


class TestSettled:
    def test_ack_after_a_rejection_confirms_nothing_before_it(self) -> None:
        session = AgentSession()
        _, second = receive(session, 1, 2)
        session.reject(second, "no")
        session.take_answers()
        session.ack(second)
        assert answers(session) == []

    def test_rejection_after_an_ack_writes_nothing(self) -> None:
        session = AgentSession()
        (first,) = receive(session, 1)
        session.ack(first)
        session.take_answers()
        session.reject(first, "no")
        assert answers(session) == []


class TestUnreadable:
    FRAME = message(7).replace('{"n": 7}', "[" * 980 + "]" * 980)

    def test_is_rejected_and_the_next_one_is_taken(self) -> None:
        session = AgentSession()
        session.text(greeting())
        assert session.text(self.FRAME) is None
        (answer,) = answers(session)
        assert (answer["type"], answer["seq"]) == ("reject", 7)
        assert "100 levels" in str(answer["reason"])
        assert receive(session, 8)

    def test_is_rejected_again_when_it_comes_again(self) -> None:
        session = AgentSession()
        for _ in range(2):
            session.text(greeting())
            session.text(self.FRAME)
            assert [answer["type"] for answer in answers(session)] == ["reject"]


class TestReplied:
    def test_is_settled_without_an_ack_and_those_behind_it_follow(self) -> None:
        session = AgentSession()
        first, second = receive(session, 1, 2)
        session.hold(first)
        session.ack(second)
        session.replied(first)
        assert answers(session) == [{"type": "ack", "seq": 2}]

    def test_is_not_handed_out_again(self) -> None:
        session = AgentSession()
        session.replied(receive(session, 1)[0])
        assert session.text(message(1)) is None
        assert answers(session) == [{"type": "ack", "seq": 1}]

    def test_come_again_is_not_acked_before_what_waits_before_it(self) -> None:
        session = AgentSession()
        first, second = receive(session, 1, 2)
        session.replied(second)
        session.text(greeting())
        # The gateway had read it before the answer was committed.
        again = session.text(message(1))
        assert again is None
        assert session.text(message(2)) is None
        assert answers(session) == []
        session.ack(first)
        assert answers(session) == [{"type": "ack", "seq": 2}]

    def test_come_again_is_not_acked_before_what_is_not_handed_out_yet(self) -> None:
        session = AgentSession()
        (second,) = receive(session, 2)
        session.replied(second)
        session.text(greeting())
        first = session.text(message(1))
        assert isinstance(first, Received)
        assert session.text(message(2)) is None
        assert answers(session) == []
        assert session.handed_out(first)
        session.ack(first)
        assert answers(session) == [{"type": "ack", "seq": 2}]

    def test_come_again_is_acked_at_once_where_only_later_ones_wait(self) -> None:
        session = AgentSession()
        first, second = receive(session, 1, 2)
        session.hold(second)
        session.replied(first)
        session.text(greeting())
        # A window of one: the second comes only after the first is confirmed.
        assert session.text(message(1)) is None
        assert answers(session) == [{"type": "ack", "seq": 1}]


class TestConfirmedAlone:
    def test_waits_for_those_before_it(self) -> None:
        session = AgentSession()
        first, second, third = receive(session, 1, 2, 3)
        session.confirm(second)
        assert answers(session) == []
        session.ack(first)
        assert answers(session) == [{"type": "ack", "seq": 2}]
        session.ack(third)
        assert answers(session) == [{"type": "ack", "seq": 3}]

    def test_before_it_is_handed_out(self) -> None:
        session = AgentSession()
        received = session.text(message(1))
        assert isinstance(received, Received)
        session.confirm(received)
        assert answers(session) == [{"type": "ack", "seq": 1}]
        assert not session.handed_out(received)


def test_later_ack_does_not_pass_what_is_not_handed_out() -> None:
    session = AgentSession()
    kept = session.text(message(1))
    assert isinstance(kept, Received)
    (second,) = receive(session, 2)
    session.ack(second)
    assert answers(session) == []
    session.handed_out(kept)
    session.ack(kept)
    assert answers(session) == [{"type": "ack", "seq": 2}]


def test_what_was_not_handed_out_is_forgotten_with_its_socket() -> None:
    session = AgentSession()
    session.text(message(1))
    session.text(greeting())
    (second,) = receive(session, 2)
    session.ack(second)
    assert answers(session) == [{"type": "ack", "seq": 2}]
