"""Which connections are stale. The present is given, so that no test waits."""

from __future__ import annotations

import pytest

from tests.support import held
from ws_manager import Connection
from ws_manager.core.heartbeat import HeartbeatReport, check_heartbeats, sweep
from ws_manager.core.ledger import ledger_over
from ws_manager.models import Gateway, utc_now
from ws_manager.repository.engines import store_over
from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.sqlite.gateways import Gateways
from ws_manager.repository.sqlite.locks import gateway_lock, living_lock

NOON = "2026-11-22T12:00:00.000000+00:00"


def registered(db: Database, ws_id: str, last_heartbeat: str, gateway: str | None = None) -> None:
    """Register a connection whose last heartbeat is at a time of that day."""
    ledger_over(db).import_connection(Connection(ws_id, "octavia", {}, NOON, f"2026-11-22T{last_heartbeat}"))
    db.execute("UPDATE connections SET gateway = ? WHERE ws_id = ?", (gateway, ws_id))


class TestCheck:
    @pytest.mark.parametrize(
        ("last_heartbeat", "stale"),
        [
            ("11:59:29.999999", True),
            ("11:59:30.000000", False),
            ("11:59:59", False),
            ("12:00:01", False),
            ("12:00:02.000001", True),
            ("12:00:31", True),
            ("13:00:00", True),
        ],
    )
    def test_older_than_the_timeout(self, db: Database, last_heartbeat: str, stale: bool) -> None:
        registered(db, "ws-001", last_heartbeat)
        report = check_heartbeats(store_over(db), 30, NOON)
        assert report == (HeartbeatReport([], ["ws-001"]) if stale else HeartbeatReport(["ws-001"], []))

    def test_timeout_of_nothing(self, db: Database) -> None:
        registered(db, "ws-001", "11:59:59.999999")
        assert check_heartbeats(store_over(db), 0, NOON).timed_out == ["ws-001"]

    def test_is_recorded(self, db: Database) -> None:
        registered(db, "ws-001", "11:00:00")
        check_heartbeats(store_over(db), 30, NOON)
        gone = ledger_over(db).find("ws-001")
        assert gone is not None
        assert (gone.status, gone.disconnected_at, gone.close_reason) == (
            "disconnected",
            NOON,
            "heartbeat timeout",
        )
        assert db.rows("SELECT kind, ws_id, detail FROM events")[-1] == (
            "disconnected",
            "ws-001",
            "heartbeat timeout",
        )

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("heartbeat timeout", "heartbeat timeout"),
            ("the connection was lost", "the connection was lost, then heartbeat timeout"),
            (None, "heartbeat timeout"),
        ],
    )
    def test_tells_first_why_the_socket_was_closed(
        self, db: Database, before: str | None, after: str
    ) -> None:
        registered(db, "ws-001", "11:00:00")
        db.execute("UPDATE connections SET close_code = 4008, close_reason = ?", (before,))
        check_heartbeats(store_over(db), 30, NOON)
        gone = ledger_over(db).find("ws-001")
        assert gone is not None
        assert (gone.close_reason, gone.close_code) == (after, 4008)

    def test_of_the_disconnected(self, db: Database) -> None:
        registered(db, "ws-001", "11:00:00")
        ledger_over(db).disconnect("ws-001")
        assert check_heartbeats(store_over(db), 30, NOON) == HeartbeatReport([], [])

    def test_leaves_those_of_a_running_gateway_to_it(self, db: Database) -> None:
        registered(db, "ws-001", "11:00:00", gateway="g")
        registered(db, "ws-002", "11:00:00")
        with held(gateway_lock(db.path)):
            assert check_heartbeats(store_over(db), 30, NOON) == HeartbeatReport(["ws-001"], ["ws-002"])

    @pytest.mark.parametrize(
        ("seen_at", "spared"),
        [("11:59:59", True), ("11:59:21", True), ("11:59:19", False), ("12:00:05", False)],
        ids=[
            "just now",
            "one timeout and what it writes late",
            "longer ago",
            "before the clock was set back",
        ],
    )
    def test_those_of_a_gateway_that_ended_keep_one_time_out(
        self, db: Database, seen_at: str, spared: bool
    ) -> None:
        registered(db, "ws-001", "11:00:00", gateway="g")
        registered(db, "ws-002", "11:00:00")
        registered(db, "ws-003", "11:59:59", gateway="g")
        Gateways(db).insert(Gateway("g", 1, "http://x", NOON, f"2026-11-22T{seen_at}"))
        report = check_heartbeats(store_over(db), 30, NOON)
        if spared:
            assert report == HeartbeatReport(["ws-001", "ws-003"], ["ws-002"], ["ws-001"])
        else:
            assert report == HeartbeatReport(["ws-003"], ["ws-001", "ws-002"], [])

    def test_those_of_an_earlier_gateway_are_not_kept_by_a_later_one(self, db: Database) -> None:
        registered(db, "ws-001", "11:00:00", gateway="earlier")
        Gateways(db).insert(Gateway("earlier", 1, "http://x", NOON, "2026-11-22T11:00:00"))
        Gateways(db).insert(Gateway("later", 1, "http://x", NOON, NOON))
        assert check_heartbeats(store_over(db), 30, NOON).timed_out == ["ws-001"]

    def test_those_of_a_gateway_that_is_gone(self, db: Database) -> None:
        registered(db, "ws-001", "11:00:00", gateway="g")
        with held(gateway_lock(db.path)):
            pass
        assert check_heartbeats(store_over(db), 30, NOON).timed_out == ["ws-001"]

    def test_gateway_lock_is_private(self, db: Database) -> None:
        lock = gateway_lock(db.path)
        with held(lock):
            assert db.path.with_name("ledger.db.gateway.lock").stat().st_mode & 0o777 == 0o600

    def test_sign_of_life_that_comes_meanwhile_counts(
        self, db: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registered(db, "ws-001", "11:00:00", gateway="g")

        def beat(store: object) -> bool:
            ledger_over(db).heartbeat("ws-001")
            return False

        monkeypatch.setattr("ws_manager.core.heartbeat.may_run", beat)
        assert check_heartbeats(store_over(db), 30, utc_now()).timed_out == []

    def test_sign_of_life_that_comes_meanwhile_is_not_taken_for_one_in_the_future(
        self, db: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The check may wait for the write lock longer than a clock is ever ahead."""
        registered(db, "ws-001", "11:00:00", gateway="g")

        def beat(store: object) -> bool:
            db.execute("UPDATE connections SET last_heartbeat = '2026-11-22T12:00:25'")
            return False

        monkeypatch.setattr("ws_manager.core.heartbeat.may_run", beat)
        assert check_heartbeats(store_over(db), 30, NOON).timed_out == []

    def test_writes_nothing_where_nobody_is_stale(self, db: Database) -> None:
        registered(db, "ws-001", "11:59:59")
        statements: list[str] = []
        db.set_trace_callback(statements.append)
        check_heartbeats(store_over(db), 30, NOON)
        db.set_trace_callback(None)
        assert not any(statement.startswith("BEGIN") for statement in statements)


class TestSweep:
    def test_disconnects_those_that_did_not_come_back(self, db: Database) -> None:
        registered(db, "ws-001", "11:00:00", gateway="this one")
        registered(db, "ws-002", "11:00:00", gateway="the one before")
        assert sweep(store_over(db), "g", set(), 30, NOON, others=True) == ["ws-001", "ws-002"]
        assert ledger_over(db).count() == 0

    def test_spares_those_whose_socket_is_open(self, db: Database) -> None:
        registered(db, "ws-001", "11:00:00", gateway="g")
        assert sweep(store_over(db), "g", {"ws-001"}, 30, NOON, others=True) == []

    def test_spares_those_that_a_command_registered(self, db: Database) -> None:
        registered(db, "ws-001", "11:00:00")
        assert sweep(store_over(db), "g", set(), 30, NOON, others=True) == []

    def test_does_not_take_the_future_for_life(self, db: Database) -> None:
        registered(db, "ws-001", "13:00:00", gateway="g")
        assert sweep(store_over(db), "g", set(), 30, NOON, others=True) == ["ws-001"]

    def test_spares_the_living(self, db: Database) -> None:
        registered(db, "ws-001", "11:59:31", gateway="g")
        assert sweep(store_over(db), "g", set(), 30, NOON, others=True) == []

    @pytest.mark.parametrize(
        ("seen_at", "lost"), [("11:59:31", []), ("11:59:29", ["ws-001"]), ("12:00:05", ["ws-001"])]
    )
    def test_those_of_a_gateway_that_ended_keep_one_time_out(
        self, db: Database, seen_at: str, lost: list[str]
    ) -> None:
        registered(db, "ws-001", "11:00:00", gateway="ended")
        Gateways(db).insert(Gateway("ended", 1, "http://x", NOON, f"2026-11-22T{seen_at}"))
        assert sweep(store_over(db), "g", set(), 30, NOON, others=True) == lost

    @pytest.mark.parametrize(
        ("others", "lost"),
        [(True, ["ws-mine", "ws-dead"]), (False, ["ws-mine"])],
        ids=["for the gateways that have ended", "for this one alone"],
    )
    def test_leaves_those_of_others_that_live_to_them(
        self, db: Database, others: bool, lost: list[str]
    ) -> None:
        for name, gateway in (
            ("mine", "g"),
            ("held", "g"),
            ("dead", "dead"),
            ("living", "h"),
            ("command", None),
        ):
            registered(db, f"ws-{name}", "11:00:00", gateway=gateway)
        registered(db, "ws-heard", "11:59:59", gateway="g")
        with held(living_lock(db.path, "g")), held(living_lock(db.path, "h")):
            assert sweep(store_over(db), "g", {"ws-held"}, 30, NOON, others=others) == lost
