"""Receiving without a socket, and its attempts: on the file and over HTTP."""

from __future__ import annotations

import pytest

from ws_manager import Conflict, InvalidInput
from ws_manager.core.attempts import Attempt
from ws_manager.core.ledger import Ledger
from ws_manager.models import MOST_ATTEMPTS, Connection, MessageWorker

WORKER = MessageWorker("worker-1", 3)


@pytest.fixture
def sent(ledger: Ledger) -> list[str]:
    """Three messages for ws-001, by their ids."""
    ledger.connect("octavia", "ws-001")
    found = [ledger.send("ws-001", number) for number in range(3)]
    return [message.msg_id for message in found if message is not None]


def pending(ledger: Ledger, connection: Connection) -> list[int]:
    return [message.seq for message in ledger.delivery.pending_held(connection, 0, 100)]


def told(ledger: Ledger, msg_id: str) -> list[str]:
    timeline = ledger.explain(msg_id).timeline
    return [f"{entry.what} {entry.detail}" for entry in timeline if entry.what in ("started", "failed")]


def reason(ledger: Ledger, msg_id: str) -> object:
    message = ledger.message(msg_id)
    assert message is not None
    return message.reject_reason


class TestRejectHeld:
    def test_sets_one_aside_with_all_of_its_reason(self, ledger: Ledger, sent: list[str]) -> None:
        why = "exit code 65: " + "two lines\n" * 400
        with ledger.delivery.holding("ws-001") as connection:
            first, second, third = pending(ledger, connection)
            ledger.delivery.reject_held(connection, second, why)
            assert pending(ledger, connection) == [first, third]
            # Its answer was lost, and it is said again: nothing changes.
            ledger.delivery.reject_held(connection, second, "another reason")
        assert reason(ledger, sent[1]) == why

    def test_of_a_void_registration_is_a_conflict(self, ledger: Ledger, sent: list[str]) -> None:
        with ledger.delivery.holding("ws-001") as connection:
            (first, *_) = pending(ledger, connection)
            ledger.connect("octavia", "ws-001")
            with pytest.raises(Conflict, match="registered again"):
                ledger.delivery.reject_held(connection, first, "why")
        assert reason(ledger, sent[0]) is None


class TestAttempts:
    def test_to_begin_twice_is_one_attempt(self, ledger: Ledger, sent: list[str]) -> None:
        with ledger.delivery.holding("ws-001", WORKER) as connection:
            (first, *_) = pending(ledger, connection)
            for _ in range(3):
                assert ledger.delivery.begin("ws-001", connection.epoch, first) == Attempt(1, set_aside=False)
        assert told(ledger, sent[0]) == ["started attempt 1 of 3"]

    def test_the_last_failure_sets_aside(self, ledger: Ledger, sent: list[str]) -> None:
        with ledger.delivery.holding("ws-001", WORKER) as connection:
            first, *others = pending(ledger, connection)
            for number in (1, 2, 3):
                assert ledger.delivery.begin("ws-001", connection.epoch, first).number == number
                failed = ledger.delivery.fail("ws-001", connection.epoch, first, f"exit code {number}")
                assert failed == Attempt(number, set_aside=number == 3)
            assert pending(ledger, connection) == others
        assert reason(ledger, sent[0]) == "attempt 3 of 3 failed: exit code 3"

    def test_to_fail_twice_counts_once(self, ledger: Ledger, sent: list[str]) -> None:
        with ledger.delivery.holding("ws-001", WORKER) as connection:
            (first, *_) = pending(ledger, connection)
            ledger.delivery.begin("ws-001", connection.epoch, first)
            ledger.delivery.fail("ws-001", connection.epoch, first, "exit code 1")
            with pytest.raises(Conflict, match=f"message {first} was not started"):
                ledger.delivery.fail("ws-001", connection.epoch, first, "exit code 1")
            assert ledger.delivery.begin("ws-001", connection.epoch, first).number == 2

    def test_what_a_process_had_begun_is_an_attempt_once_another_comes(
        self, ledger: Ledger, sent: list[str]
    ) -> None:
        for number in (1, 2, 3):
            with ledger.delivery.holding("ws-001", MessageWorker(f"worker-{number}", 3)) as connection:
                first, *others = pending(ledger, connection)
                assert ledger.delivery.begin("ws-001", connection.epoch, first).number == number
        with ledger.delivery.holding("ws-001", MessageWorker("worker-4", 3)) as connection:
            assert pending(ledger, connection) == others
        assert reason(ledger, sent[0]) == "attempt 3 of 3 failed: the worker ended"

    def test_the_same_process_goes_on(self, ledger: Ledger, sent: list[str]) -> None:
        for _ in range(3):
            with ledger.delivery.holding("ws-001", WORKER) as connection:
                (first, *_) = pending(ledger, connection)
                assert ledger.delivery.begin("ws-001", connection.epoch, first).number == 1

    def test_one_that_counts_none_ends_them_too(self, ledger: Ledger, sent: list[str]) -> None:
        with ledger.delivery.holding("ws-001", MessageWorker("worker-1", 1)) as connection:
            first, *others = pending(ledger, connection)
            ledger.delivery.begin("ws-001", connection.epoch, first)
        with ledger.delivery.holding("ws-001") as connection:
            assert pending(ledger, connection) == others
            with pytest.raises(InvalidInput, match="does not count attempts"):
                ledger.delivery.begin("ws-001", connection.epoch, others[0])

    def test_what_is_confirmed_is_begun_no_more(self, ledger: Ledger, sent: list[str]) -> None:
        with ledger.delivery.holding("ws-001", WORKER) as connection:
            (first, *_) = pending(ledger, connection)
            ledger.delivery.begin("ws-001", connection.epoch, first)
            ledger.delivery.confirm_held(connection, [first])
            with pytest.raises(Conflict, match=f"message {first} is not pending"):
                ledger.delivery.begin("ws-001", connection.epoch, first)
            with pytest.raises(Conflict, match=f"message {first} is not pending"):
                ledger.delivery.fail("ws-001", connection.epoch, first, "why")

    def test_of_a_void_registration_is_a_conflict(self, ledger: Ledger, sent: list[str]) -> None:
        with ledger.delivery.holding("ws-001", WORKER) as connection:
            (first, *_) = pending(ledger, connection)
            ledger.delivery.begin("ws-001", connection.epoch, first)
            ledger.connect("octavia", "ws-001")
            with pytest.raises(Conflict, match="registered again"):
                ledger.delivery.begin("ws-001", connection.epoch, first)
            with pytest.raises(Conflict, match="registered again"):
                ledger.delivery.fail("ws-001", connection.epoch, first, "why")

    @pytest.mark.parametrize(
        "worker", [MessageWorker("", 1), MessageWorker("w", 0), MessageWorker("w", MOST_ATTEMPTS + 1)]
    )
    def test_bounds(self, ledger: Ledger, sent: list[str], worker: MessageWorker) -> None:
        with pytest.raises(InvalidInput), ledger.delivery.holding("ws-001", worker):
            pass
        with ledger.delivery.holding("ws-001", WORKER) as connection:
            assert len(pending(ledger, connection)) == 3
