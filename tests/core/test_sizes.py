"""More than one statement takes: what is written in chunks reaches everybody, the last row of each chunk too."""

from __future__ import annotations

from collections import Counter

import pytest

from ws_manager.core.batch import Batch
from ws_manager.core.delivery import Delivery
from ws_manager.core.maintenance import prune
from ws_manager.core.read.overview import Sampler, View
from ws_manager.core.registry import Registry
from ws_manager.core.retry import retry_all
from ws_manager.models import Receipt
from ws_manager.repository.sqlite.database import Database

# Chunks are of 500 rows: around one, around a later one, and far into the third.
SIZES = (1, 499, 500, 501, 1000, 1001, 1200)


@pytest.fixture
def registry(db: Database) -> Registry:
    return Registry(db)


def connected(
    registry: Registry, count: int, agent: str = "octavia", gateway: str | None = None
) -> list[str]:
    """Register `count` connections, and return their ws_ids."""
    names = [f"{agent}-{number:05}" for number in range(count)]
    with registry.db.transaction():
        for name in names:
            registry.connect(agent, name, gateway=gateway)
    return names


def received(registry: Registry) -> list[tuple[str, str]]:
    """Return recipient and content of every message, in order."""
    rows = registry.db.rows("SELECT recipient_id, content FROM messages ORDER BY id")
    return [(row[0], row[1]) for row in rows]


def counters(registry: Registry) -> dict[str, int]:
    return dict(registry.db.rows("SELECT ws_id, message_count FROM connections"))


@pytest.mark.parametrize("size", SIZES)
class TestBroadcast:
    def test_reaches_each_once(self, registry: Registry, size: int) -> None:
        names = connected(registry, size)
        sent = registry.broadcast({"event": "deploy"})
        assert sorted(sent.recipients) == names
        assert sorted(received(registry)) == [(name, '{"event":"deploy"}') for name in names]
        assert counters(registry) == dict.fromkeys(names, 1)
        first, last = registry.db.rows("SELECT min(id), max(id) FROM messages")[0]
        assert (sent.first_id, sent.last_id) == (first, last) == (first, first + size - 1)

    def test_to_those_that_were_chosen(self, registry: Registry, size: int) -> None:
        names = connected(registry, size)
        others = connected(registry, 3, "cipher")
        sent = registry.broadcast(1, filter_fn=lambda connection: connection.agent == "octavia")
        assert sorted(sent.recipients) == names
        assert Counter(received(registry)) == {(name, "1"): 1 for name in names}
        assert counters(registry) == {**dict.fromkeys(names, 1), **dict.fromkeys(others, 0)}

    def test_in_a_batch(self, registry: Registry, size: int) -> None:
        names = connected(registry, size)
        batch = Batch(registry)
        sent = batch.broadcast([batch.request(number, "data") for number in range(3)])
        assert len(sent) == 3
        assert Counter(received(registry)) == {
            (name, str(number)): 1 for name in names for number in range(3)
        }
        assert [last.last_id for last in sent] == [size, 2 * size, 3 * size]
        assert counters(registry) == dict.fromkeys(names, 3)


@pytest.mark.parametrize("size", SIZES)
def test_a_batch_of_messages_is_written_whole_and_in_order(registry: Registry, size: int) -> None:
    names = connected(registry, 7)
    batch = Batch(registry)
    wanted = [(names[number % 7], str(number)) for number in range(size)]
    msg_ids = batch.send([batch.request(int(content), "data", name) for name, content in wanted])
    assert received(registry) == wanted
    assert msg_ids == [row[0] for row in registry.db.rows("SELECT msg_id FROM messages ORDER BY id")]
    assert counters(registry) == {name: sum(1 for to, _ in wanted if to == name) for name in names}


@pytest.mark.parametrize("size", [5000, 5001, 10_001])
def test_a_batch_to_many_knows_who_is_active(registry: Registry, size: int) -> None:
    names = connected(registry, size)
    registry.disconnect(names[0])
    batch = Batch(registry)
    answers = batch.send([batch.request(1, "data", name) for name in [*names, "nobody"]])
    assert [answer is None for answer in answers] == [True, *[False] * (size - 1), True]
    assert [to for to, _ in received(registry)] == names[1:]
    assert counters(registry) == {names[0]: 0, **dict.fromkeys(names[1:], 1)}


def test_what_many_connections_confirm_is_counted(registry: Registry) -> None:
    delivery = Delivery(registry.db)
    names = connected(registry, 1200, gateway="g")
    sent = registry.broadcast(1)
    assert sent.first_id is not None
    seqs = dict(registry.db.rows("SELECT recipient_id, id FROM messages"))
    times = iter([0.0, 1.0])
    sampler = Sampler(registry.db, timer=lambda: next(times))
    sampler.sample(View())
    delivery.settle([Receipt(name, 1, seqs[name], seqs[name]) for name in names])
    assert sampler.sample(View()).confirmed_per_second == 1200


def test_all_that_is_set_aside_is_set_aside_and_sent_again(registry: Registry) -> None:
    connected(registry, 1)
    batch = Batch(registry)
    batch.send([batch.request(number, "data", "octavia-00000") for number in range(1200)])
    registry.connect("cipher", "octavia-00000")
    assert registry.db.value("SELECT count(*) FROM messages WHERE reject_reason = 'agent changed'") == 1200
    assert len(retry_all(registry.db, "")[0]) == 1200
    assert [content for _, content in received(registry)] == 2 * [str(number) for number in range(1200)]


def test_all_that_is_old_is_pruned(registry: Registry) -> None:
    (name,) = connected(registry, 1)
    with registry.db.transaction():
        for _ in range(10_001):
            registry.heartbeat(name)
    registry.db.execute("UPDATE heartbeat_log SET ts = '2020-01-01T00:00:00.000000+00:00'")
    assert prune(registry.db, 86400).heartbeat_log == 10_001
    assert registry.db.value("SELECT count(*) FROM heartbeat_log") == 0
