"""The snapshot of a ledger: what it tells, what it marks, and that it only reads."""

from __future__ import annotations

import pytest

from ws_manager import ConnectionPool
from ws_manager.core.ledger import ledger_over
from ws_manager.core.read.overview import Overview, OverviewQuery, Sampler
from ws_manager.errors import InvalidInput, LedgerReplaced
from ws_manager.models import Receipt, Rejection, utc_now
from ws_manager.repository.engines import store_over
from ws_manager.repository.findings import ORDERS
from ws_manager.repository.sqlite.database import Database

LATER = "2099-01-01T00:00:00.000000+00:00"


@pytest.fixture
def ledger(pool: ConnectionPool):
    return pool.ledger


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def ws_ids(snapshot: Overview) -> list[str]:
    return [state.ws_id for state in snapshot.connections]


def confirm(db: Database, ws_id: str, first: int, last: int) -> None:
    ledger_over(db).delivery.settle([Receipt(ws_id, 1, range(first, last + 1))])


def test_of_an_empty_ledger(db: Database) -> None:
    snapshot = Sampler(store_over(db)).sample(OverviewQuery())
    assert (snapshot.active_connections, snapshot.total_ever_connected, snapshot.total_messages) == (0, 0, 0)
    assert (snapshot.connections, snapshot.messages, snapshot.endings, snapshot.gateway) == ([], [], [], None)


def test_tells_what_a_connection_has_and_lacks(db: Database, ledger) -> None:
    connection = ledger.connect("octavia", "ws-001")
    ledger.heartbeat("ws-001", 12)
    sent = [ledger.send("ws-001", number) for number in range(3)]
    confirm(db, "ws-001", sent[0].db_id, sent[0].db_id)

    (state,) = Sampler(store_over(db), now=utc_now).sample(OverviewQuery()).connections

    assert (state.ws_id, state.agent, state.connected_at) == ("ws-001", "octavia", connection.connected_at)
    assert (state.round_trip_ms, state.pending, state.sent) == (12, 2, 3)
    assert state.slow == ()


def test_a_connection_without_a_sign_of_life_is_slow(db: Database, ledger) -> None:
    ledger.connect("octavia", "ws-001")
    (state,) = Sampler(store_over(db), timeout=30, now=lambda: LATER).sample(OverviewQuery()).connections
    assert state.slow == ("silent",)
    assert state.waiting_seconds is None


def test_a_connection_last_heard_in_the_future_is_silent_and_comes_first(db: Database, ledger) -> None:
    for ws_id in ("ws-001", "ws-002", "ws-003"):
        ledger.connect("octavia", ws_id)
    db.execute("UPDATE connections SET last_heartbeat = ? WHERE ws_id = 'ws-002'", (LATER,))
    states = Sampler(store_over(db), timeout=30).sample(OverviewQuery("idle")).connections
    assert [(state.ws_id, state.slow) for state in states] == [
        ("ws-002", ("silent",)),
        ("ws-001", ()),
        ("ws-003", ()),
    ]


def test_a_connection_whose_messages_wait_is_slow(db: Database, ledger) -> None:
    ledger.connect("octavia", "ws-001")
    ledger.send("ws-001", "hello")
    (state,) = Sampler(store_over(db), timeout=10**12, now=lambda: LATER).sample(OverviewQuery()).connections
    assert state.slow == ("waiting",)
    assert (state.waiting_seconds or 0) > 10**9


def test_a_long_round_trip_is_slow(db: Database, ledger) -> None:
    ledger.connect("octavia", "ws-001")
    ledger.heartbeat("ws-001", 1001)
    (state,) = Sampler(store_over(db), now=utc_now).sample(OverviewQuery()).connections
    assert state.slow == ("round trip",)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_has_its_first(db: Database, ledger, order: str) -> None:
    ledger.connect("zoe", "ws-000")
    ledger.connect("anna", "ws-first" if order == "agent" else "ws-001")
    if order in ("pending", "sent", "round-trip"):
        ledger.connect("zoe", "ws-first")
        ledger.send("ws-first", 1)
        ledger.heartbeat("ws-first", 500)
    elif order in ("idle", "age"):
        db.execute(
            "UPDATE connections SET ws_id = 'ws-first', connected_at = '2020', last_heartbeat = '2020'"
            " WHERE ws_id = 'ws-001'"
        )
    snapshot = Sampler(store_over(db)).sample(OverviewQuery(order=order))
    assert ws_ids(snapshot)[0] == "ws-first"


def test_what_is_set_aside_does_not_count_as_pending(db: Database, ledger) -> None:
    for ws_id in ("ws-001", "ws-002"):
        ledger.connect("octavia", ws_id)
    aside = ledger.send("ws-001", 1)
    ledger_over(db).delivery.settle([Rejection("ws-001", 1, aside.db_id, "no")])
    ledger.send("ws-002", 2)
    states = Sampler(store_over(db)).sample(OverviewQuery()).connections
    assert [(state.ws_id, state.pending) for state in states] == [("ws-002", 1), ("ws-001", 0)]


def test_chooses_by_agent_and_by_text(db: Database, ledger) -> None:
    ledger.connect("octavia", "ws-001", {"region": "us-west"})
    ledger.connect("octavia", "ws-002")
    ledger.connect("cipher", "ws-003", {"region": "US-West"})
    sampler = Sampler(store_over(db))
    assert ws_ids(sampler.sample(OverviewQuery(agent="octavia"))) == ["ws-001", "ws-002"]
    assert ws_ids(sampler.sample(OverviewQuery(text="us-west"))) == ["ws-001", "ws-003"]
    both = sampler.sample(OverviewQuery(agent="octavia", text="us-west"))
    assert (ws_ids(both), both.matching_connections, both.active_connections) == (["ws-001"], 1, 3)


def test_shows_no_more_than_it_is_asked_for(db: Database, ledger) -> None:
    for number in range(5):
        ledger.connect("octavia", f"ws-{number}")
        ledger.send(f"ws-{number}", "x" * 1000)
    snapshot = Sampler(store_over(db)).sample(OverviewQuery(connections=2, messages=1))
    assert len(snapshot.connections) == 2
    (message,) = snapshot.messages
    assert (message.recipient_id, len(message.content_start)) == ("ws-4", 200)


def test_rates_are_those_since_the_snapshot_before(db: Database, ledger) -> None:
    ledger.connect("octavia", "ws-001")
    clock = Clock()
    sampler = Sampler(store_over(db), timer=clock)
    first = sampler.sample(OverviewQuery())
    assert (first.sent_per_second, first.confirmed_per_second) == (None, None)

    sent = [ledger.send("ws-001", number) for number in range(10)]
    confirm(db, "ws-001", sent[0].db_id, sent[5].db_id)
    clock.seconds += 2
    second = sampler.sample(OverviewQuery())
    assert (second.sent_per_second, second.confirmed_per_second) == (5, 3)
    clock.seconds += 2
    third = sampler.sample(OverviewQuery())
    assert (third.sent_per_second, third.confirmed_per_second) == (0, 0)


def test_counts_what_others_confirm(db: Database, database, ledger, run_python) -> None:
    ledger.connect("octavia", "ws-001")
    for number in range(10):
        ledger.send("ws-001", number)
    clock = Clock()
    sampler = Sampler(store_over(db), timer=clock)
    sampler.sample(OverviewQuery())
    run_python(
        "import sys\nfrom ws_manager import open_ledger\nfrom ws_manager.models import Receipt\n"
        "open_ledger(sys.argv[1]).delivery.settle([Receipt('ws-001', 1, [1, 2, 3, 4, 5, 6])])",
        database,
    )
    clock.seconds += 2
    assert sampler.sample(OverviewQuery()).confirmed_per_second == 3
    clock.seconds += 2
    assert sampler.sample(OverviewQuery()).confirmed_per_second == 0


def test_reasons_are_counted_the_latest_first(db: Database, ledger) -> None:
    for number in range(3):
        ledger.connect("octavia", f"ws-{number}")
    ledger.disconnect("ws-0", "maintenance")
    ledger.disconnect("ws-1", "maintenance")
    ledger.disconnect("ws-2", "moved house")
    snapshot = Sampler(store_over(db)).sample(OverviewQuery())
    assert [(e.reason, e.count, e.last_ws_id) for e in snapshot.endings] == [
        ("moved house", 1, "ws-2"),
        ("maintenance", 2, "ws-1"),
    ]


def test_never_writes(db: Database, ledger) -> None:
    ledger.connect("octavia", "ws-001")
    db.execute("PRAGMA query_only = ON")
    assert Sampler(store_over(db)).sample(OverviewQuery()).active_connections == 1


def test_notices_that_the_file_was_replaced(db: Database, database) -> None:
    sampler = Sampler(store_over(db))
    database.rename(database.with_suffix(".old"))
    with pytest.raises(LedgerReplaced):
        sampler.sample(OverviewQuery())


@pytest.mark.parametrize(
    "view",
    [
        OverviewQuery(order="colour"),
        OverviewQuery(agent=" "),
        OverviewQuery(connections=-1),
        OverviewQuery(messages=-1),
    ],
)
def test_refuses_a_view_that_cannot_be_had(db: Database, view: OverviewQuery) -> None:
    with pytest.raises(InvalidInput):
        Sampler(store_over(db)).sample(view)
