"""One agent's session at the gateway, without sockets and without a clock."""

from __future__ import annotations

import json
import random
import tracemalloc
from typing import Any, Optional

import pytest

from ws_manager.models import PendingMessage, Receipt, Rejection, Settled, Written
from ws_manager.protocol.gateway_session import MAX_ANSWERS, QUEUE_BYTES, WRITE_BYTES, GatewaySession
from ws_manager.protocol.in_flight import Window
from ws_manager.protocol.message_frames import Framed, MessageFrames

NONCE = b"8 bytes."
HEARTBEAT, TIMEOUT = 10.0, 30.0


def session(
    *,
    explicit: bool = False,
    live: bool = True,
    confirmed: int = 0,
    window: Optional[Window] = None,
    frames_per_second: int = 1000,
) -> GatewaySession:
    """A session that began at 0 seconds."""
    made = GatewaySession(
        ws_id="ws-001",
        epoch=3,
        confirmed_seq=confirmed,
        nonce=NONCE,
        explicit_ack=explicit,
        heartbeat=HEARTBEAT,
        timeout=TIMEOUT,
        now=0.0,
        receipt_interval=0.0,
        window=window or Window(),
        frames_per_second=frames_per_second,
    )
    made.live = live
    return made


def message(seq: int, content: str = "null") -> Framed:
    """A message as it comes out of the ledger, with its frame."""
    return MessageFrames().of(
        PendingMessage(seq, f"id-{seq}", "data", None, "ws-001", content, "2026-11-22T17:15:18.644305+00:00")
    )


def parsed(frame: bytes) -> Any:
    """The JSON of a text frame."""
    return json.loads(frame[frame.index(b"{") :])


def payload(count: int) -> bytes:
    """What the Ping of this count carries."""
    return NONCE + count.to_bytes(4, "big")


def pushed(data: bytes) -> tuple[list[int], list[bytes]]:
    """The numbers of the messages in the bytes of one write, and the payloads of its Pings."""
    seqs, pings = [], []
    while data:
        size, start = data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        end = start + size
        if data[0] == 0x81:
            seqs.append(json.loads(data[start:end])["seq"])
        else:
            assert data[0] == 0x89
            pings.append(data[start:end])
        data = data[end:]
    return seqs, pings


def write(agent: GatewaySession, *seqs: int) -> list[int]:
    """Offer messages to a live session, and write what it lets out."""
    for seq in seqs:
        agent.take_live(message(seq))
    return written(agent)


def written(agent: GatewaySession) -> list[int]:
    """Write everything there is, and return the numbers of the messages."""
    seqs: list[int] = []
    while True:
        frames = [parsed(frame) for frame in agent.next_write(None, 1.0)]
        if not frames:
            return seqs
        seqs += [frame["seq"] for frame in frames if frame["type"] == "message"]


def ping(agent: GatewaySession, now: float = 1.0) -> bytes:
    """The Ping that is due now; there must be one."""
    payload = agent.next_ping(now)
    assert payload is not None
    return payload


def say(agent: GatewaySession, **frame: object) -> None:
    """Let the peer send a frame."""
    agent.text(json.dumps(frame), 1.0)


def receipts(agent: GatewaySession) -> list[tuple[int, int]]:
    """The receipts so far, as first and last."""
    assert all(isinstance(report, Receipt) for report in agent.reports)
    return [(report.seqs[0], report.seqs[-1]) for report in agent.reports if isinstance(report, Receipt)]


def answers(agent: GatewaySession) -> list[dict[str, Any]]:
    """The frames to write that are no messages."""
    return [parsed(frame) for frame in agent.next_write(None, 1.0)]


class TestReceiptByPong:
    def test_pong_confirms_what_was_written_before_its_ping(self) -> None:
        agent = session()
        write(agent, 1, 2, 3)
        agent.pong(ping(agent), 1.0)
        assert agent.reports == [Receipt("ws-001", 3, [1, 2, 3], seconds=0.0)]

    def test_pong_does_not_confirm_what_was_written_after_its_ping(self) -> None:
        agent = session()
        write(agent, 1, 2)
        first = ping(agent)
        write(agent, 3, 4)
        agent.pong(first, 1.0)
        assert receipts(agent) == [(1, 2)]

    def test_pong_of_a_ping_that_was_never_sent_confirms_nothing(self) -> None:
        agent = session()
        write(agent, 1)
        ping(agent)
        agent.pong(payload(2), 1.0)
        assert agent.reports == []

    def test_empty_pong_confirms_nothing(self) -> None:
        agent = session()
        write(agent, 1)
        ping(agent)
        agent.pong(b"", 1.0)
        assert agent.reports == []

    def test_unsolicited_pong_confirms_nothing(self) -> None:
        agent = session()
        write(agent, 1)
        agent.pong(payload(1), 1.0)
        assert agent.reports == []

    def test_pong_of_a_replaced_socket_confirms_nothing(self) -> None:
        agent = session()
        write(agent, 1)
        agent.pong(ping(agent).replace(NONCE, b"8 others"), 1.0)
        assert agent.reports == []

    def test_pong_is_good_once(self) -> None:
        agent = session()
        write(agent, 1)
        payload = ping(agent)
        agent.pong(payload, 1.0)
        write(agent, 2)
        agent.pong(payload, 1.0)
        assert receipts(agent) == [(1, 1)]

    @pytest.mark.parametrize("payload", [b"", b"hello", b"\xff\x00"])
    def test_any_pong_is_a_sign_of_life(self, payload: bytes) -> None:
        agent = session()
        agent.pong(payload, 7.0)
        assert agent.heard_at == 7.0

    def test_pong_only_for_the_last_of_three_pings_confirms_all_before_it(self) -> None:
        agent = session()
        write(agent, 1)
        ping(agent)
        write(agent, 2)
        agent.tick(11.0)
        ping(agent, 11.0)
        write(agent, 3)
        agent.tick(21.0)
        agent.pong(ping(agent, 21.0), 22.0)
        assert receipts(agent) == [(1, 3)]

    def test_late_pong_for_an_earlier_ping_confirms_nothing_more(self) -> None:
        agent = session()
        write(agent, 1)
        first = ping(agent)
        agent.tick(11.0)
        agent.pong(ping(agent, 11.0), 12.0)
        agent.pong(first, 13.0)
        assert receipts(agent) == [(1, 1)]

    def test_repeat_at_heartbeat_time_confirms_where_the_first_ping_is_never_answered(self) -> None:
        agent = session()
        write(agent, 1, 2)
        ping(agent)
        agent.tick(11.0)
        agent.pong(ping(agent, 11.0), 12.0)
        assert receipts(agent) == [(1, 2)]

    def test_nothing_is_confirmed_without_a_pong(self) -> None:
        agent = session()
        write(agent, 1)
        ping(agent)
        agent.ping(2.0)
        agent.tick(11.0)
        assert agent.reports == []

    def test_round_trip_is_measured(self) -> None:
        agent = session()
        write(agent, 1)
        agent.pong(ping(agent, 1.0), 1.25)
        assert agent.latency == 0.25


class TestReceiptPings:
    def test_nothing_written_needs_no_ping(self) -> None:
        assert session().next_ping(1.0) is None

    def test_carries_the_nonce_and_a_count(self) -> None:
        agent = session()
        write(agent, 7, 9)
        assert ping(agent) == payload(1)

    def test_at_most_one_is_outstanding(self) -> None:
        agent = session()
        write(agent, 1)
        ping(agent)
        write(agent, 2)
        assert agent.next_ping(2.0) is None

    def test_next_goes_out_after_the_answer(self) -> None:
        agent = session()
        write(agent, 1)
        first = ping(agent)
        write(agent, 2)
        agent.pong(first, 2.0)
        assert ping(agent, 2.0) == payload(2)

    def test_unanswered_heartbeat_ping_with_nothing_to_confirm_does_not_hold_back_a_receipt_ping(
        self,
    ) -> None:
        agent = session()
        agent.tick(11.0)
        ping(agent, 11.0)
        write(agent, 1)
        agent.pong(ping(agent, 12.0), 12.0)
        assert receipts(agent) == [(1, 1)]

    def test_with_explicit_ack_there_are_none(self) -> None:
        agent = session(explicit=True)
        write(agent, 1)
        assert agent.next_ping(1.0) is None


class TestHeartbeat:
    def test_ping_is_due_after_the_interval(self) -> None:
        agent = session()
        assert not agent.tick(9.0)
        assert agent.tick(10.0)

    def test_ping_carries_the_nonce_and_a_count(self) -> None:
        agent = session(explicit=True)
        write(agent, 5)
        agent.tick(10.0)
        assert ping(agent, 10.0) == payload(1)

    def test_ping_that_was_sent_puts_the_next_off(self) -> None:
        agent = session()
        write(agent, 1)
        ping(agent, 8.0)
        assert not agent.tick(10.0)

    def test_is_not_late_within_the_time_out(self) -> None:
        agent = session()
        agent.tick(30.0)
        assert agent.close_with is None

    def test_silence_closes_with_4008(self) -> None:
        agent = session()
        agent.tick(30.1)
        assert agent.close_with == (4008, "heartbeat timeout")

    def test_text_is_a_sign_of_life(self) -> None:
        agent = session(explicit=True)
        agent.text('{"type":"ack","seq":1}', 20.0)
        agent.tick(40.0)
        assert agent.close_with is None

    def test_pings_nobody_answers_are_forgotten_but_for_a_few(self) -> None:
        agent = session()
        write(agent, 1)
        first = ping(agent)
        for count in range(1, 40):
            agent.ping(count * 10.0)
            agent.tick(count * 10.0 + 5)
            agent.next_ping(count * 10.0 + 5)
        agent.pong(first, 1000.0)
        assert agent.reports == []


class TestExplicitAck:
    def test_ack_confirms_up_to_its_number(self) -> None:
        agent = session(explicit=True)
        write(agent, 1, 2, 3)
        say(agent, type="ack", seq=2)
        assert receipts(agent) == [(1, 2)]

    def test_late_ack_confirms_what_was_written_meanwhile_up_to_its_number(self) -> None:
        agent = session(explicit=True)
        write(agent, 1)
        write(agent, 2, 3)
        say(agent, type="ack", seq=1)
        assert receipts(agent) == [(1, 1)]

    def test_ack_twice_confirms_once(self) -> None:
        agent = session(explicit=True)
        write(agent, 1)
        say(agent, type="ack", seq=1)
        say(agent, type="ack", seq=1)
        assert receipts(agent) == [(1, 1)]

    def test_ack_twice_is_no_error(self) -> None:
        agent = session(explicit=True)
        write(agent, 1)
        say(agent, type="ack", seq=1)
        say(agent, type="ack", seq=1)
        assert answers(agent) == []

    def test_ack_beyond_what_was_written_confirms_only_that(self) -> None:
        agent = session(explicit=True, window=Window(messages=2))
        write(agent, 1, 2, 3)
        say(agent, type="ack", seq=99)
        assert receipts(agent) == [(1, 2)]

    def test_ack_beyond_does_not_confirm_what_is_written_later(self) -> None:
        agent = session(explicit=True)
        say(agent, type="ack", seq=99)
        write(agent, 1)
        assert agent.reports == []

    def test_ack_does_not_confirm_what_was_taken_and_not_written(self) -> None:
        agent = session(explicit=True)
        agent.take_live(message(1))
        say(agent, type="ack", seq=1)
        assert agent.reports == []

    def test_ack_between_two_numbers_confirms_the_lower(self) -> None:
        agent = session(explicit=True)
        write(agent, 10, 20)
        say(agent, type="ack", seq=15)
        assert receipts(agent) == [(10, 10)]

    def test_pong_confirms_nothing(self) -> None:
        agent = session(explicit=True)
        write(agent, 1)
        agent.tick(11.0)
        agent.pong(ping(agent, 11.0), 12.0)
        assert agent.reports == []

    def test_without_being_asked_for_is_answered_with_an_error(self) -> None:
        agent = session()
        write(agent, 1)
        say(agent, type="ack", seq=1)
        assert [answer["error"]["code"] for answer in answers(agent)] == ["conflict"]

    def test_without_being_asked_for_confirms_nothing(self) -> None:
        agent = session()
        write(agent, 1)
        say(agent, type="ack", seq=1)
        assert agent.reports == []

    def test_without_being_asked_for_keeps_the_socket(self) -> None:
        agent = session()
        say(agent, type="ack", seq=1)
        assert agent.close_with is None


class TestReject:
    def test_in_flight_is_set_aside(self) -> None:
        agent = session(explicit=True)
        write(agent, 1, 2)
        say(agent, type="reject", seq=2, reason="no")
        assert agent.reports == [Rejection("ws-001", 3, 2, "no")]

    def test_later_ack_spans_it(self) -> None:
        agent = session(explicit=True)
        write(agent, 1, 2, 3)
        say(agent, type="reject", seq=2, reason="no")
        say(agent, type="ack", seq=3)
        assert agent.reports == [Rejection("ws-001", 3, 2, "no"), Receipt("ws-001", 3, [1, 3], seconds=0.0)]

    def test_ack_of_the_rejected_alone_confirms_nothing(self) -> None:
        agent = session(explicit=True)
        write(agent, 1)
        say(agent, type="reject", seq=1)
        say(agent, type="ack", seq=1)
        assert agent.reports == [Rejection("ws-001", 3, 1, "")]

    @pytest.mark.parametrize("seq", [0, 2, 99])
    def test_of_anything_else_is_answered_with_a_conflict(self, seq: int) -> None:
        agent = session(explicit=True)
        write(agent, 1)
        say(agent, type="reject", seq=seq)
        assert [answer["error"]["code"] for answer in answers(agent)] == ["conflict"]

    def test_of_what_was_taken_and_not_written_is_a_conflict(self) -> None:
        agent = session(explicit=True)
        agent.take_live(message(1))
        say(agent, type="reject", seq=1)
        assert agent.reports == []

    def test_twice_is_a_conflict(self) -> None:
        agent = session(explicit=True)
        write(agent, 1)
        say(agent, type="reject", seq=1)
        say(agent, type="reject", seq=1)
        assert len(agent.reports) == len(answers(agent)) == 1

    def test_makes_room_in_the_window(self) -> None:
        agent = session(explicit=True, window=Window(messages=1))
        write(agent, 1)
        say(agent, type="reject", seq=1)
        assert agent.unconfirmed == 0

    def test_without_ack_explicit_is_answered_with_a_conflict(self) -> None:
        agent = session()
        write(agent, 1)
        say(agent, type="reject", seq=1)
        assert [answer["error"]["code"] for answer in answers(agent)] == ["conflict"]


class TestWindow:
    def test_no_more_messages_than_it_has_room_for(self) -> None:
        agent = session()
        sent = [seq for seq in range(1, 1101) for seq in write(agent, seq)]
        assert len(sent) == 1000

    def test_full_one_sends_the_session_back_to_the_backlog(self) -> None:
        agent = session(window=Window(messages=1))
        write(agent, 1, 2)
        assert not agent.live

    def test_no_more_bytes_than_it_has_room_for(self) -> None:
        agent = session(window=Window(bytes=1024))
        for seq in (1, 2, 3):
            agent.take_live(message(seq, json.dumps("x" * 300)))
        assert written(agent) == [1, 2]

    def test_bytes_are_bytes_on_the_wire(self) -> None:
        agent = session(window=Window(bytes=1024))
        for seq in (1, 2):
            agent.take_live(message(seq, json.dumps("€" * 200, ensure_ascii=False)))
        assert written(agent) == [1]

    def test_one_message_always_has_room(self) -> None:
        agent = session(window=Window(bytes=10))
        assert write(agent, 1) == [1]

    def test_confirmation_makes_room(self) -> None:
        agent = session(window=Window(messages=2))
        write(agent, 1, 2, 3)
        agent.pong(ping(agent), 1.0)
        agent.take_backlog([message(3)], live=True)
        assert written(agent) == [3]

    def test_backlog_is_not_read_while_less_than_half_is_free(self) -> None:
        agent = session(window=Window(messages=4), explicit=True)
        write(agent, 1, 2, 3, 4, 5)
        say(agent, type="ack", seq=1)
        assert not agent.wants_backlog

    def test_backlog_is_read_when_half_is_free(self) -> None:
        agent = session(window=Window(messages=4), explicit=True)
        write(agent, 1, 2, 3, 4, 5)
        say(agent, type="ack", seq=2)
        assert agent.wants_backlog

    def test_backlog_is_not_read_over_and_over_for_a_message_that_half_a_window_cannot_hold(self) -> None:
        agent = session(window=Window(bytes=1024), live=False)
        agent.take_backlog([message(1), message(2, json.dumps("x" * 900))], live=True)
        written(agent)
        assert not agent.wants_backlog

    def test_message_that_half_a_window_cannot_hold_comes_after_the_receipt(self) -> None:
        agent = session(window=Window(bytes=1024), live=False)
        agent.take_backlog([message(1), message(2, json.dumps("x" * 900))], live=True)
        written(agent)
        agent.pong(ping(agent), 1.0)
        assert agent.wants_backlog

    def test_backlog_limit_is_what_the_window_has_left(self) -> None:
        agent = session(window=Window(messages=10))
        write(agent, 1, 2, 3)
        assert agent.backlog_limit == 7


class TestQueue:
    """What waits to be written is bounded: the ledger keeps the rest."""

    def test_takes_no_more_once_it_is_full(self) -> None:
        agent = session()
        for seq in range(1, 1000):
            agent.take_live(message(seq, json.dumps("x" * 1000)))
        assert sum(map(len, agent.next_write(None, 1.0))) < QUEUE_BYTES + 2000

    def test_full_one_sends_the_session_back_to_the_backlog(self) -> None:
        agent = session()
        agent.take_live(message(1, json.dumps("x" * QUEUE_BYTES)))
        agent.take_live(message(2))
        assert (agent.live, agent.cursor) == (False, 1)

    def test_backlog_is_not_read_before_what_was_read_is_written(self) -> None:
        agent = session(live=False)
        agent.take_backlog([message(1)], live=False)
        assert not agent.wants_backlog
        written(agent)
        assert agent.wants_backlog

    def test_backlog_that_overfills_it_is_read_again_from_there(self) -> None:
        agent = session(live=False)
        rows = [message(seq, json.dumps("x" * 20_000)) for seq in (1, 2, 3)]
        agent.take_backlog(rows, live=True)
        assert (written(agent), agent.cursor, agent.wants_backlog) == ([1, 2], 2, True)

    def fill(self, agent: GatewaySession) -> None:
        while agent.unconfirmed < 1000:
            first = agent.cursor + 1
            rows = [message(seq) for seq in range(first, first + agent.backlog_limit)]
            agent.take_backlog(rows, live=False)
            written(agent)

    def test_a_thousand_small_messages_in_flight_are_a_few_kib(self) -> None:
        # Python keeps freed tuples for later ones. After this, it has them.
        self.fill(session(live=False))
        agent = session(live=False)
        tracemalloc.start()
        try:
            self.fill(agent)
            used, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert used < 32 * 1024


class TestTimesOfWriting:
    """When something was written comes with its receipt, or is reported once a second while it waits."""

    def test_each_writing_has_its_own(self) -> None:
        agent = session(explicit=True)
        for seq in (1, 2):
            agent.take_live(message(seq))
            agent.next_write(f"time {seq}", 1.0)
        say(agent, type="ack", seq=2)
        assert agent.reports == [
            Receipt("ws-001", 3, [1], "time 1", seconds=0.0),
            Receipt("ws-001", 3, [2], "time 2"),
        ]

    def test_what_waits_is_told_once(self) -> None:
        agent = session(explicit=True)
        for seq in (1, 2):
            agent.take_live(message(seq))
            agent.next_write(f"time {seq}", 1.0)
        assert agent.unreported_writes() == [
            Written("ws-001", 3, 1, 1, "time 1"),
            Written("ws-001", 3, 2, 2, "time 2"),
        ]
        assert agent.unreported_writes() == []

    def test_what_was_told_is_confirmed_in_one(self) -> None:
        agent = session(explicit=True)
        for seq in (1, 2, 3):
            agent.take_live(message(seq))
            agent.next_write(f"time {seq}", 1.0)
        agent.unreported_writes()
        say(agent, type="ack", seq=2)
        say(agent, type="ack", seq=3)
        assert agent.reports == [Receipt("ws-001", 3, [1, 2], None, 0.0), Receipt("ws-001", 3, [3], None)]

    def test_many_within_a_second_cost_no_more_memory(self) -> None:
        agent = session(explicit=True)
        for seq in range(1, 501):
            agent.take_live(message(seq))
            agent.next_write(f"time {seq}", 1.0)
        reported = agent.unreported_writes()
        assert len(reported) < 100
        assert (reported[0].first, reported[-1].last) == (1, 500)


class TestSecondsToTheReceipt:
    """One message at a time is timed, and at most one a second."""

    @staticmethod
    def write(agent: GatewaySession, seq: int, now: float) -> None:
        agent.take_live(message(seq))
        agent.next_write(f"time {seq}", now)

    @staticmethod
    def ack(agent: GatewaySession, seq: int, now: float) -> list[Optional[float]]:
        """The seconds of the receipts that an ack makes."""
        before = len(agent.reports)
        agent.text(json.dumps({"type": "ack", "seq": seq}), now)
        return [report.seconds for report in agent.reports[before:] if isinstance(report, Receipt)]

    def test_from_the_writing_to_the_receipt(self) -> None:
        agent = session(explicit=True)
        self.write(agent, 1, 1.0)
        self.write(agent, 2, 2.0)
        assert self.ack(agent, 1, 3.5) == [2.5]
        assert self.ack(agent, 2, 4.0) == [None]
        self.write(agent, 3, 5.0)
        assert self.ack(agent, 3, 5.25) == [0.25]

    def test_at_most_one_a_second(self) -> None:
        agent = session(explicit=True)
        found = []
        for seq in range(1, 6):
            self.write(agent, seq, 1.0 + seq / 4)
            found += self.ack(agent, seq, 1.125 + seq / 4)
        assert found == [0.125, None, None, None, 0.125]

    def test_to_the_pong(self) -> None:
        agent = session()
        self.write(agent, 1, 1.0)
        agent.pong(ping(agent, 1.5), 3.0)
        assert [report.seconds for report in agent.reports if isinstance(report, Receipt)] == [2.0]

    def test_a_time_that_the_ledger_knows_already_counts_too(self) -> None:
        agent = session(explicit=True)
        self.write(agent, 1, 1.0)
        agent.unreported_writes()
        assert self.ack(agent, 1, 100.0) == [99.0]

    def test_a_rejected_message_is_not_timed(self) -> None:
        agent = session(explicit=True)
        self.write(agent, 1, 1.0)
        self.write(agent, 2, 2.0)
        say(agent, type="reject", seq=1)
        assert self.ack(agent, 2, 4.0) == [None]
        self.write(agent, 3, 5.0)
        assert self.ack(agent, 3, 7.0) == [2.0]

    def test_nor_one_that_is_rejected_behind_another(self) -> None:
        agent = session(explicit=True)
        self.write(agent, 1, 1.0)
        self.write(agent, 2, 2.0)
        assert self.ack(agent, 1, 2.0) == [1.0]
        self.write(agent, 3, 3.0)
        say(agent, type="reject", seq=3)
        self.write(agent, 4, 4.0)
        assert self.ack(agent, 2, 4.5) == [None]
        assert self.ack(agent, 4, 6.0) == [2.0]


class TestFrameRate:
    def test_a_second_worth_of_frames_may_come_at_once(self) -> None:
        agent = session(frames_per_second=10)
        for _ in range(10):
            agent.ping(0.0)
        assert agent.close_with is None

    @pytest.mark.parametrize(
        "frame",
        [
            '{"type":"send","to":"ws-002","content":1}',
            '{"type":"broadcast","content":1}',
            '{"type":"send"}',
            '{"type":"ack","seq":1}',
            '{"type":"reject","seq":1}',
        ],
    )
    def test_one_frame_too_many_closes_with_4029(self, frame: str) -> None:
        agent = session(frames_per_second=10)
        for _ in range(11):
            agent.text(frame, 0.0)
        assert agent.close_with == (4029, "too many frames a second")

    def test_attempts_at_messages_in_flight_do_not_count(self) -> None:
        agent = session(explicit=True, frames_per_second=10)
        write(agent, *range(1, 101))
        for seq in range(1, 101):
            for kind in ("started", "failed", "started"):
                say(agent, type=kind, seq=seq)
        assert agent.close_with is None
        assert len(agent.requests) == 300

    def test_answers_to_messages_in_flight_do_not_count_but_repeated_ones_do(self) -> None:
        agent = session(explicit=True, frames_per_second=10)
        write(agent, *range(1, 101))
        for seq in range(1, 101):
            say(agent, type="reply", seq=seq, content=1)
        assert agent.close_with is None
        assert len(agent.requests) == 100
        for _ in range(11):
            say(agent, type="reply", seq=50, content=1)
        assert agent.close_with == (4029, "too many frames a second")

    @pytest.mark.parametrize(("kind", "seq"), [("started", 1), ("failed", 2), ("started", 9)])
    def test_repeated_attempts_and_those_at_other_messages_count(self, kind: str, seq: int) -> None:
        agent = session(explicit=True, frames_per_second=10)
        write(agent, 1, 2)
        say(agent, type="started", seq=1)
        for _ in range(11):
            say(agent, type=kind, seq=seq)
        assert agent.close_with == (4029, "too many frames a second")

    def test_pings_count(self) -> None:
        agent = session(frames_per_second=10)
        for _ in range(11):
            agent.ping(0.0)
        assert agent.close_with == (4029, "too many frames a second")

    def test_pongs_that_answer_nothing_count(self) -> None:
        agent = session(frames_per_second=10)
        for _ in range(11):
            agent.pong(b"unasked", 0.0)
        assert agent.close_with == (4029, "too many frames a second")

    def test_time_makes_room_for_more(self) -> None:
        agent = session(frames_per_second=10)
        for tenth in range(100):
            agent.ping(tenth / 10)
        assert agent.close_with is None

    def test_acks_that_confirm_something_do_not_count(self) -> None:
        agent = session(explicit=True, frames_per_second=10)
        write(agent, *range(1, 101))
        for seq in range(1, 101):
            say(agent, type="ack", seq=seq)
        assert agent.close_with is None

    def test_rejections_do_not_count(self) -> None:
        agent = session(explicit=True, frames_per_second=10)
        write(agent, *range(1, 101))
        for seq in range(1, 101):
            say(agent, type="reject", seq=seq)
        assert agent.close_with is None

    def test_frame_that_is_too_many_asks_for_nothing(self) -> None:
        agent = session(frames_per_second=1)
        for _ in range(2):
            say(agent, type="send", to="ws-002", content=1)
        assert len(agent.requests) == 1


class TestWriting:
    def test_at_most_64_kib_at_once(self) -> None:
        agent = session()
        for seq in range(1, 11):
            agent.take_live(message(seq, json.dumps("x" * 20_000)))
        assert sum(map(len, agent.next_write(None, 1.0))) <= WRITE_BYTES

    def test_message_of_more_than_64_kib_goes_alone(self) -> None:
        agent = session()
        for seq in (1, 2):
            agent.take_live(message(seq, json.dumps("x" * 100_000)))
        assert len(agent.next_write(None, 1.0)) == 1

    def test_envelope_has_the_documented_fields(self) -> None:
        agent = session()
        row = PendingMessage(
            41, "id-41", "alert", "ws-9", "ws-001", '{"a":"ü"}', "2026-11-22T17:15:18.644305+00:00"
        )
        agent.take_live(MessageFrames().of(row))
        assert parsed(agent.next_write(None, 1.0)[0]) == {
            "type": "message",
            "seq": 41,
            "msg_id": "id-41",
            "msg_type": "alert",
            "sender_id": "ws-9",
            "recipient_id": "ws-001",
            "broadcast_id": None,
            "sent_at": "2026-11-22T17:15:18.644305+00:00",
            "content": {"a": "ü"},
        }

    def test_unread_answers_are_bounded(self) -> None:
        agent = session()
        for _ in range(MAX_ANSWERS + 1):
            say(agent, type="ack", seq=1)
        assert agent.close_with is not None
        assert agent.close_with[0] == 4029


class TestNotThisProtocol:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "hello",
            "{",
            "[]",
            "null",
            "1",
            '"ack"',
            "{}",
            '{"type":null}',
            '{"type":["ack"]}',
            '{"type":"hello"}',
            '{"type":"connected"}',
            '{"type":"ack"}',
            '{"type":"ack","seq":null}',
            '{"type":"ack","seq":"1"}',
            '{"type":"ack","seq":true}',
            '{"type":"ack","seq":-1}',
            '{"type":"ack","seq":1.0}',
            '{"type":"ack","seq":NaN}',
            '{"type":"ack","seq":9223372036854775808}',
            '{"type":"ack","seq":' + "9" * 5000 + "}",
            '{"type":"reject","seq":1.5}',
            '{"type":"reject","seq":1,"reason":7}',
        ],
    )
    def test_frame_closes_with_4000(self, text: str) -> None:
        agent = session(explicit=True)
        agent.text(text, 1.0)
        assert agent.close_with is not None
        assert agent.close_with[0] == 4000

    @pytest.mark.parametrize("depth", [10_000, 60_000])
    @pytest.mark.parametrize("opening", ["[", '{"a":'])
    def test_deeply_nested_json_closes_with_4000(self, opening: str, depth: int) -> None:
        agent = session()
        agent.text(opening * depth, 1.0)
        assert agent.close_with is not None
        assert agent.close_with[0] == 4000

    def test_reason_never_quotes_the_frame(self) -> None:
        agent = session()
        agent.text('{"type":"secret"}', 1.0)
        assert agent.close_with is not None
        assert "secret" not in agent.close_with[1]

    def test_first_reason_stays(self) -> None:
        agent = session()
        agent.close(4009, "replaced")
        agent.text("hello", 1.0)
        assert agent.close_with == (4009, "replaced")

    def test_nothing_is_asked_after_the_end(self) -> None:
        agent = session()
        agent.close(4009, "replaced")
        say(agent, type="send", to="ws-002", content=1)
        assert agent.requests == []

    def test_confirmations_count_after_the_end(self) -> None:
        agent = session(explicit=True)
        write(agent, 1)
        agent.close(1001, "the gateway is shutting down")
        say(agent, type="ack", seq=1)
        assert receipts(agent) == [(1, 1)]

    def test_backlog_is_not_read_after_the_end(self) -> None:
        agent = session(live=False)
        agent.close(4009, "replaced")
        assert not agent.wants_backlog


def test_write_whose_messages_were_all_rejected_needs_no_receipt() -> None:
    agent = session(explicit=True)
    for seq in (1, 2, 3):
        agent.take_live(message(seq))
        agent.next_write(f"time {seq}", 1.0)
    say(agent, type="reject", seq=2)
    say(agent, type="ack", seq=3)
    assert agent.reports == [
        Rejection("ws-001", 3, 2, ""),
        Receipt("ws-001", 3, [1], "time 1", seconds=0.0),
        Receipt("ws-001", 3, [3], "time 3"),
    ]


class TestPush:
    """The fast path: what was just committed goes out in one write, with its Ping."""

    def test_messages_and_their_ping_in_one(self) -> None:
        agent = session()
        data = agent.take_at_once([message(1), message(2)], "now", 1.0)
        assert data is not None
        assert pushed(data) == ([1, 2], [payload(1)])
        agent.pong(payload(1), 2.0)
        assert agent.reports == [Receipt("ws-001", 3, [1, 2], "now", seconds=1.0)]

    def test_no_second_ping_before_the_answer(self) -> None:
        agent = session()
        agent.take_at_once([message(1)], "now", 1.0)
        data = agent.take_at_once([message(2)], "now", 2.0)
        assert data is not None
        assert pushed(data) == ([2], [])
        agent.pong(payload(1), 3.0)
        assert receipts(agent) == [(1, 1)]

    def test_no_ping_with_explicit_ack(self) -> None:
        data = session(explicit=True).take_at_once([message(1)], "now", 1.0)
        assert data is not None
        assert pushed(data) == ([1], [])

    def left_alone(self, agent: GatewaySession, *messages: Framed) -> bool:
        """Whether the session refuses a push and takes nothing of it."""
        before = agent.cursor, agent.unconfirmed
        return (
            agent.take_at_once([*messages], "now", 1.0) is None
            and (agent.cursor, agent.unconfirmed) == before
        )

    def test_not_over_what_is_queued(self) -> None:
        agent = session()
        agent.take_live(message(1))
        assert self.left_alone(agent, message(2))

    def test_not_over_an_answer(self) -> None:
        agent = session()
        agent.answer("{}")
        assert self.left_alone(agent, message(1))

    def test_not_once_it_closes(self) -> None:
        agent = session()
        agent.close(4009, "replaced")
        assert self.left_alone(agent, message(1))

    def test_not_what_came_with_the_backlog(self) -> None:
        agent = session(live=False)
        agent.take_backlog([message(1), message(2)], live=True)
        written(agent)
        assert self.left_alone(agent, message(2), message(3))

    def test_not_beyond_the_window_of_messages(self) -> None:
        agent = session(window=Window(messages=2))
        assert agent.take_at_once([message(1)], "now", 1.0) is not None
        assert self.left_alone(agent, message(2), message(3))
        assert agent.take_at_once([message(2)], "now", 1.0) is not None

    def test_not_beyond_the_window_of_bytes(self) -> None:
        agent = session(window=Window(bytes=300))
        assert agent.take_at_once([message(1)], "now", 1.0) is not None
        assert self.left_alone(agent, message(2, json.dumps("x" * 200)))

    def test_not_beyond_one_write(self) -> None:
        assert self.left_alone(session(), message(1, json.dumps("x" * WRITE_BYTES)))


class TestResume:
    def test_begins_with_the_backlog(self) -> None:
        assert session(live=False).wants_backlog

    def test_takes_nothing_twice(self) -> None:
        agent = session(live=False)
        agent.take_backlog([message(1), message(2)], live=True)
        agent.take_live(message(2))
        assert written(agent) == [1, 2]

    def test_goes_live_with_a_complete_backlog(self) -> None:
        agent = session(live=False)
        agent.take_backlog([], live=True)
        assert agent.live

    def test_stays_in_the_backlog_where_more_may_have_come(self) -> None:
        agent = session(live=False)
        agent.take_backlog([message(1)], live=False)
        assert not agent.live

    def test_rows_that_come_while_the_backlog_is_read_are_not_confirmed_unwritten(self) -> None:
        agent = session(live=False)
        agent.take_backlog([message(1), message(2)], live=False)
        written(agent)
        agent.pong(ping(agent), 1.0)
        assert receipts(agent) == [(1, 2)]

    def test_full_window_in_the_middle_of_the_backlog_leaves_the_cursor_there(self) -> None:
        agent = session(live=False, window=Window(messages=2))
        agent.take_backlog([message(1), message(2), message(3)], live=True)
        assert (agent.cursor, agent.live) == (2, False)

    def test_backlog_after_a_resume_begins_at_what_was_confirmed(self) -> None:
        assert session(live=False, confirmed=38).cursor == 38


class Model:
    """A ledger, its pump and one agent: what may happen happens in any order.

    Messages of our connection are numbered from 1. Positions are a count of all commits: they say nothing about seqs.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.explicit = self.random.random() < 0.5
        self.ours: list[int] = []
        self.committed_at: dict[int, int] = {}
        self.last = 0
        self.position = 0
        self.readings = 0
        self.offered = 0
        self.pumped: Optional[tuple[list[int], int, int]] = None
        self.backlog: Optional[tuple[list[int], bool, int]] = None
        self.written: list[int] = []
        self.pings: list[bytes] = []
        self.confirmed: set[int] = set()
        self.rejected: set[int] = set()
        self.now = 0.0
        for _ in range(self.random.randrange(30)):
            self.commit()
        self.position = self.last
        self.session = session(
            explicit=self.explicit, live=False, window=Window(self.random.choice([1, 2, 5, 50]), 3000)
        )

    def commit(self) -> None:
        self.last += 1
        if self.random.random() < 0.6:
            self.ours.append(len(self.ours) + 1)
            self.committed_at[len(self.ours)] = self.last

    def pending(self, after: int) -> list[int]:
        return [seq for seq in self.ours if seq > after and seq not in self.confirmed | self.rejected]

    def read_for_the_pump(self) -> None:
        """The pump's reading; it is dispatched later."""
        if self.pumped is None:
            self.readings += 1
            rows = [seq for seq in self.pending(0) if self.committed_at[seq] > self.position]
            limit = self.random.choice([1, 3, 1000])
            reached = self.committed_at[rows[limit - 1]] if len(rows) >= limit else self.last
            self.pumped = (rows[:limit], reached, self.readings)

    def dispatch(self) -> None:
        if self.pumped is not None:
            rows, self.position, self.offered = self.pumped
            self.pumped = None
            if rows and self.session.live and self.backlog is None and self.random.random() < 0.5:
                data = self.session.take_at_once([self.row(seq) for seq in rows], "now", self.now)
                if data is not None:
                    seqs, pings = pushed(data)
                    assert seqs == rows
                    self.written += seqs
                    self.pings += pings
                    return
            for seq in rows:
                if self.session.live:
                    self.session.take_live(self.row(seq))

    def read_backlog(self) -> None:
        """The reading of the backlog; it is taken later, and commits and dispatches come between."""
        if self.backlog is None and self.session.wants_backlog:
            rows = self.pending(self.session.cursor)
            limit = min(self.session.backlog_limit, self.random.choice([1, 3, 1000]))
            self.backlog = (rows[:limit], len(rows) < limit, self.readings)

    def take_backlog(self) -> None:
        if self.backlog is not None:
            rows, complete, read_before = self.backlog
            self.backlog = None
            live = complete and read_before == self.offered
            self.session.take_backlog([self.row(seq) for seq in rows], live=live)

    def write(self) -> None:
        # As the writer does: it is either waiting for a backlog or writing, never both.
        if self.backlog is None:
            for frame in map(parsed, self.session.next_write(None, self.now)):
                assert frame["type"] == "message"
                self.written.append(frame["seq"])
            payload = self.session.next_ping(self.now)
            if payload is not None:
                self.pings.append(payload)

    def answer(self) -> None:
        if self.explicit and self.written:
            seq = self.random.choice(self.written[-10:])
            kind = "reject" if self.random.random() < 0.1 else "ack"
            if kind == "ack" or seq not in self.confirmed | self.rejected:
                self.session.text(json.dumps({"type": kind, "seq": seq}), self.now)
        elif self.pings:
            place = self.random.randrange(len(self.pings))
            self.session.pong(self.pings[place], self.now)
            del self.pings[: place + 1]
        self.settle()

    def heartbeat(self) -> None:
        self.now += HEARTBEAT
        self.session.ping(self.now)
        self.session.tick(self.now)

    def settle(self) -> None:
        """What the ledger does with a receipt."""
        reports, self.session.reports = self.session.reports, []
        for report in reports:
            if isinstance(report, Rejection):
                self.rejected.add(report.seq)
                continue
            assert report.seqs
            assert set(report.seqs) <= set(self.written)
            self.confirmed |= set(report.seqs)

    def row(self, seq: int) -> Framed:
        return message(seq, json.dumps("x" * (seq * 37 % 900)))

    def step(self) -> None:
        self.random.choice(
            [
                self.commit,
                self.read_for_the_pump,
                self.dispatch,
                self.read_backlog,
                self.take_backlog,
                self.write,
                self.write,
                self.answer,
                self.answer,
                self.heartbeat,
            ]
        )()

    def settle_everything(self) -> None:
        """No more commits: everything has its turn until nothing is left to do."""
        for _ in range(10 * len(self.ours) + 10):
            for act in (
                self.take_backlog,
                self.dispatch,
                self.read_for_the_pump,
                self.dispatch,
                self.read_backlog,
                self.take_backlog,
                self.write,
            ):
                act()
            if self.explicit and self.written:
                # One that repeats the one before counts as a frame too many, if no time goes by.
                self.now += 0.1
                self.session.text(json.dumps({"type": "ack", "seq": self.written[-1]}), self.now)
                self.settle()
            while self.pings:
                self.session.pong(self.pings.pop(0), self.now)
                self.settle()


@pytest.mark.parametrize("seed", range(150))
class TestInterleavings:
    """Commits, pump, backlog, writing and receipts in random order, against a model of the ledger."""

    def test_every_message_is_written_once_and_in_order(self, seed: int) -> None:
        model = Model(seed)
        for _ in range(400):
            model.step()
        model.settle_everything()
        assert model.written == model.ours

    def test_receipts_are_only_over_what_was_written(self, seed: int) -> None:
        model = Model(seed)
        for _ in range(400):
            model.step()
            assert model.confirmed <= set(model.written)

    def test_everything_is_confirmed_in_the_end(self, seed: int) -> None:
        model = Model(seed)
        for _ in range(400):
            model.step()
        model.settle_everything()
        assert model.confirmed | model.rejected == set(model.ours)


class TestSettled:
    def test_is_not_in_flight_any_more_and_acks_pass_over_it(self) -> None:
        agent = session(explicit=True)
        write(agent, 1, 2, 3)
        agent.settled(2, confirmed=True)
        say(agent, type="ack", seq=3)
        assert next(report for report in agent.reports if isinstance(report, Receipt)).seqs == [1, 3]

    @pytest.mark.parametrize("confirmed", [True, False])
    def test_tells_when_it_was_written_once(self, confirmed: bool) -> None:
        agent = session(explicit=True)
        for seq in (1, 2):
            agent.take_live(message(seq))
            agent.next_write(f"at {seq}", 1.0)
        agent.settled(2, confirmed=confirmed)
        agent.settled(2, confirmed=confirmed)
        assert agent.reports == [Settled("ws-001", 3, 2, "at 2", confirmed)]

    def test_of_what_is_not_in_flight_changes_nothing(self) -> None:
        agent = session(explicit=True)
        write(agent, 1)
        agent.settled(9, confirmed=True)
        assert (agent.unconfirmed, agent.reports) == (1, [])

    def test_makes_room_in_a_window_of_one(self) -> None:
        agent = session(explicit=True, window=Window(messages=1))
        write(agent, 1)
        assert agent.wants_backlog is False
        agent.settled(1, confirmed=True)
        assert agent.unconfirmed == 0
