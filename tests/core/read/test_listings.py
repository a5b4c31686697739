"""Lists of connections and messages: chosen, newest first, or as they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.support import db_of
from ws_manager import InvalidInput, NotFound, get_db, get_message_history
from ws_manager.core.ledger import Ledger, ledger_over
from ws_manager.core.read.conditions import all_of
from ws_manager.models import Message, Rejection, message_columns, seconds_before, utc_now
from ws_manager.repository.findings import MessageFilter
from ws_manager.repository.sqlite.database import Database

OLD = "2020-01-01T00:00:00.000000+00:00"


@pytest.fixture
def ledger(db: Database) -> Ledger:
    """ws-001 and ws-003 are octavia's, ws-002 is cipher's; ws-003 has gone."""
    ledger = ledger_over(db)
    ledger.connect("octavia", "ws-001", {"region": "us-west"})
    ledger.connect("cipher", "ws-002")
    ledger.connect("octavia", "ws-003")
    ledger.disconnect("ws-003", "enough")
    return ledger


def contents(rows: Sequence[Message]) -> list[str]:
    return [row.content for row in rows]


class TestConnections:
    @staticmethod
    def ids(ledger: Ledger, **wanted: Any) -> list[str]:
        return [connection.ws_id for connection, _ in ledger.connections(**wanted)]

    def test_active(self, ledger: Ledger) -> None:
        assert self.ids(ledger) == ["ws-001", "ws-002"]

    def test_all(self, ledger: Ledger) -> None:
        assert self.ids(ledger, include_disconnected=True) == ["ws-001", "ws-002", "ws-003"]

    def test_of_an_agent(self, ledger: Ledger) -> None:
        assert self.ids(ledger, agent="octavia") == ["ws-001"]
        assert self.ids(ledger, agent="octavia", include_disconnected=True) == ["ws-001", "ws-003"]

    def test_silent(self, ledger: Ledger, db: Database) -> None:
        db.execute("UPDATE connections SET last_heartbeat = ? WHERE ws_id <> 'ws-001'", (OLD,))
        assert self.ids(ledger, silent_for=30.0) == ["ws-002"]

    def test_silent_with_a_sign_of_life_in_the_future(self, ledger: Ledger, db: Database) -> None:
        later = seconds_before(utc_now(), -3600)
        db.execute("UPDATE connections SET last_heartbeat = ? WHERE ws_id <> 'ws-001'", (later,))
        assert self.ids(ledger, silent_for=86400.0) == ["ws-002"]

    def test_limit(self, ledger: Ledger) -> None:
        assert self.ids(ledger, limit=1) == ["ws-001"]
        assert self.ids(ledger, limit=0) == []
        with pytest.raises(InvalidInput):
            ledger.connections(limit=-1)

    def test_pending_is_counted(self, ledger: Ledger) -> None:
        ledger.broadcast(1)
        ledger.send("ws-002", 2)
        listed = ledger.connections()
        assert {c.ws_id: pending for c, pending in listed} == {"ws-001": 1, "ws-002": 2}
        assert [n for _, n in listed] == [ledger.count_pending(c) for c, _ in listed]
        assert [n for _, n in ledger.connections(count_pending=False)] == [0, 0]

    def test_one_statement_however_many_there_are(self, ledger: Ledger, db: Database) -> None:
        seen: list[str] = []
        db.set_trace_callback(seen.append)
        ledger.connections()
        db.set_trace_callback(None)
        assert len([statement for statement in seen if not statement.startswith("--")]) == 1


class TestRecipients:
    def test_everybody_active(self, ledger: Ledger) -> None:
        found = {c.ws_id: why for c, why in ledger.recipients(None, None)}
        assert found == {"ws-001": None, "ws-002": None, "ws-003": "disconnected: enough"}

    def test_why_not(self, ledger: Ledger) -> None:
        conditions = all_of(["metadata.region=eu", "agent~o"])
        found = {c.ws_id: why for c, why in ledger.recipients("octavia", conditions)}
        assert found["ws-001"] == "condition not met: metadata.region=eu"
        assert found["ws-002"] == "other agent: cipher"

    def test_says_what_a_broadcast_does(self, ledger: Ledger) -> None:
        conditions = all_of(["metadata.region=us-west"])
        foretold = [c.ws_id for c, why in ledger.recipients(None, conditions) if why is None]
        assert ledger.broadcast(1, filter_fn=conditions).recipients == foretold


class TestMessages:
    @pytest.fixture(autouse=True)
    def _some(self, ledger: Ledger) -> None:
        ledger.send("ws-001", "One 100%", "note", "ws-002")
        ledger.send("ws-002", {"say": 'a "quoted" ÉTÉ', "b": 2})
        ledger.send("ws-001", "three_3")
        ledger.connect("octavia", "ws-003")
        ledger.send("ws-003", "four")
        db_of(ledger).execute("UPDATE messages SET sent_at = '202' || id || '-01-01T00:00:00.000000+00:00'")

    @staticmethod
    def ids(ledger: Ledger, limit: int = 50, **wanted: Any) -> list[int]:
        return [row.db_id or 0 for row in ledger.messages(MessageFilter(**wanted), limit)]

    def test_all(self, ledger: Ledger) -> None:
        assert self.ids(ledger) == [4, 3, 2, 1]
        listed = [message_columns(message) for message in ledger.messages(MessageFilter())]
        assert listed == get_message_history(ledger)

    def test_of_a_connection(self, ledger: Ledger) -> None:
        assert self.ids(ledger, ws_id="ws-002") == [2, 1]
        assert self.ids(ledger, ws_id="ws-001", limit=1) == [3]

    def test_of_an_agent(self, ledger: Ledger) -> None:
        ledger.disconnect("ws-003")
        assert self.ids(ledger, agent="octavia") == [4, 3, 1]
        assert self.ids(ledger, agent="cipher") == [2, 1]
        assert self.ids(ledger, agent="octavia", limit=2) == [4, 3]
        assert self.ids(ledger, agent="nobody") == []

    def test_of_a_type(self, ledger: Ledger) -> None:
        assert self.ids(ledger, msg_type="note") == [1]
        assert self.ids(ledger, msg_type="note", ws_id="ws-001") == [1]

    def test_pending_and_set_aside(self, ledger: Ledger, db: Database) -> None:
        delivery = ledger_over(db).delivery
        delivery.settle([Rejection("ws-001", 1, 3, "no")])
        db.execute("UPDATE messages SET delivered = 1 WHERE id = 1")
        assert self.ids(ledger, pending=True) == [4, 2]
        assert self.ids(ledger, set_aside=True) == [3]
        assert self.ids(ledger, pending=True, set_aside=True) == [4, 3, 2]

    def test_between_two_times(self, ledger: Ledger) -> None:
        since, before = "2022-01-01T00:00:00.000000+00:00", "2024-01-01T00:00:00.000000+00:00"
        assert self.ids(ledger, since=since) == [4, 3, 2]
        assert self.ids(ledger, before=before) == [3, 2, 1]
        assert self.ids(ledger, since=since, before=before) == [3, 2]
        assert self.ids(ledger, since=since, before=before, limit=1) == [3]
        assert self.ids(ledger, since=since, ws_id="ws-001") == [3]
        assert self.ids(ledger, before=before, agent="octavia") == [3, 1]

    def test_of_a_broadcast(self, ledger: Ledger) -> None:
        call = ledger.broadcast("all")
        found = ledger.messages(MessageFilter(broadcast_id=call.broadcast_id))
        assert {message.recipient_id for message in found} == set(call.recipients)
        one = ledger.messages(MessageFilter(ws_id="ws-002", broadcast_id=call.broadcast_id))
        assert contents(one) == ['"all"']
        nobody = ledger.broadcast("none", agent="nobody")
        assert ledger.messages(MessageFilter(broadcast_id=nobody.broadcast_id)) == []
        with pytest.raises(NotFound, match="no broadcast x"):
            ledger.messages(MessageFilter(broadcast_id="x"))

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("one", [1]),
            ("ONE 100%", [1]),
            ("%", [1]),
            ("_", [3]),
            ("e_3", [3]),
            ('"quoted"', [2]),
            ('\\"QUOTED\\"', [2]),
            ('"b":2', [2]),
            ("été", [2]),
            ("o", [4, 2, 1]),
            ("x" * 100_000, []),
        ],
    )
    def test_with_a_text(self, ledger: Ledger, text: str, found: list[int]) -> None:
        assert self.ids(ledger, text=text) == found

    def test_limit(self, ledger: Ledger) -> None:
        assert self.ids(ledger, limit=0) == []
        with pytest.raises(InvalidInput):
            ledger.messages(MessageFilter(), -1)

    @pytest.mark.parametrize(
        ("wanted", "index"),
        [
            (MessageFilter(ws_id="w"), "idx_msg_recip"),
            (MessageFilter(ws_id="w", since=OLD, before=OLD), "idx_msg_recip"),
            (MessageFilter(agent="a", since=OLD), "idx_msg_recip"),
            (MessageFilter(since=OLD), "idx_msg_sent"),
            (MessageFilter(before=OLD), "idx_msg_sent"),
        ],
    )
    def test_reads_an_index(self, ledger: Ledger, db: Database, wanted: MessageFilter, index: str) -> None:
        seen: list[str] = []
        db.set_trace_callback(seen.append)
        ledger.messages(wanted)
        db.set_trace_callback(None)
        plan = [row[3] for row in db.rows(f"EXPLAIN QUERY PLAN {seen[0]}")]
        assert any(f"INDEX {index}" in step for step in plan), plan
        assert not any("SCAN messages" in step and "INDEX" not in step for step in plan), plan


class TestFollow:
    class Idle(Exception):
        """Nothing more has come."""

    def idle(self) -> None:
        raise self.Idle

    def test_begins_with_what_comes_now(self, ledger: Ledger) -> None:
        ledger.send("ws-001", "before")
        coming = iter(["one", "two"])

        def pause() -> None:
            db = get_db(db_of(ledger).path)
            ledger_over(db).send("ws-001", next(coming))
            db.close()

        following = ledger.follow(MessageFilter(), pause)
        assert contents([*next(following)]) == ['"one"']
        assert contents([*next(following)]) == ['"two"']

    def test_begins_where_it_is_told_to_oldest_first(self, ledger: Ledger) -> None:
        for number in range(1200):
            ledger.send("ws-001" if number % 2 else "ws-002", number)
        following = ledger.follow(MessageFilter(ws_id="ws-001", since=OLD), self.idle)
        found: list[str] = []
        with pytest.raises(self.Idle):
            for batch in following:
                found += contents([*batch])
        assert found == [str(number) for number in range(1, 1200, 2)]

    def test_of_an_agent(self, ledger: Ledger) -> None:
        ledger.send("ws-001", 1)
        ledger.send("ws-002", 2, sender_id="ws-003")
        ledger.send("ws-002", 3)
        found = next(ledger.follow(MessageFilter(agent="octavia", since=OLD), self.idle))
        assert contents([*found]) == ["1", "2"]

    @pytest.mark.parametrize("wanted", [{"pending": True}, {"set_aside": True}, {"before": OLD}])
    def test_what_cannot_be_followed(self, ledger: Ledger, wanted: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput):
            next(ledger.follow(MessageFilter(**wanted), self.idle))
