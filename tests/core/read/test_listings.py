"""Lists of connections and messages: chosen, newest first, or as they come."""

from __future__ import annotations

from typing import Any

import pytest
from ws_manager.repository.sqlite.search import MessageFilter

from ws_manager import InvalidInput, NotFound, get_db
from ws_manager.core.delivery import Delivery
from ws_manager.core.read.conditions import all_of
from ws_manager.core.read.listings import Listings
from ws_manager.core.registry import Registry
from ws_manager.models import Rejection, seconds_before, utc_now
from ws_manager.repository.sqlite.database import Database

OLD = "2020-01-01T00:00:00.000000+00:00"


@pytest.fixture
def registry(db: Database) -> Registry:
    """ws-001 and ws-003 are octavia's, ws-002 is cipher's; ws-003 has gone."""
    registry = Registry(db)
    registry.connect("octavia", "ws-001", {"region": "us-west"})
    registry.connect("cipher", "ws-002")
    registry.connect("octavia", "ws-003")
    registry.disconnect("ws-003", "enough")
    return registry


@pytest.fixture
def listings(registry: Registry) -> Listings:
    return Listings(registry.db)


def contents(rows: list[dict[str, Any]]) -> list[str]:
    return [row["content"] for row in rows]


class TestConnections:
    @staticmethod
    def ids(listings: Listings, **wanted: Any) -> list[str]:
        return [connection.ws_id for connection, _ in listings.connections(**wanted)]

    def test_active(self, listings: Listings) -> None:
        assert self.ids(listings) == ["ws-001", "ws-002"]

    def test_all(self, listings: Listings) -> None:
        assert self.ids(listings, all_of_them=True) == ["ws-001", "ws-002", "ws-003"]

    def test_of_an_agent(self, listings: Listings) -> None:
        assert self.ids(listings, agent="octavia") == ["ws-001"]
        assert self.ids(listings, agent="octavia", all_of_them=True) == ["ws-001", "ws-003"]

    def test_silent(self, listings: Listings, db: Database) -> None:
        db.execute("UPDATE connections SET last_heartbeat = ? WHERE ws_id <> 'ws-001'", (OLD,))
        assert self.ids(listings, silent_for=30.0) == ["ws-002"]

    def test_silent_with_a_sign_of_life_in_the_future(self, listings: Listings, db: Database) -> None:
        later = seconds_before(utc_now(), -3600)
        db.execute("UPDATE connections SET last_heartbeat = ? WHERE ws_id <> 'ws-001'", (later,))
        assert self.ids(listings, silent_for=86400.0) == ["ws-002"]

    def test_limit(self, listings: Listings) -> None:
        assert self.ids(listings, limit=1) == ["ws-001"]
        assert self.ids(listings, limit=0) == []
        with pytest.raises(InvalidInput):
            listings.connections(limit=-1)

    def test_pending_is_counted_as_the_registry_counts_it(
        self, listings: Listings, registry: Registry
    ) -> None:
        registry.broadcast(1)
        registry.send("ws-002", 2)
        listed = listings.connections()
        assert {c.ws_id: pending for c, pending in listed} == {"ws-001": 1, "ws-002": 2}
        assert {c.ws_id: n for c, n in listed} == registry.pending_counts([c for c, _ in listed])
        assert [n for _, n in listings.connections(count_pending=False)] == [0, 0]

    def test_one_statement_however_many_there_are(self, listings: Listings, db: Database) -> None:
        seen: list[str] = []
        db.set_trace_callback(seen.append)
        listings.connections()
        db.set_trace_callback(None)
        assert len([statement for statement in seen if not statement.startswith("--")]) == 1


class TestRecipients:
    def test_everybody_active(self, listings: Listings) -> None:
        found = {c.ws_id: why for c, why in listings.recipients(None, None)}
        assert found == {"ws-001": None, "ws-002": None, "ws-003": "disconnected: enough"}

    def test_why_not(self, listings: Listings) -> None:
        conditions = all_of(["metadata.region=eu", "agent~o"])
        found = {c.ws_id: why for c, why in listings.recipients("octavia", conditions)}
        assert found["ws-001"] == "condition not met: metadata.region=eu"
        assert found["ws-002"] == "other agent: cipher"

    def test_says_what_a_broadcast_does(self, listings: Listings, registry: Registry) -> None:
        conditions = all_of(["metadata.region=us-west"])
        foretold = [c.ws_id for c, why in listings.recipients(None, conditions) if why is None]
        assert registry.broadcast(1, filter_fn=conditions).recipients == foretold


class TestMessages:
    @pytest.fixture(autouse=True)
    def _some(self, registry: Registry) -> None:
        registry.send("ws-001", "One 100%", "note", "ws-002")
        registry.send("ws-002", {"say": 'a "quoted" ÉTÉ', "b": 2})
        registry.send("ws-001", "three_3")
        registry.connect("octavia", "ws-003")
        registry.send("ws-003", "four")
        registry.db.execute("UPDATE messages SET sent_at = '202' || id || '-01-01T00:00:00.000000+00:00'")

    @staticmethod
    def ids(listings: Listings, limit: int = 50, **wanted: Any) -> list[int]:
        return [row["id"] for row in listings.messages(MessageFilter(**wanted), limit)]

    def test_all(self, listings: Listings, registry: Registry) -> None:
        assert self.ids(listings) == [4, 3, 2, 1]
        assert listings.messages(MessageFilter()) == registry.history()

    def test_of_a_connection(self, listings: Listings, registry: Registry) -> None:
        assert self.ids(listings, ws_id="ws-002") == [2, 1]
        assert listings.messages(MessageFilter(ws_id="ws-001")) == registry.history("ws-001")
        assert self.ids(listings, ws_id="ws-001", limit=1) == [3]

    def test_of_an_agent(self, listings: Listings, registry: Registry) -> None:
        registry.disconnect("ws-003")
        assert self.ids(listings, agent="octavia") == [4, 3, 1]
        assert self.ids(listings, agent="cipher") == [2, 1]
        assert self.ids(listings, agent="octavia", limit=2) == [4, 3]
        assert self.ids(listings, agent="nobody") == []

    def test_of_a_type(self, listings: Listings) -> None:
        assert self.ids(listings, msg_type="note") == [1]
        assert self.ids(listings, msg_type="note", ws_id="ws-001") == [1]

    def test_pending_and_set_aside(self, listings: Listings, db: Database) -> None:
        delivery = Delivery(db)
        delivery.settle([Rejection("ws-001", 1, 3, "no")])
        db.execute("UPDATE messages SET delivered = 1 WHERE id = 1")
        assert self.ids(listings, pending=True) == [4, 2]
        assert self.ids(listings, set_aside=True) == [3]
        assert self.ids(listings, pending=True, set_aside=True) == [4, 3, 2]

    def test_between_two_times(self, listings: Listings) -> None:
        since, before = "2022-01-01T00:00:00.000000+00:00", "2024-01-01T00:00:00.000000+00:00"
        assert self.ids(listings, since=since) == [4, 3, 2]
        assert self.ids(listings, before=before) == [3, 2, 1]
        assert self.ids(listings, since=since, before=before) == [3, 2]
        assert self.ids(listings, since=since, before=before, limit=1) == [3]
        assert self.ids(listings, since=since, ws_id="ws-001") == [3]
        assert self.ids(listings, before=before, agent="octavia") == [3, 1]

    def test_of_a_broadcast(self, listings: Listings, registry: Registry) -> None:
        call = registry.broadcast("all")
        found = listings.messages(MessageFilter(), 50, call.broadcast_id)
        assert {row["recipient_id"] for row in found} == set(call.recipients)
        one = listings.messages(MessageFilter(ws_id="ws-002"), 50, call.broadcast_id)
        assert contents(one) == ['"all"']
        nobody = registry.broadcast("none", agent="nobody")
        assert listings.messages(MessageFilter(), 50, nobody.broadcast_id) == []
        with pytest.raises(NotFound, match="no broadcast x"):
            listings.messages(MessageFilter(), 50, "x")

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
    def test_with_a_text(self, listings: Listings, text: str, found: list[int]) -> None:
        assert self.ids(listings, text=text) == found

    def test_limit(self, listings: Listings) -> None:
        assert self.ids(listings, limit=0) == []
        with pytest.raises(InvalidInput):
            listings.messages(MessageFilter(), -1)

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
    def test_reads_an_index(
        self, listings: Listings, db: Database, wanted: MessageFilter, index: str
    ) -> None:
        seen: list[str] = []
        db.set_trace_callback(seen.append)
        listings.messages(wanted)
        db.set_trace_callback(None)
        plan = [row[3] for row in db.rows(f"EXPLAIN QUERY PLAN {seen[0]}")]
        assert any(f"INDEX {index}" in step for step in plan), plan
        assert not any("SCAN messages" in step and "INDEX" not in step for step in plan), plan


class TestFollow:
    class Idle(Exception):
        """Nothing more has come."""

    def idle(self) -> None:
        raise self.Idle

    def test_begins_with_what_comes_now(self, listings: Listings, registry: Registry) -> None:
        registry.send("ws-001", "before")
        coming = iter(["one", "two"])

        def pause() -> None:
            db = get_db(registry.db.path)
            Registry(db).send("ws-001", next(coming))
            db.close()

        following = listings.follow(MessageFilter(), pause)
        assert contents([*next(following)]) == ['"one"']
        assert contents([*next(following)]) == ['"two"']

    def test_begins_where_it_is_told_to_oldest_first(self, listings: Listings, registry: Registry) -> None:
        for number in range(1200):
            registry.send("ws-001" if number % 2 else "ws-002", number)
        following = listings.follow(MessageFilter(ws_id="ws-001", since=OLD), self.idle)
        found: list[str] = []
        with pytest.raises(self.Idle):
            for batch in following:
                found += contents([*batch])
        assert found == [str(number) for number in range(1, 1200, 2)]

    def test_of_an_agent(self, listings: Listings, registry: Registry) -> None:
        registry.send("ws-001", 1)
        registry.send("ws-002", 2, sender_id="ws-003")
        registry.send("ws-002", 3)
        found = next(listings.follow(MessageFilter(agent="octavia", since=OLD), self.idle))
        assert contents([*found]) == ["1", "2"]

    @pytest.mark.parametrize("wanted", [{"pending": True}, {"set_aside": True}, {"before": OLD}])
    def test_what_cannot_be_followed(self, listings: Listings, wanted: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput):
            next(listings.follow(MessageFilter(**wanted), self.idle))
