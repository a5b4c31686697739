"""The receiving side: what is pending, what settles it, and who may hold it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import db_of, ledger_of, running
from ws_manager import Conflict, NotFound, get_db, get_message_history
from ws_manager.core.delivery import Delivery
from ws_manager.core.ledger import Ledger, ledger_over
from ws_manager.models import Closure, Connection, Gateway, Receipt, Rejection, SignOfLife, utc_now
from ws_manager.repository.records import Position
from ws_manager.repository.sqlite.database import Database
from ws_manager.strict_json import Json

LATER = "2099-01-01T00:00:00.000000+00:00"


@pytest.fixture
def ledger(db: Database) -> Ledger:
    """A ledger where a socket of gateway `g` holds ws-001, and a command registered ws-002."""
    ledger = ledger_over(db)
    ledger.delivery.open_socket("octavia", "ws-001", None, "g")
    ledger.connect("cipher", "ws-002")
    return ledger


@pytest.fixture
def delivery(ledger: Ledger) -> Delivery:
    return ledger.delivery


def found(ledger: Ledger, ws_id: str) -> Connection:
    """A connection that must be there."""
    connection = ledger.find(ws_id)
    assert connection is not None
    return connection


def states(db: Database) -> list[str]:
    """What became of each message."""
    return [
        "set aside" if rejected else "confirmed" if delivered else "pending"
        for delivered, rejected in db.rows("SELECT delivered, rejected_at FROM messages ORDER BY id")
    ]


def events(db: Database) -> list[tuple[object, ...]]:
    """Kind, ws_id and detail of every event after the registrations."""
    return db.rows("SELECT kind, ws_id, detail FROM events WHERE id > 2 ORDER BY id")


class TestPending:
    def test_of_one(self, delivery: Delivery, ledger: Ledger) -> None:
        ledger.broadcast("a")
        ledger.send("ws-001", "b")
        rows = delivery.pending("ws-001", 0, 10)
        assert [(row.seq, row.content) for row in rows] == [(1, '"a"'), (3, '"b"')]

    def test_above_an_id(self, delivery: Delivery, ledger: Ledger) -> None:
        ledger.broadcast("a")
        ledger.send("ws-001", "b")
        assert [row.seq for row in delivery.pending("ws-001", 1, 10)] == [3]

    def test_of_everybody(self, delivery: Delivery, ledger: Ledger) -> None:
        before, _ = delivery.positions("g")
        ledger.broadcast("a")
        ledger.send("ws-001", "b")
        rows, reached, _whole = delivery.after(before, 10)
        assert [(row.recipient_id, row.content) for row in rows] == [
            ("ws-001", '"a"'),
            ("ws-002", '"a"'),
            ("ws-001", '"b"'),
        ]
        assert delivery.after(reached, 10) == ([], reached, True)

    def test_limit(self, delivery: Delivery, ledger: Ledger) -> None:
        for number in range(5):
            ledger.send("ws-001", number)
        assert [row.seq for row in delivery.pending("ws-001", 0, 2)] == [1, 2]
        assert len(delivery.after(Position(0), 3).messages) == 3

    def test_is_read_in_pieces_of_a_mebibyte(self, delivery: Delivery, ledger: Ledger) -> None:
        for _ in range(10):
            ledger.send("ws-001", "x" * 250_000)
        assert len(delivery.pending("ws-001", 0, 1000)) == 5
        assert len(delivery.after(Position(0), 1000).messages) == 5

    def test_without_the_confirmed_and_the_set_aside(self, delivery: Delivery, ledger: Ledger) -> None:
        for number in range(3):
            ledger.send("ws-001", number)
        delivery.settle([Receipt("ws-001", 1, [1]), Rejection("ws-001", 1, 2, "no")])
        assert [row.seq for row in delivery.pending("ws-001", 0, 10)] == [3]

    def test_survives_a_disconnection(self, delivery: Delivery, ledger: Ledger) -> None:
        ledger.send("ws-001", 1)
        ledger.disconnect("ws-001")
        assert [row.seq for row in delivery.pending("ws-001", 0, 10)] == [1]

    def test_events_behind_a_position(self, delivery: Delivery, ledger: Ledger) -> None:
        _, before = delivery.positions("g")
        ledger.disconnect("ws-002")
        found, reached = delivery.events_after(before)
        assert [(event.ws_id, event.kind) for event in found] == [("ws-002", "disconnected")]
        assert delivery.events_after(reached) == ([], reached)


class TestReceipts:
    def test_confirm_what_they_name(self, delivery: Delivery, ledger: Ledger) -> None:
        for number in range(4):
            ledger.send("ws-001", number)
        assert delivery.settle([Receipt("ws-001", 1, [2, 4])]) == set()
        assert states(db_of(delivery)) == ["pending", "confirmed", "pending", "confirmed"]

    def test_confirm_nothing_that_was_set_aside(self, delivery: Delivery, ledger: Ledger) -> None:
        for number in range(3):
            ledger.send("ws-001", number)
        delivery.settle([Rejection("ws-001", 1, 2, "no"), Receipt("ws-001", 1, [1, 3])])
        delivery.settle([Receipt("ws-001", 1, [2])])
        assert states(db_of(delivery)) == ["confirmed", "set aside", "confirmed"]

    def test_raise_the_highest_confirmed_id_and_never_lower_it(
        self, delivery: Delivery, ledger: Ledger
    ) -> None:
        ledger.send("ws-001", 1)
        ledger.send("ws-001", 2)
        delivery.settle([Receipt("ws-001", 1, [1, 2]), Receipt("ws-001", 1, [1])])
        assert found(ledger, "ws-001").confirmed_seq == 2

    def test_twice_keeps_the_first_time(self, delivery: Delivery, ledger: Ledger) -> None:
        ledger.send("ws-001", 1)
        delivery.settle([Receipt("ws-001", 1, [1])])
        first = get_message_history(ledger)[0]["confirmed_at"]
        delivery.settle([Receipt("ws-001", 1, [1])])
        assert get_message_history(ledger)[0]["confirmed_at"] == first

    @pytest.mark.parametrize("epoch", [0, 1, 3])
    def test_of_another_epoch_are_void(self, delivery: Delivery, ledger: Ledger, epoch: int) -> None:
        ledger.send("ws-001", 1)
        delivery.open_socket("octavia", "ws-001", None, "g")
        assert delivery.settle([Receipt("ws-001", epoch, [1])]) == {"ws-001"}
        assert states(db_of(delivery)) == ["pending"]
        assert found(ledger, "ws-001").confirmed_seq == 0

    def test_void_one_does_not_hinder_the_rest(self, delivery: Delivery, ledger: Ledger) -> None:
        ledger.broadcast(1)
        assert delivery.settle([Receipt("ws-001", 9, [1]), Receipt("ws-002", 1, [2])]) == {"ws-001"}
        assert states(db_of(delivery)) == ["pending", "confirmed"]

    def test_count_after_a_disconnection(self, delivery: Delivery, ledger: Ledger) -> None:
        ledger.send("ws-001", 1)
        ledger.disconnect("ws-001")
        assert delivery.settle([Receipt("ws-001", 1, [1])]) == set()
        assert states(db_of(delivery)) == ["confirmed"]

    def test_are_one_transaction(self, delivery: Delivery, ledger: Ledger) -> None:
        ledger.broadcast(1)
        db_of(delivery).execute(
            "CREATE TRIGGER no BEFORE UPDATE ON messages WHEN NEW.recipient_id = 'ws-002'"
            " BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        with pytest.raises(Exception, match="no"):
            delivery.settle([Receipt("ws-001", 1, [1]), Receipt("ws-002", 1, [2])])
        assert states(db_of(delivery)) == ["pending", "pending"]


class TestRejections:
    def test_set_one_message_aside(self, delivery: Delivery, ledger: Ledger) -> None:
        ledger.send("ws-001", 1)
        ledger.send("ws-001", 2)
        delivery.settle([Rejection("ws-001", 1, 1, "cannot take it")])
        assert states(db_of(delivery)) == ["set aside", "pending"]
        assert get_message_history(ledger)[1]["reject_reason"] == "cannot take it"
        assert events(db_of(delivery)) == [("set_aside", "ws-001", "cannot take it")]

    def test_of_what_was_confirmed_change_nothing(self, delivery: Delivery, ledger: Ledger) -> None:
        ledger.send("ws-001", 1)
        delivery.settle([Receipt("ws-001", 1, [1]), Rejection("ws-001", 1, 1, "too late")])
        assert states(db_of(delivery)) == ["confirmed"]
        assert events(db_of(delivery)) == []

    def test_of_another_epoch_are_void(self, delivery: Delivery, ledger: Ledger) -> None:
        ledger.send("ws-001", 1)
        assert delivery.settle([Rejection("ws-001", 2, 1, "no")]) == {"ws-001"}
        assert states(db_of(delivery)) == ["pending"]

    def test_of_an_unknown_one_are_void(self, delivery: Delivery) -> None:
        assert delivery.settle([Rejection("ws-999", 1, 1, "no")]) == {"ws-999"}


class TestClosures:
    def test_by_us_leave_the_connection_active(self, delivery: Delivery, ledger: Ledger) -> None:
        delivery.settle([Closure("ws-001", 1, 1012, "restarting", False)])
        connection = found(ledger, "ws-001")
        assert (connection.status, connection.close_code, connection.close_reason) == (
            "active",
            1012,
            "restarting",
        )
        assert events(db_of(delivery)) == [("closed", "ws-001", "1012 restarting")]

    def test_by_the_peer_disconnect(self, delivery: Delivery, ledger: Ledger) -> None:
        delivery.settle([Closure("ws-001", 1, 1000, "done", True)])
        connection = found(ledger, "ws-001")
        assert (connection.status, connection.close_code) == ("disconnected", 1000)
        assert [kind for kind, *_ in events(db_of(delivery))] == ["closed", "disconnected"]

    def test_of_a_replaced_socket_change_nothing(self, delivery: Delivery, ledger: Ledger) -> None:
        delivery.open_socket("octavia", "ws-001", None, "g")
        assert delivery.settle([Closure("ws-001", 1, 4009, "replaced", True)]) == set()
        connection = found(ledger, "ws-001")
        assert (connection.status, connection.close_code) == ("active", None)

    def test_after_a_disconnection_keep_its_reason(self, delivery: Delivery, ledger: Ledger) -> None:
        ledger.disconnect("ws-001", "disconnected by an operator")
        delivery.settle([Closure("ws-001", 1, 1000, "done", True)])
        assert [kind for kind, *_ in events(db_of(delivery))] == ["disconnected", "closed"]

    def test_resume_clears_the_close_code(self, delivery: Delivery) -> None:
        delivery.settle([Closure("ws-001", 1, 1006, "", False)])
        connection, *_ = delivery.open_socket("octavia", "ws-001", None, "g")
        assert (connection.close_code, connection.close_reason) == (None, None)


class TestSignsOfLife:
    def test_are_written(self, delivery: Delivery, ledger: Ledger) -> None:
        delivery.settle([SignOfLife("ws-001", 1, LATER, 12, True)])
        assert found(ledger, "ws-001").last_heartbeat == LATER
        assert db_of(delivery).rows("SELECT ws_id, ts, latency_ms FROM heartbeat_log") == [
            ("ws-001", LATER, 12)
        ]

    def test_are_logged_only_where_asked(self, delivery: Delivery) -> None:
        delivery.settle([SignOfLife("ws-001", 1, LATER, 12, False)])
        assert db_of(delivery).rows("SELECT * FROM heartbeat_log") == []

    @pytest.mark.parametrize(
        "sign",
        [SignOfLife("ws-001", 2, LATER, None, True), SignOfLife("ws-001", 1, "2020-01-01", None, True)],
        ids=["another epoch", "older"],
    )
    def test_that_change_nothing(self, delivery: Delivery, ledger: Ledger, sign: SignOfLife) -> None:
        before = found(ledger, "ws-001")
        delivery.settle([sign])
        assert found(ledger, "ws-001") == before
        assert db_of(delivery).rows("SELECT * FROM heartbeat_log") == []

    def test_of_several_the_latest_counts(self, delivery: Delivery, ledger: Ledger) -> None:
        first, last = utc_now(), utc_now()
        delivery.settle([SignOfLife("ws-001", 1, last, 12, True), SignOfLife("ws-001", 1, first, 11, False)])
        assert found(ledger, "ws-001").last_heartbeat == last
        assert db_of(delivery).rows("SELECT ts, latency_ms FROM heartbeat_log") == [(last, 12)]

    def test_overwrite_one_that_a_clock_left_in_the_future(self, delivery: Delivery, ledger: Ledger) -> None:
        db_of(delivery).execute("UPDATE connections SET last_heartbeat = ?", (LATER,))
        before = utc_now()
        delivery.settle([SignOfLife("ws-001", 1, before, None, True)])
        assert found(ledger, "ws-001").last_heartbeat == before
        assert db_of(delivery).rows("SELECT ts FROM heartbeat_log") == [(before,)]

    def test_of_a_disconnected_one(self, delivery: Delivery, ledger: Ledger) -> None:
        ledger.disconnect("ws-001")
        delivery.settle([SignOfLife("ws-001", 1, LATER, None, True)])
        assert found(ledger, "ws-001").last_heartbeat != LATER


class TestSockets:
    def test_open_says_what_waits(self, delivery: Delivery, ledger: Ledger) -> None:
        ledger.broadcast(1)
        ledger.send("ws-001", 2)
        connection, pending, *_ = delivery.open_socket("octavia", "ws-001", Json('{"a":1}'), "g")
        assert (connection.epoch, connection.metadata, pending) == (2, {"a": 1}, 2)

    def test_refuse_another_agents_ws_id(self, delivery: Delivery) -> None:
        with pytest.raises(Conflict):
            delivery.open_socket("cipher", "ws-001", None, "g")

    def test_sweep(self, delivery: Delivery) -> None:
        db_of(delivery).execute("UPDATE connections SET last_heartbeat = '2020-01-01T00:00:00.000000+00:00'")
        assert delivery.sweep("g", {"ws-009"}, 30, others=True) == ["ws-001"]

    def test_void_registration_is_explained(self, delivery: Delivery, ledger: Ledger) -> None:
        assert delivery.why_void("ws-001", 1, "octavia") is None
        delivery.open_socket("octavia", "ws-001", None, "g")
        assert delivery.why_void("ws-001", 1, "octavia") == "replaced"
        ledger.connect("octavia", "ws-001")
        assert delivery.why_void("ws-001", 2, "octavia") == "registered"
        ledger.connect("cipher", "ws-001")
        assert delivery.why_void("ws-001", 3, "octavia") == "moved"
        ledger.disconnect("ws-001")
        assert delivery.why_void("ws-001", 4, "cipher") == "disconnected"
        assert delivery.why_void("ws-999", 1, "cipher") == "disconnected"


class TestHolding:
    @pytest.fixture
    def elsewhere(self, database: Path, delivery: Delivery) -> Iterator[Delivery]:
        """Delivery on another connection to the same file."""
        db = get_db(database)
        yield ledger_over(db).delivery
        db.close()

    def run_gateway(self, delivery: Delivery, gateway_id: str) -> None:
        """Record a gateway as running."""
        now = utc_now()
        delivery.record_gateway(Gateway(gateway_id, 1, "http://127.0.0.1:1", now, now)).release()

    def test_gives_the_connection(self, delivery: Delivery) -> None:
        with delivery.holding("ws-002") as connection:
            assert connection.agent == "cipher"

    def test_of_nobody(self, delivery: Delivery) -> None:
        with pytest.raises(NotFound, match="no connection ws-999"), delivery.holding("ws-999"):
            pass

    def test_of_a_disconnected_one(self, delivery: Delivery, ledger: Ledger) -> None:
        ledger.disconnect("ws-002")
        with delivery.holding("ws-002") as connection:
            assert connection.status == "disconnected"

    def test_excludes_another(self, delivery: Delivery, elsewhere: Delivery) -> None:
        with (
            delivery.holding("ws-002"),
            pytest.raises(Conflict, match="another receiver"),
            elsewhere.holding("ws-002"),
        ):
            pass

    def test_of_different_ones(self, delivery: Delivery, elsewhere: Delivery, ledger: Ledger) -> None:
        ledger.connect("cipher", "ws-003")
        with delivery.holding("ws-002"), elsewhere.holding("ws-003"):
            pass

    def test_ends_with_the_block(self, delivery: Delivery, elsewhere: Delivery) -> None:
        with pytest.raises(KeyError), delivery.holding("ws-002"):
            raise KeyError
        with elsewhere.holding("ws-002"):
            pass

    def test_conflicts_with_a_socket_of_the_running_gateway(self, delivery: Delivery) -> None:
        self.run_gateway(delivery, "g")
        with (
            running(db_of(delivery).path, "g"),
            pytest.raises(Conflict, match="a socket holds ws-001"),
            delivery.holding("ws-001"),
        ):
            pass

    def test_of_one_whose_gateway_is_gone(self, delivery: Delivery) -> None:
        self.run_gateway(delivery, "g")
        with delivery.holding("ws-001"):
            pass

    def test_of_one_whose_socket_belonged_to_the_gateway_before(self, delivery: Delivery) -> None:
        self.run_gateway(delivery, "g")
        self.run_gateway(delivery, "the next")
        with running(db_of(delivery).path, "the next"), delivery.holding("ws-001"):
            pass

    def test_of_one_whose_socket_is_closed(self, delivery: Delivery) -> None:
        self.run_gateway(delivery, "g")
        delivery.settle([Closure("ws-001", 1, 1006, "lost", False)])
        with running(db_of(delivery).path, "g"), delivery.holding("ws-001"):
            pass

    def test_confirms(self, delivery: Delivery, ledger: Ledger) -> None:
        ledger.send("ws-002", 1)
        with delivery.holding("ws-002") as connection:
            delivery.confirm_held(connection, [1])
        assert states(db_of(delivery)) == ["confirmed"]

    def test_confirms_nothing_once_registered_again(
        self, delivery: Delivery, elsewhere: Delivery, ledger: Ledger
    ) -> None:
        ledger.send("ws-002", 1)
        with delivery.holding("ws-002") as connection:
            assert len(delivery.pending_held(connection, 0, 10)) == 1
            ledger_of(elsewhere).connect("cipher", "ws-002")
            with pytest.raises(Conflict, match="registered again"):
                delivery.pending_held(connection, 0, 10)
            with pytest.raises(Conflict, match="stay pending"):
                delivery.confirm_held(connection, [1])
        assert states(db_of(delivery)) == ["pending"]
