"""Events become messages once, by whichever way they come."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.support import db_of
from ws_manager import Conflict, InvalidInput, NotFound, get_db
from ws_manager.core.ledger import Ledger, ledger_over
from ws_manager.core.webhooks import IncomingEvent, Webhooks
from ws_manager.repository.sqlite.database import Database
from ws_manager.settings import MAX_CONTENT


@pytest.fixture
def ledger(db: Database) -> Ledger:
    return ledger_over(db)


@pytest.fixture
def webhooks(ledger: Ledger) -> Webhooks:
    return ledger.webhooks


BEYOND_LIMITS = [
    "[" * 101 + "]" * 101,
    "1e400",
    "1" * 1001,
    '{"a":1,"a":2}',
    '"\\ud800"',
    f'"{"x" * MAX_CONTENT}"',
]


def incoming(event_id: str = "evt_1", agent: str | None = None, content: str = "1") -> IncomingEvent:
    return IncomingEvent(event_id, "invoice.paid", '{"a":1}', content, agent, "stripe_invoice")


def messages(db: Database) -> list[tuple[str, str, str]]:
    return db.rows("SELECT recipient_id, msg_type, content FROM messages ORDER BY id")


class TestTake:
    def test_goes_to_everyone_who_is_connected(self, webhooks: Webhooks, ledger: Ledger) -> None:
        ledger.connect("billing", "ws-1")
        ledger.connect("mailer", "ws-2")
        outcome = webhooks.take(incoming())
        assert (outcome.status, outcome.recipients, outcome.duplicate) == ("routed", 2, False)
        assert messages(db_of(ledger)) == [("ws-1", "stripe_invoice", "1"), ("ws-2", "stripe_invoice", "1")]

    def test_goes_to_one_agent(self, webhooks: Webhooks, ledger: Ledger) -> None:
        ledger.connect("billing", "ws-1")
        ledger.connect("mailer", "ws-2")
        assert webhooks.take(incoming(agent="billing")).recipients == 1
        assert [row[0] for row in messages(db_of(ledger))] == ["ws-1"]

    def test_waits_where_nobody_is_connected_that_it_is_for(self, webhooks: Webhooks, ledger: Ledger) -> None:
        ledger.connect("mailer", "ws-2")
        outcome = webhooks.take(incoming(agent="billing"))
        assert (outcome.status, outcome.recipients, outcome.broadcast_id) == ("unrouted", 0, None)
        assert messages(db_of(ledger)) == []
        assert webhooks.waiting() == ["evt_1"]
        assert db_of(ledger).value("SELECT count(*) FROM broadcasts") == 0

    def test_routed_before_does_nothing(self, webhooks: Webhooks, ledger: Ledger) -> None:
        ledger.connect("billing", "ws-1")
        first = webhooks.take(incoming())
        again = webhooks.take(incoming(agent="mailer"))
        assert (again.duplicate, again.recipients, again.broadcast_id) == (True, 1, first.broadcast_id)
        assert len(messages(db_of(ledger))) == 1

    def test_that_waits_is_routed_when_it_comes_again(self, webhooks: Webhooks, ledger: Ledger) -> None:
        webhooks.take(incoming())
        ledger.connect("billing", "ws-1")
        outcome = webhooks.take(incoming())
        assert (outcome.status, outcome.duplicate) == ("routed", False)
        assert webhooks.waiting() == []

    def test_keeps_the_payload_and_what_became_of_it(self, webhooks: Webhooks, ledger: Ledger) -> None:
        ledger.connect("billing", "ws-1")
        outcome = webhooks.take(incoming())
        row = db_of(ledger).row(
            "SELECT event_type, msg_type, payload, status, recipients, broadcast_id FROM webhook_events"
        )
        assert row == ("invoice.paid", "stripe_invoice", '{"a":1}', "routed", 1, outcome.broadcast_id)

    @pytest.mark.parametrize("content", BEYOND_LIMITS, ids=lambda text: text[:10])
    def test_content_that_no_message_can_have_is_stored_with_the_reason(
        self, webhooks: Webhooks, ledger: Ledger, content: str
    ) -> None:
        ledger.connect("billing", "ws-1")
        for _ in range(2):
            outcome = webhooks.take(incoming(content=content))
            assert (outcome.status, outcome.recipients) == ("unrouted", 0)
        assert outcome.reason
        assert [(row.status, row.reason) for row in webhooks.events()] == [("unrouted", outcome.reason)]
        assert messages(db_of(ledger)) == []

    def test_content_that_no_message_can_have_does_not_wait(self, webhooks: Webhooks, ledger: Ledger) -> None:
        webhooks.take(incoming(content="1e400"))
        assert webhooks.waiting() == []

    def test_the_text_of_numbers_is_kept(self, webhooks: Webhooks, ledger: Ledger) -> None:
        ledger.connect("billing", "ws-1")
        webhooks.take(incoming(content='{ "amount": 1.10 }'))
        assert [row[2] for row in messages(db_of(ledger))] == ['{"amount":1.10}']

    def test_at_once_in_many_processes_is_one_broadcast(self, database: Path, ledger: Ledger) -> None:
        ledger.connect("billing", "ws-1")
        outcomes = []

        def take() -> None:
            db = get_db(database)
            outcomes.append(ledger_over(db).webhooks.take(incoming()).duplicate)
            db.close()

        threads = [threading.Thread(target=take) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == [False] + [True] * 9
        assert len(messages(db_of(ledger))) == 1


class TestReplay:
    def test_of_what_no_message_can_have_is_refused(self, webhooks: Webhooks, ledger: Ledger) -> None:
        ledger.connect("billing", "ws-1")
        webhooks.take(incoming(content="1e400"))
        with pytest.raises(InvalidInput, match="cannot become messages"):
            webhooks.replay("evt_1", lambda payload: "1e400")

    def test_sends_what_waits(self, webhooks: Webhooks, ledger: Ledger) -> None:
        webhooks.take(incoming(agent="billing"))
        ledger.connect("billing", "ws-1")
        assert webhooks.replay("evt_1", lambda payload: f"[{payload}]").recipients == 1
        assert messages(db_of(ledger)) == [("ws-1", "stripe_invoice", '[{"a":1}]')]

    def test_to_another_agent(self, webhooks: Webhooks, ledger: Ledger) -> None:
        webhooks.take(incoming(agent="billing"))
        ledger.connect("mailer", "ws-2")
        assert webhooks.replay("evt_1", str, agent="mailer").status == "routed"

    def test_still_waits_where_still_nobody_is_there(self, webhooks: Webhooks) -> None:
        webhooks.take(incoming())
        assert webhooks.replay("evt_1", str).status == "unrouted"
        assert webhooks.waiting() == ["evt_1"]

    def test_of_what_was_routed_is_a_conflict(self, webhooks: Webhooks, ledger: Ledger) -> None:
        ledger.connect("billing", "ws-1")
        webhooks.take(incoming())
        with pytest.raises(Conflict, match="routed already, to 1 connection"):
            webhooks.replay("evt_1", str)
        assert len(messages(db_of(ledger))) == 1

    def test_what_was_replayed_is_known_when_it_comes_again(self, webhooks: Webhooks, ledger: Ledger) -> None:
        webhooks.take(incoming())
        ledger.connect("billing", "ws-1")
        webhooks.replay("evt_1", str)
        assert webhooks.take(incoming()).duplicate

    def test_of_what_is_not_known(self, webhooks: Webhooks) -> None:
        with pytest.raises(NotFound):
            webhooks.replay("evt_1", str)

    def test_dry_run_changes_nothing(self, webhooks: Webhooks, ledger: Ledger) -> None:
        webhooks.take(incoming())
        ledger.connect("billing", "ws-1")
        assert webhooks.replay("evt_1", str, dry_run=True).recipients == 1
        assert (webhooks.waiting(), messages(db_of(ledger))) == (["evt_1"], [])


class TestEvents:
    @pytest.fixture(autouse=True)
    def _three(self, webhooks: Webhooks, ledger: Ledger) -> None:
        webhooks.take(incoming("evt_1"))
        ledger.connect("billing", "ws-1")
        webhooks.take(incoming("evt_2")._replace(event_type="charge.refunded"))
        webhooks.take(incoming("evt_3"))

    def ids(self, webhooks: Webhooks, **chosen: object) -> list[str]:
        return [row.event_id for row in webhooks.events(**chosen)]  # type: ignore[arg-type]

    def test_are_listed_newest_first(self, webhooks: Webhooks) -> None:
        assert self.ids(webhooks) == ["evt_3", "evt_2", "evt_1"]

    def test_by_status(self, webhooks: Webhooks) -> None:
        assert self.ids(webhooks, status="unrouted") == ["evt_1"]

    def test_by_pattern(self, webhooks: Webhooks) -> None:
        assert self.ids(webhooks, pattern="invoice.*") == ["evt_3", "evt_1"]

    def test_by_limit(self, webhooks: Webhooks) -> None:
        assert self.ids(webhooks, limit=1) == ["evt_3"]

    def test_by_time(self, webhooks: Webhooks) -> None:
        assert self.ids(webhooks, since="2999") == []

    def test_behind_one(self, webhooks: Webhooks) -> None:
        assert self.ids(webhooks, after="evt_3") == ["evt_2", "evt_1"]
        assert self.ids(webhooks, after="evt_3", pattern="invoice.*") == ["evt_1"]
        with pytest.raises(NotFound):
            self.ids(webhooks, after="evt_9")

    def test_of_no_such_status(self, webhooks: Webhooks) -> None:
        with pytest.raises(InvalidInput, match="not a status"):
            webhooks.events(status="lost")
