"""What only many writers show of connections, bars, keys and holds in PostgreSQL: real sessions, in threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Callable, NamedTuple, Optional, TypeVar

import psycopg
import pytest

from ws_manager.core import bars, registry, sending
from ws_manager.core.delivery import Delivery
from ws_manager.core.once import Key, once, once_each
from ws_manager.errors import LedgerError, NotAuthorised
from ws_manager.models import (
    ACTIVE,
    DISCONNECTED,
    Closure,
    Connection,
    Gateway,
    Receipt,
    Rejection,
    SignOfLife,
    utc_now,
)
from ws_manager.repository.engines import engine_of
from ws_manager.repository.postgres.completion import complete
from ws_manager.repository.records import LEASE_SECONDS
from ws_manager.repository.store import Store
from ws_manager.settings import Sizes

SECONDS = 30.0
Result = TypeVar("Result")


class Others(NamedTuple):
    """Other sessions, each in a thread of its own.

    Attributes:
        start: runs something with a store of its own.
        wait_until_waiting: waits until this number of them wait for a lock.
    """

    start: Callable[[Callable[[Store], Any]], Future[Any]]
    wait_until_waiting: Callable[[int], None]


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    store = engine_of(postgres_url).open_to_write(postgres_url)
    yield store
    store.close()


@pytest.fixture
def others(postgres_url: str, store: Store) -> Iterator[Others]:
    def run(work: Callable[[Store], Any]) -> Any:
        own = engine_of(postgres_url).open_to_write(postgres_url)
        try:
            return work(own)
        finally:
            own.close()

    def wait_until_waiting(number: int) -> None:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            row = watcher.execute(
                "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND pid IN"
                " (SELECT pid FROM pg_stat_activity WHERE datname = current_database())"
            ).fetchone()
            if row is not None and row[0] == number:
                return
        pytest.fail(f"{number} sessions should wait for a lock")

    with psycopg.connect(postgres_url, autocommit=True) as watcher, ThreadPoolExecutor(16) as threads:
        yield Others(lambda work: threads.submit(run, work), wait_until_waiting)


def connect(store: Store, ws_id: str, agent: str = "octavia", token: Optional[str] = None) -> Connection:
    """Register as a gateway does, with a look for bars."""
    return registry.connect(store, agent, ws_id, None, gateway="g-1", limit=1000, token=token)


def resume(store: Store, ws_id: str, agent: str = "octavia") -> Connection:
    """Register as `Delivery.open_socket` does, which finds the connection before it looks for bars."""
    with store.atomic():
        store.connections.find(ws_id)
        return connect(store, ws_id, agent)


def find(store: Store, ws_id: str) -> Connection:
    found = store.connections.find(ws_id)
    assert found is not None
    return found


def together(others: Others, works: Sequence[Callable[[Store], Result]]) -> list[Result]:
    """Run everything at once, and return the results."""
    gate = threading.Barrier(len(works))

    def at_the_gate(store: Store, work: Callable[[Store], Result]) -> Result:
        gate.wait(SECONDS)
        return work(store)

    started = [others.start(lambda store, work=work: at_the_gate(store, work)) for work in works]  # type: ignore[misc]
    return [each.result(SECONDS) for each in started]


class TestRegistering:
    def test_of_one_new_ws_id_at_once_gives_epochs_1_and_2(self, store: Store, others: Others) -> None:
        with store.atomic():
            assert connect(store, "ws-new").epoch == 1
            second = others.start(lambda own: connect(own, "ws-new").epoch)
            others.wait_until_waiting(1)
        assert second.result(SECONDS) == 2
        assert find(store, "ws-new").epoch == 2

    def test_many_at_once_lose_no_epoch(self, store: Store, others: Others) -> None:
        epochs = together(others, [lambda own: connect(own, "ws-new").epoch] * 8)
        assert sorted(epochs) == list(range(1, 9))
        assert store.connections.count_ever() == 1

    def test_that_there_is_none_stays_true(self, store: Store, others: Others) -> None:
        with store.atomic():
            assert store.connections.find("ws-new") is None
            other = others.start(lambda own: connect(own, "ws-new", "cipher"))
            others.wait_until_waiting(1)
            assert store.connections.find("ws-new") is None
            connect(store, "ws-new", "octavia")
        with pytest.raises(Exception, match="belongs to another agent"):
            other.result(SECONDS)

    def test_one_that_was_rolled_back_lets_the_next_begin(self, store: Store, others: Others) -> None:
        def fail() -> None:
            with store.atomic():
                connect(store, "ws-new")
                started.append(others.start(lambda own: connect(own, "ws-new").epoch))
                others.wait_until_waiting(1)
                raise ZeroDivisionError

        started: list[Future[int]] = []
        with pytest.raises(ZeroDivisionError):
            fail()
        assert started[0].result(SECONDS) == 1


class TestWhatWasReadStaysTrue:
    """Until the block ends. Each case reads, and names what another session would change meanwhile."""

    @pytest.mark.parametrize(
        "read",
        [
            lambda store: store.connections.find("ws-001"),
            lambda store: store.connections.is_active("ws-001"),
            lambda store: store.connections.has_epoch("ws-001", 1),
            lambda store: store.connections.active(),
            lambda store: store.connections.active_among(["ws-001", "ws-none"]),
            lambda store: store.connections.recipients(),
            lambda store: store.connections.recipients("octavia", ["ws-001"]),
        ],
        ids=["find", "is_active", "has_epoch", "active", "active_among", "recipients", "recipients_among"],
    )
    @pytest.mark.parametrize(
        "change",
        [
            lambda store: registry.disconnect(store, ["ws-001"], "enough"),
            lambda store: connect(store, "ws-001"),
            lambda store: bars.bar(store, "octavia"),
        ],
        ids=["disconnect", "connect", "bar"],
    )
    def test_against(
        self, store: Store, others: Others, read: Callable[[Store], Any], change: Callable[[Store], Any]
    ) -> None:
        connect(store, "ws-001")
        with store.atomic():
            before = read(store)
            assert before
            other = others.start(change)
            others.wait_until_waiting(1)
            assert read(store) == before
        other.result(SECONDS)
        assert find(store, "ws-001") != before
        assert (find(store, "ws-001").status, find(store, "ws-001").epoch) != (ACTIVE, 1)

    def test_what_has_just_been_changed_is_read_as_it_is_then(self, store: Store, others: Others) -> None:
        connect(store, "ws-001")

        def look(own: Store) -> tuple[Any, ...]:
            with own.atomic():
                return (
                    own.connections.recipients().ws_ids,
                    own.connections.is_active("ws-001"),
                    own.connections.has_epoch("ws-001", 2),
                    find(own, "ws-001").epoch,
                )

        with store.atomic():
            connect(store, "ws-001")
            store.connections.disconnect("ws-001", utc_now(), "enough")
            seen = others.start(look)
            others.wait_until_waiting(1)
        assert seen.result(SECONDS) == ([], False, True, 2)

    def test_a_snapshot_locks_nothing_and_stays_as_it_is(self, store: Store, others: Others) -> None:
        connect(store, "ws-001")
        with store.snapshot():
            assert find(store, "ws-001").epoch == 1
            assert store.connections.recipients().ws_ids == ["ws-001"]
            assert store.connections.find("ws-none") is None
            assert not store.bars.is_barred("octavia")
            assert store.keys.find("octavia", "send", ["k"], "2026") == {}
            assert others.start(lambda own: connect(own, "ws-001").epoch).result(SECONDS) == 2
            assert find(store, "ws-001").epoch == 1
        with store.atomic():
            assert find(store, "ws-001").epoch == 2
            other = others.start(lambda own: connect(own, "ws-001").epoch)
            others.wait_until_waiting(1)
        assert other.result(SECONDS) == 3

    def test_locks_are_taken_in_the_order_of_ids(self, store: Store, others: Others) -> None:
        # Against the order of names, of agents and of arrival: in any of these, some would wait for each other.
        ws_ids = [f"ws-{number:03}" for number in range(40, 0, -1)]
        for ws_id in ws_ids:
            connect(store, ws_id)

        def write(own: Store, turn: int) -> None:
            names = ws_ids if turn % 2 else ws_ids[::-1]
            for _ in range(15):
                with own.atomic():
                    if turn < 2:
                        assert len(own.connections.recipients("octavia", names).ws_ids) == 40
                    elif turn < 4:
                        assert len(own.connections.active_among(names)) == 40
                    else:
                        signs = [SignOfLife(ws_id, 1, utc_now(), None, logged=False) for ws_id in names]
                        own.connections.heard(signs, "2099")
                    for ws_id in names:
                        own.connections.count_message(ws_id)

        together(others, [lambda own, turn=turn: write(own, turn) for turn in range(6)])  # type: ignore[misc]
        assert {each.message_count for each in store.connections.active()} == {6 * 15}

    def test_recipients_come_in_the_order_of_names(self, store: Store) -> None:
        ws_ids = ["ws-b", "ws-Ä", "ws-a", "ws-B", "ws-\U0001f600", "ws-\uffee"]
        for ws_id in ws_ids:
            connect(store, ws_id)
        with store.atomic():
            assert store.connections.recipients().ws_ids == sorted(ws_ids, key=str.encode)


class TestFencing:
    """The epoch alone decides: no gateway registers a ws_id without the next one."""

    @staticmethod
    def send(store: Store) -> int:
        sent = sending.send(store, "ws-001", 1, "data", None, traceparent=None, limit=100, admit=None)
        assert sent is not None
        return sent.db_id or 0

    def test_a_receipt_of_the_gateway_before_marks_nothing(self, store: Store) -> None:
        connect(store, "ws-001")
        seq = self.send(store)
        assert connect(store, "ws-001").epoch == 2
        before = Delivery(store, Sizes())
        assert before.settle([Receipt("ws-001", 1, [seq])]) == {"ws-001"}
        assert before.settle([Rejection("ws-001", 1, seq, "no")]) == {"ws-001"}
        before.settle([Closure("ws-001", 1, 1000, "done", ended=True)])
        assert [each.seq for each in store.messages.pending("ws-001", 0, 10)] == [seq]
        assert (find(store, "ws-001").status, find(store, "ws-001").confirmed_seq) == (ACTIVE, 0)
        assert before.settle([Receipt("ws-001", 2, [seq])]) == set()
        assert store.messages.pending("ws-001", 0, 10) == []

    def test_a_receipt_that_waits_for_the_take_over_is_void(self, store: Store, others: Others) -> None:
        connect(store, "ws-001")
        seq = self.send(store)
        with store.atomic():
            connect(store, "ws-001")
            late = others.start(lambda own: own.receipts.settle([Receipt("ws-001", 1, [seq])], utc_now()))
            others.wait_until_waiting(1)
        assert late.result(SECONDS) == {("ws-001", 1)}
        assert [each.seq for each in store.messages.pending("ws-001", 0, 10)] == [seq]


class TestBars:
    def test_a_registration_that_has_seen_no_bar_is_ended_by_it(self, store: Store, others: Others) -> None:
        with store.atomic():
            connect(store, "ws-new")
            barred = others.start(lambda own: bars.bar(own, "octavia"))
            others.wait_until_waiting(1)
        assert barred.result(SECONDS) == (True, ["ws-new"])
        assert find(store, "ws-new").status == DISCONNECTED

    def test_one_that_comes_while_it_is_written_is_refused(self, store: Store, others: Others) -> None:
        with store.atomic():
            bars.bar(store, "octavia")
            late = others.start(lambda own: connect(own, "ws-new"))
            others.wait_until_waiting(1)
        with pytest.raises(NotAuthorised):
            late.result(SECONDS)
        assert store.connections.find("ws-new") is None

    def test_a_token_that_is_revoked_meanwhile(self, store: Store, others: Others) -> None:
        with store.atomic():
            connect(store, "ws-new", token="key")
            revoked = others.start(lambda own: bars.revoke(own, "key"))
            others.wait_until_waiting(1)
        assert revoked.result(SECONDS) == (True, ["ws-new"])

    def test_it_may_be_lifted_while_somebody_comes(self, store: Store, others: Others) -> None:
        bars.bar(store, "octavia")
        with store.atomic():
            assert bars.unbar(store, "octavia")
            late = others.start(lambda own: connect(own, "ws-new").epoch)
            others.wait_until_waiting(1)
        assert late.result(SECONDS) == 1

    def test_resuming_sockets_and_bars_at_once_wait_for_nobody_forever(
        self, store: Store, others: Others
    ) -> None:
        ws_ids = [f"ws-{number}" for number in range(4)]
        for ws_id in ws_ids:
            connect(store, ws_id)
        ended = threading.Event()

        def come_back(own: Store, ws_id: str) -> None:
            while not ended.is_set():
                try:
                    resume(own, ws_id)
                except NotAuthorised:
                    continue

        def bar(own: Store) -> None:
            try:
                for _ in range(25):
                    bars.bar(own, "octavia")
                    with own.snapshot():
                        assert own.bars.agents()[0][0] == "octavia"
                        assert own.connections.recipients("octavia").ws_ids == []
                    bars.unbar(own, "octavia")
                bars.bar(own, "octavia")
            finally:
                ended.set()

        works: list[Callable[[Store], None]] = [partial(come_back, ws_id=ws_id) for ws_id in ws_ids]
        together(others, [bar, *works])
        assert store.connections.count_active() == 0


class TestKeys:
    KEY = Key("octavia", "send", "key-1", "print")

    def test_ten_callers_at_once_do_the_work_once(self, store: Store, others: Others) -> None:
        done: list[int] = []

        def work() -> str:
            done.append(1)
            return f"result {len(done)}"

        results = together(others, [lambda own: once(own, self.KEY, work)] * 10)
        assert sorted(results) == [("result 1", False)] + [("result 1", True)] * 9
        assert len(done) == 1

    def test_a_second_caller_waits_for_the_first(self, store: Store, others: Others) -> None:
        def work() -> str:
            started.append(others.start(lambda own: once(own, self.KEY, lambda: "second")))
            others.wait_until_waiting(1)
            return "first"

        started: list[Future[tuple[str, bool]]] = []
        assert once(store, self.KEY, work) == ("first", False)
        assert started[0].result(SECONDS) == ("first", True)

    def test_after_a_failure_the_next_does_it(self, store: Store, others: Others) -> None:
        def fail() -> str:
            started.append(others.start(lambda own: once(own, self.KEY, lambda: "second")))
            others.wait_until_waiting(1)
            raise ZeroDivisionError

        started: list[Future[tuple[str, bool]]] = []
        with pytest.raises(ZeroDivisionError):
            once(store, self.KEY, fail)
        assert started[0].result(SECONDS) == ("second", False)

    def test_others_need_not_wait(self, store: Store, others: Others) -> None:
        def work() -> str:
            keys = [self.KEY._replace(name="key-2"), self.KEY._replace(subject="cipher")]
            for key in keys:
                assert others.start(lambda own, key=key: once(own, key, lambda: "own")).result(SECONDS) == (  # type: ignore[misc]
                    "own",
                    False,
                )
            return "first"

        assert once(store, self.KEY, work) == ("first", False)

    def test_many_keys_in_any_order_wait_for_nobody_forever(self, store: Store, others: Others) -> None:
        keys = [self.KEY._replace(name=f"key-{number}") for number in range(60)]
        done: list[int] = []

        def work(left: list[int]) -> list[Optional[str]]:
            done.extend(left)
            return ["done"] * len(left)

        together(
            others,
            [
                lambda own, order=order: once_each(own, order, work)  # type: ignore[misc]
                for order in (keys, keys[::-1], keys[30:] + keys[:30], keys[::-2], keys[::3], keys[50:])
            ],
        )
        assert len(done) == 60


class TestHolds:
    def test_who_looks_before_he_takes_it_is_alone(self, store: Store, others: Others) -> None:
        def look(own: Store) -> Optional[tuple[str, str]]:
            with own.atomic():
                return own.holds.find("ws-001")

        with store.atomic():
            assert store.holds.find("ws-001") is None
            other = others.start(look)
            others.wait_until_waiting(1)
            store.holds.put("ws-001", "first", "2026-01-02")
        assert other.result(SECONDS) == ("first", "2026-01-02")

    def test_what_others_renew_is_not_waited_for(self, store: Store, others: Others) -> None:
        def delete(own: Store) -> None:
            with own.atomic():
                own.holds.delete_before("2026-01-02")

        with store.atomic():
            store.holds.put("ws-001", "old", "2026-01-01")
            store.holds.put("ws-002", "old", "2026-01-01")
        with store.atomic():
            store.holds.put("ws-001", "old", "2026-01-03")
            others.start(delete).result(SECONDS)
        assert (store.holds.find("ws-001"), store.holds.find("ws-002")) == (("old", "2026-01-03"), None)


class TestCountEver:
    def test_rolled_back_and_deleted_ones(self, store: Store, postgres_url: str) -> None:
        def fail() -> None:
            with store.atomic():
                connect(store, "ws-never")
                raise ZeroDivisionError

        assert store.connections.count_ever() == 0
        connect(store, "ws-001")
        connect(store, "ws-001")
        with pytest.raises(ZeroDivisionError):
            fail()
        connect(store, "ws-002")
        connect(store, "ws-003")
        registry.disconnect(store, ["ws-001", "ws-003"], "enough")
        assert store.maintenance.delete_over("connections", "2099") == 2
        assert store.connections.count_ever() == 3
        with psycopg.connect(postgres_url) as session:
            session.execute("DELETE FROM ws_manager.connections")
        assert store.connections.count_ever() == 3
        connect(store, "ws-003")
        assert store.connections.count_ever() == 4


class TestGateways:
    def test_live_by_their_lease(self, store: Store, postgres_url: str) -> None:
        now = utc_now()
        first, second = Gateway("g-1", 1, "http://1", now, now), Gateway("g-2", 2, "http://2", now, now)
        holds = [store.hold_gateway(gateway.id) for gateway in (first, second)]
        for gateway in (first, second):
            with store.atomic():
                store.gateways.insert(gateway)
        assert store.living_gateways() == {"g-1", "g-2"}
        assert store.gateways.latest() == second
        with psycopg.connect(postgres_url, autocommit=True) as session:
            session.execute("UPDATE ws_manager.leases SET until = clock_timestamp() WHERE gateway = 'g-1'")
            assert store.living_gateways() == {"g-2"}
            # What had run out is begun again, and says so.
            assert [hold.lease is not None and hold.lease.renew() for hold in holds] == [False, True]
            assert store.living_gateways() == {"g-1", "g-2"}
            row = session.execute("SELECT max(until - clock_timestamp()) FROM ws_manager.leases").fetchone()
        assert row is not None
        assert LEASE_SECONDS - SECONDS < row[0].total_seconds() <= LEASE_SECONDS
        for hold in holds:
            hold.release()
        assert store.living_gateways() == frozenset()


class TestCompletion:
    def test_names_by_their_beginnings(self, store: Store, postgres_url: str) -> None:
        for ws_id, agent in (("ws-1", "octavia"), ("ws-2", "octavia"), ("x%_", "oct_")):
            connect(store, ws_id, agent)
        registry.disconnect(store, ["ws-1"], "enough")
        for kind, prefix, names in (
            ("agent", "", ["oct_", "octavia"]),
            ("agent", "octa", ["octavia"]),
            ("ws_id", "ws", ["ws-1", "ws-2"]),
            ("active ws_id", "", ["ws-2", "x%_"]),
            ("metadata", "", ["{}"]),
            ("msg_id", "", []),
            ("broadcast_id", "b", []),
        ):
            assert complete(postgres_url, kind, prefix) == names

    def test_trouble_gives_nothing(self, store: Store, postgres_url: str) -> None:
        base, _, _ = postgres_url.rpartition("/")
        for url in (
            f"{base}/unknown",
            "postgresql://nobody@127.0.0.1:1/none",
            "postgresql://[",
            f"{base}/postgres",
        ):
            assert complete(url, "ws_id", "") == []
        assert complete(postgres_url, "ws_id", "\0") == []
        assert complete(postgres_url, "ws_id", "\udc80") == []

    def test_names_that_end_with_signs_of_a_pattern(self, store: Store) -> None:
        for ws_id in ("a%", "b_", "c%"):
            connect(store, ws_id)
        assert store.connections.names_ending("%", 10) == ["a%", "c%"]
        assert store.connections.names("a", "c", 10) == ["a%", "b_"]


def test_a_lost_session_inside_a_snapshot_does_not_leave_it_reading_only(
    store: Store, others: Others, postgres_url: str
) -> None:
    connect(store, "ws-001")

    def lose() -> None:
        with store.snapshot():
            find(store, "ws-001")
            with psycopg.connect(postgres_url, autocommit=True) as session:
                session.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid() AND state = 'idle in transaction'"
                )
            find(store, "ws-001")

    with pytest.raises(LedgerError):
        lose()
    with store.atomic():
        assert find(store, "ws-001").epoch == 1
        other = others.start(lambda own: connect(own, "ws-001").epoch)
        others.wait_until_waiting(1)
    assert other.result(SECONDS) == 2
