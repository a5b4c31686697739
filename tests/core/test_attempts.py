"""Attempts: what counts as one, and when a message is set aside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest

from tests.support import db_of
from ws_manager.core.attempts import Attempt
from ws_manager.core.delivery import OpenedSocket
from ws_manager.core.ledger import Ledger, open_ledger
from ws_manager.errors import Conflict, InvalidInput
from ws_manager.models import MOST_ATTEMPTS, MessageWorker, Receipt

WORKER = MessageWorker("worker-1", 3)


@pytest.fixture
def ledger(database: Path) -> Iterator[Ledger]:
    with open_ledger(database) as opened:
        yield opened


def opened(ledger: Ledger, worker: Optional[MessageWorker] = WORKER, ws_id: str = "ws-001") -> OpenedSocket:
    return ledger.delivery.open_socket("octavia", ws_id, None, "g", worker=worker)


def sent(ledger: Ledger, ws_id: str = "ws-001") -> int:
    message = ledger.send(ws_id, {"task": "deploy"})
    assert message.db_id is not None
    return message.db_id


def begin(ledger: Ledger, socket: OpenedSocket, seq: int) -> Attempt:
    return ledger.delivery.begin(socket.connection.ws_id, socket.connection.epoch, seq)


def fail(ledger: Ledger, socket: OpenedSocket, seq: int, reason: str = "exit code 1") -> Attempt:
    return ledger.delivery.fail(socket.connection.ws_id, socket.connection.epoch, seq, reason)


def confirm(ledger: Ledger, socket: OpenedSocket, *seqs: int) -> None:
    ledger.delivery.settle(
        [Receipt(socket.connection.ws_id, socket.connection.epoch, list(seqs), None, None)]
    )


def pending(ledger: Ledger) -> list[int]:
    return [message.seq for message in ledger.delivery.pending("ws-001", 0, 100)]


def set_aside(ledger: Ledger) -> list[tuple[int, str]]:
    found = db_of(ledger).rows(
        "SELECT id, reject_reason FROM messages WHERE rejected_at IS NOT NULL ORDER BY id"
    )
    return [(int(row[0]), str(row[1])) for row in found]


def told(ledger: Ledger, seq: int) -> list[str]:
    """What `show` tells of the attempts at a message."""
    msg_id = db_of(ledger).value("SELECT msg_id FROM messages WHERE id = ?", (seq,))
    timeline = ledger.explain(str(msg_id)).timeline
    return [entry.detail for entry in timeline if entry.what in ("started", "failed")]


def rows(ledger: Ledger, table: str) -> list[Any]:
    return [tuple(row) for row in db_of(ledger).rows(f"SELECT * FROM {table}")]


def test_what_a_process_had_begun_is_an_attempt_once_another_comes(ledger: Ledger) -> None:
    first = opened(ledger)
    seq = sent(ledger)
    assert begin(ledger, first, seq) == Attempt(1, set_aside=False)
    second = opened(ledger, MessageWorker("worker-2", 3))
    assert second.begun == 1
    assert begin(ledger, second, seq) == Attempt(2, set_aside=False)


def test_the_same_process_goes_on_with_the_same_attempt(ledger: Ledger) -> None:
    first = opened(ledger)
    seq = sent(ledger)
    begin(ledger, first, seq)
    for _ in range(5):
        again = opened(ledger)
        assert again.begun == 0
        assert begin(ledger, again, seq) == Attempt(1, set_aside=False)


def test_the_last_attempt_sets_aside_with_the_reason_and_those_behind_stay(ledger: Ledger) -> None:
    opened(ledger)
    killer, behind = sent(ledger), sent(ledger)
    for number in range(1, 4):
        assert pending(ledger) == [killer, behind]
        socket = opened(ledger, MessageWorker(f"worker-{number}", 3))
        assert begin(ledger, socket, killer) == Attempt(number, set_aside=False)
    opened(ledger, MessageWorker("worker-4", 3))
    assert pending(ledger) == [behind]
    assert set_aside(ledger) == [(killer, "attempt 3 of 3 failed: the worker ended")]
    assert told(ledger, killer)[-2:] == ["attempt 3 of 3", "attempt 3 of 3: the worker ended"]


def test_the_last_attempt_ends_too_when_one_comes_that_counts_none(ledger: Ledger) -> None:
    socket = opened(ledger, MessageWorker("worker-1", 1))
    seq = sent(ledger)
    begin(ledger, socket, seq)
    plain = opened(ledger, None)
    assert (plain.begun, pending(ledger)) == (1, [])
    with pytest.raises(InvalidInput, match="does not count attempts"):
        begin(ledger, plain, seq)


def test_a_failure_counts_at_once_and_its_reason_is_kept(ledger: Ledger) -> None:
    socket = opened(ledger)
    seq = sent(ledger)
    for number in range(1, 4):
        begin(ledger, socket, seq)
        assert fail(ledger, socket, seq, f"exit code {number}") == Attempt(number, set_aside=number == 3)
    assert set_aside(ledger) == [(seq, "attempt 3 of 3 failed: exit code 3")]
    assert told(ledger, seq) == [
        "attempt 1 of 3",
        "attempt 1 of 3: exit code 1",
        "attempt 2 of 3",
        "attempt 2 of 3: exit code 2",
        "attempt 3 of 3",
        "attempt 3 of 3: exit code 3",
    ]


def test_a_failure_of_what_was_not_begun_is_a_conflict(ledger: Ledger) -> None:
    socket = opened(ledger)
    seq = sent(ledger)
    with pytest.raises(Conflict, match=f"message {seq} was not started"):
        fail(ledger, socket, seq)
    begin(ledger, socket, seq)
    fail(ledger, socket, seq)
    with pytest.raises(Conflict, match="was not started"):
        fail(ledger, socket, seq)


def test_what_is_confirmed_is_no_attempt(ledger: Ledger) -> None:
    socket = opened(ledger, MessageWorker("worker-1", 1))
    done, open_still = sent(ledger), sent(ledger)
    begin(ledger, socket, done)
    begin(ledger, socket, open_still)
    confirm(ledger, socket, done)
    assert opened(ledger, MessageWorker("worker-2", 1)).begun == 1
    assert set_aside(ledger) == [(open_still, "attempt 1 of 1 failed: the worker ended")]
    with pytest.raises(Conflict, match=f"message {done} is not pending"):
        begin(ledger, opened(ledger, MessageWorker("worker-2", 1)), done)


def test_several_that_were_begun_are_counted(ledger: Ledger) -> None:
    socket = opened(ledger)
    seqs = [sent(ledger) for _ in range(8)]
    for seq in seqs:
        begin(ledger, socket, seq)
    assert opened(ledger, MessageWorker("worker-2", 3)).begun == 8
    assert pending(ledger) == seqs


def test_a_socket_that_was_replaced_by_one_that_counts_none_is_told_so(ledger: Ledger) -> None:
    socket = opened(ledger)
    seq = sent(ledger)
    opened(ledger, None)
    with pytest.raises(Conflict, match="registered again"):
        begin(ledger, socket, seq)


def test_a_foreign_message_and_a_void_registration_are_refused(ledger: Ledger) -> None:
    socket = opened(ledger)
    opened(ledger, MessageWorker("worker-9", 3), "ws-002")
    foreign, own = sent(ledger, "ws-002"), sent(ledger)
    with pytest.raises(Conflict, match="is not pending"):
        begin(ledger, socket, foreign)
    opened(ledger)
    with pytest.raises(Conflict, match="registered again"):
        begin(ledger, socket, own)


@pytest.mark.parametrize("most", [0, MOST_ATTEMPTS + 1])
def test_max_attempts_has_bounds(ledger: Ledger, most: int) -> None:
    with pytest.raises(InvalidInput, match=f"max_attempts is between 1 and {MOST_ATTEMPTS}"):
        opened(ledger, MessageWorker("worker-1", most))
    assert ledger.find("ws-001") is None


def test_rows_of_what_is_over_are_deleted(ledger: Ledger) -> None:
    socket = opened(ledger)
    for _ in range(3):
        seq = sent(ledger)
        begin(ledger, socket, seq)
        confirm(ledger, socket, seq)
    assert len(rows(ledger, "attempts")) == 1
    ledger.disconnect("ws-001")
    ledger.maintenance.prune(0)
    assert ledger.find("ws-001") is None
    opened(ledger, MessageWorker("worker-9", 3), "ws-002")
    assert rows(ledger, "attempts") == []
    assert rows(ledger, "workers") == [("ws-002", "worker-9", 3)]
