"""The snapshot of a ledger: what it tells, what it marks, and that it only reads."""

from __future__ import annotations

import pytest

from ws_manager import ConnectionPool
from ws_manager.core.delivery import Delivery
from ws_manager.core.read.overview import ORDERS, Sampler, Snapshot, View
from ws_manager.errors import InvalidInput, LedgerReplaced
from ws_manager.models import Receipt, Rejection, utc_now
from ws_manager.repository.sqlite.database import Database

LATER = "2099-01-01T00:00:00.000000+00:00"


@pytest.fixture
def registry(pool: ConnectionPool):
    return pool.registry


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def ws_ids(snapshot: Snapshot) -> list[str]:
    return [state.ws_id for state in snapshot.connections]


def confirm(db: Database, ws_id: str, first: int, last: int) -> None:
    Delivery(db).settle([Receipt(ws_id, 1, first, last)])


def test_of_an_empty_ledger(db: Database) -> None:
    snapshot = Sampler(db).sample(View())
    assert (snapshot.active_connections, snapshot.total_ever_connected, snapshot.total_messages) == (0, 0, 0)
    assert (snapshot.connections, snapshot.messages, snapshot.endings, snapshot.gateway) == ([], [], [], None)


def test_tells_what_a_connection_has_and_lacks(db: Database, registry) -> None:
    connection = registry.connect("octavia", "ws-001")
    registry.heartbeat("ws-001", 12)
    sent = [registry.send("ws-001", number) for number in range(3)]
    confirm(db, "ws-001", sent[0].db_id, sent[0].db_id)

    (state,) = Sampler(db, now=utc_now).sample(View()).connections

    assert (state.ws_id, state.agent, state.connected_at) == ("ws-001", "octavia", connection.connected_at)
    assert (state.round_trip_ms, state.pending, state.sent) == (12, 2, 3)
    assert state.slow == ()


def test_a_connection_without_a_sign_of_life_is_slow(db: Database, registry) -> None:
    registry.connect("octavia", "ws-001")
    (state,) = Sampler(db, timeout=30, now=lambda: LATER).sample(View()).connections
    assert state.slow == ("silent",)
    assert state.waiting_seconds is None


def test_a_connection_last_heard_in_the_future_is_silent_and_comes_first(db: Database, registry) -> None:
    for ws_id in ("ws-001", "ws-002", "ws-003"):
        registry.connect("octavia", ws_id)
    db.execute("UPDATE connections SET last_heartbeat = ? WHERE ws_id = 'ws-002'", (LATER,))
    states = Sampler(db, timeout=30).sample(View("idle")).connections
    assert [(state.ws_id, state.slow) for state in states] == [
        ("ws-002", ("silent",)),
        ("ws-001", ()),
        ("ws-003", ()),
    ]


def test_a_connection_whose_messages_wait_is_slow(db: Database, registry) -> None:
    registry.connect("octavia", "ws-001")
    registry.send("ws-001", "hello")
    (state,) = Sampler(db, timeout=10**12, now=lambda: LATER).sample(View()).connections
    assert state.slow == ("waiting",)
    assert state.waiting_seconds > 10**9


def test_a_long_round_trip_is_slow(db: Database, registry) -> None:
    registry.connect("octavia", "ws-001")
    registry.heartbeat("ws-001", 1001)
    (state,) = Sampler(db, now=utc_now).sample(View()).connections
    assert state.slow == ("round trip",)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_has_its_first(db: Database, registry, order: str) -> None:
    registry.connect("zoe", "ws-000")
    registry.connect("anna", "ws-first" if order == "agent" else "ws-001")
    if order in ("pending", "sent", "round-trip"):
        registry.connect("zoe", "ws-first")
        registry.send("ws-first", 1)
        registry.heartbeat("ws-first", 500)
    elif order in ("idle", "age"):
        db.execute(
            "UPDATE connections SET ws_id = 'ws-first', connected_at = '2020', last_heartbeat = '2020'"
            " WHERE ws_id = 'ws-001'"
        )
    snapshot = Sampler(db).sample(View(order=order))
    assert ws_ids(snapshot)[0] == "ws-first"


def test_what_is_set_aside_does_not_count_as_pending(db: Database, registry) -> None:
    for ws_id in ("ws-001", "ws-002"):
        registry.connect("octavia", ws_id)
    aside = registry.send("ws-001", 1)
    Delivery(db).settle([Rejection("ws-001", 1, aside.db_id, "no")])
    registry.send("ws-002", 2)
    states = Sampler(db).sample(View()).connections
    assert [(state.ws_id, state.pending) for state in states] == [("ws-002", 1), ("ws-001", 0)]


def test_chooses_by_agent_and_by_text(db: Database, registry) -> None:
    registry.connect("octavia", "ws-001", {"region": "us-west"})
    registry.connect("octavia", "ws-002")
    registry.connect("cipher", "ws-003", {"region": "US-West"})
    sampler = Sampler(db)
    assert ws_ids(sampler.sample(View(agent="octavia"))) == ["ws-001", "ws-002"]
    assert ws_ids(sampler.sample(View(text="us-west"))) == ["ws-001", "ws-003"]
    both = sampler.sample(View(agent="octavia", text="us-west"))
    assert (ws_ids(both), both.matching_connections, both.active_connections) == (["ws-001"], 1, 3)


def test_shows_no_more_than_it_is_asked_for(db: Database, registry) -> None:
    for number in range(5):
        registry.connect("octavia", f"ws-{number}")
        registry.send(f"ws-{number}", "x" * 1000)
    snapshot = Sampler(db).sample(View(connections=2, messages=1))
    assert len(snapshot.connections) == 2
    (message,) = snapshot.messages
    assert (message.recipient_id, len(message.content_start)) == ("ws-4", 200)


def test_rates_are_those_since_the_snapshot_before(db: Database, registry) -> None:
    registry.connect("octavia", "ws-001")
    clock = Clock()
    sampler = Sampler(db, timer=clock)
    first = sampler.sample(View())
    assert (first.sent_per_second, first.confirmed_per_second) == (None, None)

    sent = [registry.send("ws-001", number) for number in range(10)]
    confirm(db, "ws-001", sent[0].db_id, sent[5].db_id)
    clock.seconds += 2
    second = sampler.sample(View())
    assert (second.sent_per_second, second.confirmed_per_second) == (5, 3)
    clock.seconds += 2
    third = sampler.sample(View())
    assert (third.sent_per_second, third.confirmed_per_second) == (0, 0)


def test_counts_what_others_confirm(db: Database, database, registry, run_python) -> None:
    registry.connect("octavia", "ws-001")
    for number in range(10):
        registry.send("ws-001", number)
    clock = Clock()
    sampler = Sampler(db, timer=clock)
    sampler.sample(View())
    run_python(
        "import sys\nfrom ws_manager import get_db\nfrom ws_manager.core.delivery import Delivery\n"
        "from ws_manager.models import Receipt\n"
        "Delivery(get_db(sys.argv[1])).settle([Receipt('ws-001', 1, 1, 6)])",
        database,
    )
    clock.seconds += 2
    assert sampler.sample(View()).confirmed_per_second == 3
    clock.seconds += 2
    assert sampler.sample(View()).confirmed_per_second == 0


def test_reasons_are_counted_the_latest_first(db: Database, registry) -> None:
    for number in range(3):
        registry.connect("octavia", f"ws-{number}")
    registry.disconnect("ws-0", "maintenance")
    registry.disconnect("ws-1", "maintenance")
    registry.disconnect("ws-2", "moved house")
    snapshot = Sampler(db).sample(View())
    assert [(e.reason, e.count, e.last_ws_id) for e in snapshot.endings] == [
        ("moved house", 1, "ws-2"),
        ("maintenance", 2, "ws-1"),
    ]


def test_never_writes(db: Database, registry) -> None:
    registry.connect("octavia", "ws-001")
    db.execute("PRAGMA query_only = ON")
    assert Sampler(db).sample(View()).active_connections == 1


def test_notices_that_the_file_was_replaced(db: Database, database) -> None:
    sampler = Sampler(db)
    database.rename(database.with_suffix(".old"))
    with pytest.raises(LedgerReplaced):
        sampler.sample(View())


@pytest.mark.parametrize(
    "view", [View(order="colour"), View(agent=" "), View(connections=-1), View(messages=-1)]
)
def test_refuses_a_view_that_cannot_be_had(db: Database, view: View) -> None:
    with pytest.raises(InvalidInput):
        Sampler(db).sample(view)
