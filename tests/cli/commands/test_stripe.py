"""stripe events and replay."""

from __future__ import annotations

import json
import re

import pytest

from tests.stripe_support import event
from tests.support import sql_of
from ws_manager import get_message_history
from ws_manager.core.ledger import Ledger, ledger_over
from ws_manager.core.webhooks import IncomingEvent
from ws_manager.repository.sqlite.database import Database

pytestmark = pytest.mark.over_http


@pytest.fixture
def ledger(db: Database) -> Ledger:
    return ledger_over(db)


@pytest.fixture
def waiting(ledger: Ledger) -> Ledger:
    """Two events that wait for billing, and one that was routed."""
    webhooks = ledger.webhooks
    for event_id, event_type in (("evt_1", "invoice.paid"), ("evt_2", "payment_intent.succeeded")):
        payload = event(event_type, event_id).decode()
        webhooks.take(IncomingEvent(event_id, event_type, payload, "1", "billing", "stripe_x"))
    ledger.connect("octavia", "ws-001")
    webhooks.take(IncomingEvent("evt_3", "charge.refunded", event().decode(), "1", None, "stripe_event"))
    return ledger


class TestEvents:
    @pytest.mark.no_ledger
    def test_without_a_database_there_are_none(self, cli) -> None:
        result = cli("stripe", "events")
        assert (result.exit_code, result.stdout) == (0, "")

    def test_a_line_each_newest_first(self, cli, waiting) -> None:
        lines = cli("stripe", "events").stdout.splitlines()
        assert [line.split("\t")[1:] for line in lines] == [
            ["evt_3", "charge.refunded", "routed", "", "stripe_event", "1"],
            ["evt_2", "payment_intent.succeeded", "unrouted", "billing", "stripe_x", "0"],
            ["evt_1", "invoice.paid", "unrouted", "billing", "stripe_x", "0"],
        ]

    def test_json_has_what_became_of_each(self, cli, waiting) -> None:
        routed = json.loads(cli("stripe", "events", "--json").stdout)[0]
        assert (routed["status"], routed["recipients"], routed["agent"]) == ("routed", 1, None)
        assert routed["broadcast_id"] == sql_of(waiting).value("SELECT broadcast_id FROM broadcasts")

    def test_no_payload_is_shown(self, cli, waiting) -> None:
        assert "pi_1" not in cli("stripe", "events", "--json").stdout

    @pytest.mark.parametrize(
        ("options", "ids"),
        [
            (["--status", "unrouted"], ["evt_2", "evt_1"]),
            (["--event", "payment_intent.*"], ["evt_2"]),
            (["--limit", "1"], ["evt_3"]),
            (["--since", "2999-01-01"], []),
        ],
    )
    def test_can_be_chosen(self, cli, waiting, options: list[str], ids: list[str]) -> None:
        assert cli("stripe", "events", "-o", "id", *options).stdout.split() == ids

    @pytest.mark.parametrize(
        "options", [["--status", "lost"], ["--limit", "-1"], ["--since", "x"], ["--fields", "payload"]]
    )
    def test_what_cannot_be_chosen(self, cli, waiting, options: list[str]) -> None:
        assert cli("stripe", "events", *options).exit_code == 2


class TestReplay:
    def test_sends_those_that_are_named(self, cli, waiting) -> None:
        waiting.connect("billing", "ws-002")
        result = cli("stripe", "replay", "evt_2")
        assert result.stdout == "Sent evt_2 (payment_intent.succeeded) to 1 connection(s)\n"
        assert json.loads(get_message_history(waiting, "ws-002")[0]["content"])["id"] == "evt_2"

    def test_sends_all_since_a_time_oldest_first(self, cli, waiting) -> None:
        waiting.connect("billing", "ws-002")
        assert cli("stripe", "replay", "--since", "1h", "-o", "id").stdout.split() == ["evt_1", "evt_2"]

    def test_to_another_agent(self, cli, waiting) -> None:
        result = cli("stripe", "replay", "--since", "1h", "--to", "octavia")
        assert (result.exit_code, len(result.stdout.splitlines())) == (0, 2)

    def test_that_still_waits_is_partly_done(self, cli, waiting) -> None:
        result = cli("stripe", "replay", "evt_1")
        assert (result.exit_code, "waits" in result.stdout) == (5, True)

    def test_one_that_cannot_be_sent_does_not_keep_the_others(self, cli, waiting) -> None:
        waiting.connect("billing", "ws-002")
        result = cli("stripe", "replay", "evt_3", "evt_lost", "evt_1")
        assert result.exit_code == 5
        assert result.stdout == "Sent evt_1 (invoice.paid) to 1 connection(s)\n"
        assert "routed already" in result.stderr
        assert "no event evt_lost" in result.stderr

    def test_dry_run_sends_nothing(self, cli, waiting) -> None:
        waiting.connect("billing", "ws-002")
        result = cli("stripe", "replay", "--since", "1h", "--dry-run", "-o", "ndjson")
        assert [json.loads(line)["recipients"] for line in result.stdout.splitlines()] == [1, 1]
        assert waiting.webhooks.waiting() == ["evt_1", "evt_2"]

    def test_with_nothing_that_waits(self, cli, ledger) -> None:
        assert (cli("stripe", "replay", "--since", "1h").exit_code) == 0

    @pytest.mark.parametrize(
        "arguments",
        [[], ["evt_1", "--since", "1h"], ["evt_1", "--watch"], ["--watch", "--dry-run"], ["--since", "x"]],
    )
    def test_what_does_not_go_together(self, cli, waiting, arguments: list[str]) -> None:
        assert cli("stripe", "replay", *arguments).exit_code == 2


@pytest.mark.parametrize(
    "arguments", [[], ["payment_intent.refused"], ["invoice.paid", "--db", "x", "--url", "http://y"]]
)
def test_trigger_that_cannot_be(cli, arguments: list[str]) -> None:
    assert cli("stripe", "trigger", *arguments).exit_code == 2


@pytest.mark.parametrize("columns", [80, 200])
def test_the_table_fits_the_terminal(terminal, waiting, columns: int) -> None:
    code, seen = terminal("stripe", "events", columns=columns)
    assert code == 0
    seen = re.sub("\x1b\\[[0-9;]*m", "", seen)
    assert max(map(len, seen.splitlines())) <= columns
    for event_id in ("evt_1", "evt_2", "evt_3"):
        assert event_id in seen
    assert "unrouted" in seen
