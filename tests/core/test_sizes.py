"""More than one statement takes: what is written in chunks reaches everybody, the last row of each chunk too."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support import db_of, open_socket
from ws_manager.core.ledger import Ledger, ledger_over
from ws_manager.core.read.overview import OverviewQuery, Sampler
from ws_manager.models import Receipt
from ws_manager.repository.sqlite.database import Database

# Chunks are of 500 rows: around one, around a later one, and far into the third.
SIZES = (1, 499, 500, 501, 1000, 1001, 1200)


@pytest.fixture
def ledger(db: Database) -> Ledger:
    return ledger_over(db)


def connected(ledger: Ledger, count: int, agent: str = "octavia", gateway: str | None = None) -> list[str]:
    """Register `count` connections, and return their ws_ids."""
    names = [f"{agent}-{number:05}" for number in range(count)]
    with db_of(ledger).transaction():
        for name in names:
            open_socket(ledger, agent, name, gateway=gateway)
    return names


def received(ledger: Ledger) -> list[tuple[str, str]]:
    """Return recipient and content of every message, in order."""
    rows = db_of(ledger).rows("SELECT recipient_id, content FROM messages ORDER BY id")
    return [(row[0], row[1]) for row in rows]


def counters(ledger: Ledger) -> dict[str, int]:
    return dict(db_of(ledger).rows("SELECT ws_id, message_count FROM connections"))


@pytest.mark.parametrize("size", SIZES)
class TestBroadcast:
    def test_reaches_each_once(self, ledger: Ledger, size: int) -> None:
        names = connected(ledger, size)
        sent = ledger.broadcast({"event": "deploy"})
        assert sorted(sent.recipients) == names
        assert sorted(received(ledger)) == [(name, '{"event":"deploy"}') for name in names]
        assert counters(ledger) == dict.fromkeys(names, 1)
        first, last = db_of(ledger).rows("SELECT min(id), max(id) FROM messages")[0]
        assert last == first + size - 1

    def test_to_those_that_were_chosen(self, ledger: Ledger, size: int) -> None:
        names = connected(ledger, size)
        others = connected(ledger, 3, "cipher")
        sent = ledger.broadcast(1, filter_fn=lambda connection: connection.agent == "octavia")
        assert sorted(sent.recipients) == names
        assert Counter(received(ledger)) == {(name, "1"): 1 for name in names}
        assert counters(ledger) == {**dict.fromkeys(names, 1), **dict.fromkeys(others, 0)}

    def test_in_a_batch(self, ledger: Ledger, size: int) -> None:
        names = connected(ledger, size)
        batch = ledger.batch
        sent = batch.broadcast([batch.message(number, "data") for number in range(3)])
        assert len(sent) == 3
        assert Counter(received(ledger)) == {(name, str(number)): 1 for name in names for number in range(3)}
        assert [state.counts.pending for state in ledger.broadcasts() if state.recipients == size] == [
            size
        ] * 3
        assert counters(ledger) == dict.fromkeys(names, 3)


@pytest.mark.parametrize("size", SIZES)
def test_a_batch_of_messages_is_written_whole_and_in_order(ledger: Ledger, size: int) -> None:
    names = connected(ledger, 7)
    batch = ledger.batch
    wanted = [(names[number % 7], str(number)) for number in range(size)]
    msg_ids = batch.send([batch.message(int(content), "data", name) for name, content in wanted])
    assert received(ledger) == wanted
    assert msg_ids == [row[0] for row in db_of(ledger).rows("SELECT msg_id FROM messages ORDER BY id")]
    assert counters(ledger) == {name: sum(1 for to, _ in wanted if to == name) for name in names}


@pytest.mark.parametrize("size", [5000, 5001, 10_001])
def test_a_batch_to_many_knows_who_is_active(ledger: Ledger, size: int) -> None:
    names = connected(ledger, size)
    ledger.disconnect(names[0])
    batch = ledger.batch
    answers = batch.send([batch.message(1, "data", name) for name in [*names, "nobody"]])
    assert [answer is None for answer in answers] == [True, *[False] * (size - 1), True]
    assert [to for to, _ in received(ledger)] == names[1:]
    assert counters(ledger) == {names[0]: 0, **dict.fromkeys(names[1:], 1)}


def test_what_many_connections_confirm_is_counted(ledger: Ledger) -> None:
    delivery = ledger.delivery
    names = connected(ledger, 1200, gateway="g")
    ledger.broadcast(1)
    seqs: dict[str, int] = dict(db_of(ledger).rows("SELECT recipient_id, id FROM messages"))
    times = iter([0.0, 1.0])
    sampler = Sampler(ledger._store, timer=lambda: next(times))
    sampler.sample(OverviewQuery())
    delivery.settle([Receipt(name, 1, [seqs[name]]) for name in names])
    assert sampler.sample(OverviewQuery()).confirmed_per_second == 1200


def test_all_that_is_set_aside_is_set_aside_and_sent_again(ledger: Ledger) -> None:
    connected(ledger, 1)
    batch = ledger.batch
    batch.send([batch.message(number, "data", "octavia-00000") for number in range(1200)])
    ledger.connect("cipher", "octavia-00000")
    assert db_of(ledger).value("SELECT count(*) FROM messages WHERE reject_reason = 'agent changed'") == 1200
    assert len(ledger.retry_all()[0]) == 1200
    assert [content for _, content in received(ledger)] == 2 * [str(number) for number in range(1200)]


def test_all_that_is_old_is_pruned(ledger: Ledger) -> None:
    (name,) = connected(ledger, 1)
    with db_of(ledger).transaction():
        for _ in range(10_001):
            ledger.heartbeat(name)
    db_of(ledger).execute("UPDATE heartbeat_log SET ts = '2020-01-01T00:00:00.000000+00:00'")
    assert ledger.maintenance.prune(86400).heartbeat_log == 10_001
    assert db_of(ledger).value("SELECT count(*) FROM heartbeat_log") == 0
