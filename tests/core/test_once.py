"""Doing a thing once for a key."""

from __future__ import annotations

import pytest

from ws_manager.core import once as module
from ws_manager.core.ledger import Ledger, ledger_over
from ws_manager.core.once import key_for
from ws_manager.errors import InvalidInput, KeyReused
from ws_manager.models import seconds_before, utc_now
from ws_manager.repository.sqlite.database import Database


@pytest.fixture
def ledger(db: Database) -> Ledger:
    return ledger_over(db)


def test_the_first_result_is_given_again(ledger: Ledger) -> None:
    results = iter(["first", "second", "third"])
    key = key_for("*", "send", "k", "ws-001", 1)
    assert ledger.once(key, lambda: next(results)) == ("first", False)
    assert ledger.once(key, lambda: next(results)) == ("first", True)
    assert ledger.once(key_for("octavia", "send", "k", "ws-001", 1), lambda: next(results)) == (
        "second",
        False,
    )
    assert ledger.once(key_for("*", "broadcast", "k", "ws-001", 1), lambda: next(results)) == ("third", False)


def test_another_request_is_refused(ledger: Ledger) -> None:
    ledger.once(key_for("*", "send", "k", 1), lambda: "x")
    with pytest.raises(KeyReused):
        ledger.once(key_for("*", "send", "k", 2), lambda: "y")


def test_a_failure_is_not_stored_nor_is_what_it_wrote(ledger: Ledger) -> None:
    ledger.connect("octavia", "ws-001")
    key = key_for("*", "send", "k", 1)

    def fails() -> str:
        ledger.send("ws-001", 1)
        raise InvalidInput("no")

    with pytest.raises(InvalidInput):
        ledger.once(key, fails)
    assert ledger.backlog().pending == 0
    assert ledger.once(key, lambda: "x") == ("x", False)


def test_a_key_is_free_after_a_day(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    key = key_for("*", "send", "k", 1)
    monkeypatch.setattr(module, "utc_now", lambda: seconds_before(utc_now(), module.KEPT_SECONDS + 1))
    ledger.once(key, lambda: "old")
    monkeypatch.undo()
    assert ledger.once(key, lambda: "new") == ("new", False)
    assert ledger.once(key, lambda: "newer") == ("new", True)


def test_work_of_many_transactions_is_done_once_and_outside_of_one(ledger: Ledger) -> None:
    key, inside = key_for("*", "prune", "k", 1), []

    def work() -> str:
        inside.append(ledger.in_transaction)
        return "first"

    assert ledger.once(key, work, many=True) == ("first", False)
    assert ledger.once(key, work, many=True) == ("first", True)
    assert inside == [False]
    with pytest.raises(KeyReused):
        ledger.once(key_for("*", "prune", "k", 2), work, many=True)


def test_of_two_at_a_time_the_result_of_the_first_counts(ledger: Ledger) -> None:
    key = key_for("*", "prune", "k", 1)

    def slow() -> str:
        ledger.once(key, lambda: "the other's", many=True)
        return "late"

    assert ledger.once(key, slow, many=True) == ("the other's", True)
    assert ledger.once(key, slow, many=True) == ("the other's", True)


@pytest.mark.parametrize("name", ["", "x" * 256, " a", "a ", "ü", "\n", "a\n"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        key_for("*", "send", name)


def test_old_keys_are_deleted(ledger: Ledger, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "utc_now", lambda: seconds_before(utc_now(), module.KEPT_SECONDS + 1))
    for number in range(3):
        ledger.once(key_for("*", "send", f"k{number}"), lambda: "x")
    monkeypatch.undo()
    ledger.once(key_for("*", "send", "k3"), lambda: "x")
    assert ledger.maintenance.trim("idempotency_keys", module.KEPT_SECONDS) == 3
    assert db.value("SELECT count(*) FROM idempotency_keys") == 1
