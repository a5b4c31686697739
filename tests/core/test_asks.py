"""Answering: what is written together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import db_of, open_socket
from ws_manager.core.ledger import Ledger, open_ledger
from ws_manager.models import Connection, Receipt
from ws_manager.repository.sqlite.events import Events


@pytest.fixture
def ledger(database: Path) -> Iterator[Ledger]:
    with open_ledger(database) as opened:
        yield opened


def asked(ledger: Ledger, count: int, sender_id: str = "ws-002") -> list[int]:
    messages = [ledger.ask("ws-001", number, "data", sender_id) for number in range(count)]
    return [message.db_id or 0 for message in messages if message is not None]


def reply(ledger: Ledger, connection: Connection, seq: int) -> str:
    return ledger.delivery.reply(connection.ws_id, connection.epoch, seq, seq)


@pytest.fixture
def connection(ledger: Ledger) -> Connection:
    open_socket(ledger, "cipher", "ws-002")
    return open_socket(ledger, "octavia", "ws-001")


def test_answer_and_confirmation_are_written_together_or_not_at_all(
    ledger: Ledger, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    (seq,) = asked(ledger, 1)
    before = list(db_of(ledger).iterdump())

    def fail(*_: object) -> None:
        raise OSError("as if the gateway ended here")

    # The last thing that is written.
    with monkeypatch.context() as patched, pytest.raises(OSError, match="as if"):
        patched.setattr(Events, "insert", fail)
        reply(ledger, connection, seq)
    assert list(db_of(ledger).iterdump()) == before
    reply(ledger, connection, seq)
    rows = db_of(ledger).rows("SELECT delivered, reply_to IS NOT NULL FROM messages ORDER BY id")
    assert [tuple(row) for row in rows] == [(1, 0), (0, 1)]


def confirmed_seq(ledger: Ledger) -> int:
    found = ledger.find("ws-001")
    assert found is not None
    return found.confirmed_seq


def test_place_from_which_a_socket_begins_passes_nothing_that_is_pending(
    ledger: Ledger, connection: Connection
) -> None:
    seqs = asked(ledger, 4)
    for place in (2, 1):
        reply(ledger, connection, seqs[place])
        assert confirmed_seq(ledger) == 0
    reply(ledger, connection, seqs[0])
    assert confirmed_seq(ledger) == seqs[0]
    reply(ledger, connection, seqs[3])
    assert confirmed_seq(ledger) == seqs[3]


def test_answers_are_in_the_journal_of_receipts_once(ledger: Ledger, connection: Connection) -> None:
    first, second = asked(ledger, 2)
    reply(ledger, connection, first)
    ledger.delivery.settle([Receipt("ws-001", connection.epoch, [second])])
    # Confirmed already: its answer confirms nothing.
    reply(ledger, connection, second)
    assert [row[0] for row in db_of(ledger).rows("SELECT ranges FROM receipts")] == [str(first), str(second)]
