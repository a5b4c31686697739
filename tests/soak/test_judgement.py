"""What a soak is failed for, and what it is not. The soak itself is no test of this suite: see `make soak`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Optional

import pytest

from tests.soak.cast import BY_GATEWAY
from tests.soak.judgement import Judge
from tests.soak.records import Sent, Swept, Watched

WS_ID = "pong-000"


def text(at: Optional[float]) -> Optional[str]:
    return None if at is None else datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="microseconds")


class Course:
    """A soak of one agent, told line by line."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:")
        self._db.execute(
            "CREATE TABLE messages (id INTEGER PRIMARY KEY, msg_id, recipient_id, broadcast_id, delivered DEFAULT 0,"
            " confirmed_at, rejected_at, reject_reason, refusals DEFAULT 0)"
        )
        self.judge = Judge([WS_ID], Watched(self._db))

    def sent(self, *seqs: int) -> None:
        for seq in seqs:
            self.judge.take_sent(Sent(f"a{seq}", 1.0, [WS_ID], f"id{seq}", None))
            row = (seq, f"id{seq}", WS_ID)
            self._db.execute("INSERT INTO messages (id, msg_id, recipient_id) VALUES (?, ?, ?)", row)

    def socket(self, number: int, at: float) -> None:
        self.line(at, "begin", number)
        self.line(at, "greeted", number)

    def line(self, at: float, word: str, *fields: object) -> None:
        self.judge.take_line("\t".join(map(str, (at, word, WS_ID, *fields))))

    def read(self, at: float, socket: int, *seqs: int) -> None:
        for seq in seqs:
            self.line(at, "message", socket, seq, f"id{seq}", f"a{seq}", "whole")

    def confirmed(self, at: float, *seqs: int) -> None:
        for seq in seqs:
            self._db.execute(
                "UPDATE messages SET delivered = 1, confirmed_at = ? WHERE id = ?", (text(at), seq)
            )

    def set_aside(self, at: float, seq: int) -> None:
        self._db.execute("UPDATE messages SET rejected_at = ? WHERE id = ?", (text(at), seq))

    def delete(self, seq: int) -> None:
        self._db.execute("DELETE FROM messages WHERE id = ?", (seq,))

    def close(self) -> None:
        self._db.close()

    def complaints(self) -> list[str]:
        """The words with which the complaints at the end begin."""
        self.judge.finish()
        return [complaint.partition(":")[0] for complaint in self.judge.complaints]


@pytest.fixture
def course() -> Iterator[Course]:
    """One socket that has read two messages and confirmed them."""
    course = Course()
    course.sent(1, 2)
    course.socket(1, at=1.0)
    course.read(2.0, 1, 1, 2)
    course.line(3.0, "receipt", 1, 2)
    yield course
    course.close()


def test_what_was_read_and_confirmed_is_no_complaint(course: Course) -> None:
    course.confirmed(4.0, 1, 2)
    assert course.complaints() == []
    assert (course.judge.read, course.judge.again) == (2, 0)


def test_what_is_pending_at_the_end_is_lost(course: Course) -> None:
    course.confirmed(4.0, 1)
    assert course.complaints() == ["LOST"]


def test_what_no_agent_has_read_may_not_be_called_delivered(course: Course) -> None:
    course.sent(3)
    course.confirmed(4.0, 1, 2, 3)
    assert course.complaints() == ["EARLY", "LOST"]


@pytest.mark.parametrize("at", [1.5, 2.5])
def test_nor_what_was_read_or_confirmed_only_later(course: Course, at: float) -> None:
    course.confirmed(at, 1)
    course.confirmed(4.0, 2)
    assert course.complaints() == ["EARLY"]


def test_nor_what_a_socket_confirms_after_another_registration(course: Course) -> None:
    course.judge.take_registration(WS_ID, 3.1, 3.2)
    course.confirmed(4.0, 1, 2)
    assert course.complaints() == ["EARLY", "EARLY"]


def test_a_receipt_from_before_it_counts(course: Course) -> None:
    course.judge.take_registration(WS_ID, 3.1, 4.1)
    course.confirmed(4.0, 1, 2)
    assert course.complaints() == []


def test_what_comes_again_to_the_next_socket_is_counted(course: Course) -> None:
    course.socket(2, at=4.0)
    course.read(5.0, 2, 1, 2)
    course.line(6.0, "receipt", 2, 2)
    course.confirmed(7.0, 1, 2)
    assert course.complaints() == []
    assert (course.judge.read, course.judge.again) == (2, 2)


def test_it_may_not_come_again_once_it_is_confirmed(course: Course) -> None:
    course.confirmed(4.0, 1, 2)
    course.judge.look()
    later = datetime.now(timezone.utc).timestamp() + 60
    course.socket(2, at=later)
    course.read(later, 2, 2)
    assert course.complaints() == ["AGAIN"]


def test_a_seq_may_not_go_back(course: Course) -> None:
    course.read(3.5, 1, 1)
    course.confirmed(4.0, 1, 2)
    assert course.complaints() == ["ORDER"]


def test_nor_may_a_message_come_after_a_later_one(course: Course) -> None:
    course.sent(3, 4)
    course.confirmed(3.2, 1, 2)
    course.read(3.5, 1, 4)
    course.socket(2, at=4.0)
    course.read(5.0, 2, 3, 4)
    course.line(6.0, "receipt", 2, 4)
    course.confirmed(7.0, 3, 4)
    assert course.complaints() == ["ORDER"]


def test_what_was_rejected_is_set_aside(course: Course) -> None:
    course.line(3.0, "reject", 1, 1)
    course.set_aside(4.0, 1)
    course.confirmed(4.0, 2)
    assert course.complaints() == []
    assert course.judge.aside == 1


def test_what_was_not_rejected_is_not(course: Course) -> None:
    course.set_aside(4.0, 1)
    course.confirmed(4.0, 2)
    assert course.complaints() == ["ASIDE"]


def test_what_was_rejected_is_not_delivered(course: Course) -> None:
    course.line(3.0, "reject", 1, 1)
    course.set_aside(4.0, 1)
    course.confirmed(4.0, 1, 2)
    assert course.complaints() == ["ASIDE"]


def test_what_is_confirmed_may_be_deleted(course: Course) -> None:
    course.confirmed(4.0, 1, 2)
    course.judge.look()
    course.delete(1)
    assert course.complaints() == []


def test_what_is_pending_may_not(course: Course) -> None:
    course.confirmed(4.0, 2)
    course.judge.look()
    course.delete(1)
    assert course.complaints() == ["GONE", "LOST"]


def test_who_is_called_disconnected_was_disconnected_by_a_command(course: Course) -> None:
    course.confirmed(4.0, 1, 2)
    course.judge.take_disconnection(WS_ID, 5.0, 5.5)
    course.line(6.0, "closed", 1, f"{BY_GATEWAY}4010")
    assert course.complaints() == []


@pytest.mark.parametrize("times", [(0.1, 0.9), (6.5, 7.0)])
def test_not_by_one_before_the_socket_or_after_its_end(course: Course, times: tuple[float, float]) -> None:
    course.confirmed(4.0, 1, 2)
    course.judge.take_disconnection(WS_ID, *times)
    course.line(6.0, "closed", 1, f"{BY_GATEWAY}4010")
    assert course.complaints() == ["CUT"]


def test_a_socket_with_a_newer_one_may_be_called_so(course: Course) -> None:
    course.confirmed(4.0, 1, 2)
    course.socket(2, at=5.0)
    course.line(6.0, "closed", 1, f"{BY_GATEWAY}4010")
    assert course.complaints() == []
    assert course.judge.doubled == []


def test_a_connection_with_two_open_sockets_is_doubled(course: Course) -> None:
    course.socket(2, at=5.0)
    assert course.judge.doubled == [WS_ID]


def test_who_has_no_socket_may_be_called_lost(course: Course) -> None:
    course.confirmed(4.0, 1, 2)
    course.line(5.0, "closed", 1, "reset by the agent")
    course.judge.take_swept(Swept(WS_ID, 6.0))
    assert course.complaints() == []


@pytest.mark.parametrize("why", ["reset by the agent", f"{BY_GATEWAY}1001"])
@pytest.mark.parametrize("at", [5.0, 7.5])
def test_not_who_has_one_or_was_just_sent_away(course: Course, why: str, at: float) -> None:
    course.confirmed(4.0, 1, 2)
    course.line(7.0, "closed", 1, why)
    course.judge.take_swept(Swept(WS_ID, at))
    assert course.complaints() == (["SWEPT"] if at < 7.0 or why.startswith(BY_GATEWAY) else [])


def test_who_is_deaf_may_not_know_that_its_socket_has_ended(course: Course) -> None:
    course.confirmed(4.0, 1, 2)
    course.line(4.5, "deaf", 1)
    course.judge.take_swept(Swept(WS_ID, 6.0))
    assert course.complaints() == []


def test_what_nobody_has_sent_is_a_ghost(course: Course) -> None:
    course.judge.sent.pop("a2")
    course.confirmed(4.0, 1, 2)
    assert course.complaints() == ["GHOST", "GHOST"]


def test_what_a_sender_was_about_to_send_may_have_come(course: Course) -> None:
    course.judge.sent.pop("a2")
    course.judge.take_tried("a2")
    course.confirmed(4.0, 1, 2)
    assert course.complaints() == []
    assert course.judge.unsure == 1


def test_it_may_not_come_as_two_messages(course: Course) -> None:
    course.judge.sent.pop("a2")
    course.judge.take_tried("a2")
    course.sent(3)
    course.judge.sent.pop("a3")
    course.line(3.5, "message", 1, 3, "id3", "a2", "whole")
    course.line(3.6, "receipt", 1, 3)
    course.confirmed(4.0, 1, 2, 3)
    assert course.complaints() == ["AGAIN", "GHOST"]


def test_what_agents_send_is_sent_when_they_are_told(course: Course) -> None:
    course.judge.sent.pop("a2")
    course.judge.take_line("1.0\tasks\ta2")
    course.judge.take_line(f"1.1\tsent\ta2\t{WS_ID}\tid2")
    course.confirmed(4.0, 1, 2)
    assert course.complaints() == []
    assert course.judge.unsure == 0


def test_what_is_not_whole_is_lost(course: Course) -> None:
    course.sent(3)
    course.line(3.5, "message", 1, 3, "id3", "a3", "broken")
    course.line(3.6, "receipt", 1, 3)
    course.confirmed(4.0, 1, 2, 3)
    assert course.complaints() == ["LOST"]
