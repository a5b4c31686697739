"""A ledger whose rows are of another server's transactions: from a dump, or with its counter set back."""

from __future__ import annotations

import subprocess
from typing import Any

import psycopg
import pytest

from tests.postgres import Server, server
from ws_manager import open_ledger
from ws_manager.core.ledger import Ledger
from ws_manager.models import Receipt
from ws_manager.repository.findings import PROBLEM, FeedEntry
from ws_manager.repository.postgres.doctor import examine
from ws_manager.repository.postgres.store import PostgresStore

FAR = 10**12
"""A transaction that no server of a test comes to."""


def fill(ledger: Ledger) -> None:
    for ws_id in ("ws-001", "ws-002"):
        ledger.connect("octavia", ws_id)
    for number in range(3):
        message = ledger.send("ws-001", number)
        assert message is not None
        if number < 2:
            ledger.delivery.settle([Receipt("ws-001", 1, [message.db_id or 0])])
    ledger.disconnect("ws-002")
    store_of(ledger).maintenance.delete_over("events", "2020")


def store_of(ledger: Ledger) -> PostgresStore:
    store = ledger._store
    assert isinstance(store, PostgresStore)
    return store


def set_ahead(url: str) -> None:
    """Let all rows be of transactions that are still to come, in the order in which they are."""
    with psycopg.connect(url, options="-c search_path=ws_manager") as session:
        session.execute("INSERT INTO deleted VALUES ('events', '3', 0)")
        for table in ("messages", "events", "receipts", "deleted"):
            session.execute(f"UPDATE {table} SET tx = (tx::text::bigint + {FAR})::text::xid8")


def what_happened(ledger: Ledger) -> list[FeedEntry]:
    feed = store_of(ledger).feed
    return [each._replace(cursor="") for each in feed.after(feed.since(""), 100)]


def check_that_it_works(ledger: Ledger, before: list[FeedEntry]) -> None:
    """What was written is found, once and in order, and what is written next is delivered at once."""
    assert before
    assert what_happened(ledger) == before
    ledger.delivery.open_socket("octavia", "ws-001", None, "g-1")
    messages, events = ledger.delivery.positions("g-1")
    assert ledger.delivery.after(messages, 10).messages == []
    waiting = ledger.delivery.pending("ws-001", 0, 10)
    assert [each.content for each in waiting] == ["2"]
    cursor = store_of(ledger).feed.end()
    sent = ledger.send("ws-001", "new")
    assert sent is not None
    ledger.connect("octavia", "ws-003")
    assert [each.msg_id for each in ledger.delivery.after(messages, 10).messages] == [sent.msg_id]
    assert [each.ws_id for each in ledger.delivery.events_after(events)[0]] == ["ws-003"]
    assert [each.ws_id for each in store_of(ledger).feed.after(cursor, 10)] == ["ws-003"]


def test_rows_of_transactions_that_are_still_to_come(postgres_url: str) -> None:
    with open_ledger(postgres_url) as ledger:
        fill(ledger)
        before = what_happened(ledger)
        old = store_of(ledger).feed.end()
    set_ahead(postgres_url)
    (finding,) = [each for each in examine(postgres_url) if each.check == "restored"]
    assert finding.status == PROBLEM
    with open_ledger(postgres_url) as ledger:
        check_that_it_works(ledger, before)
        # Nobody goes on in the middle of what was renumbered.
        ahead = old.replace("-", f"-{FAR}", 1)
        assert store_of(ledger).feed.has_gap(ahead)
    assert not [each for each in examine(postgres_url) if each.check == "restored"]


def test_only_what_is_ahead_is_changed(postgres_url: str) -> None:
    with open_ledger(postgres_url) as ledger:
        fill(ledger)
        before = what_happened(ledger)
    with psycopg.connect(postgres_url, autocommit=True, options="-c search_path=ws_manager") as session:
        rows = "SELECT id, tx::text FROM events WHERE id < 3 ORDER BY id"
        unchanged = session.execute(rows).fetchall()
        session.execute(f"UPDATE events SET tx = '{FAR}' WHERE id >= 3")
        with open_ledger(postgres_url) as ledger:
            assert session.execute(rows).fetchall() == unchanged
            check_that_it_works(ledger, before)


def test_opening_a_ledger_that_is_right_writes_nothing(postgres_url: str) -> None:
    with open_ledger(postgres_url) as ledger:
        fill(ledger)

    def given_out(session: psycopg.Connection[Any]) -> object:
        return session.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").fetchone()

    with psycopg.connect(postgres_url, autocommit=True) as session:
        before = given_out(session)
        open_ledger(postgres_url).close()
        assert given_out(session) == before


def test_a_dump_of_another_server(postgres: Server, postgres_url: str) -> None:
    with open_ledger(postgres_url) as ledger:
        fill(ledger)
        before = what_happened(ledger)
        cursor = store_of(ledger).feed.end()
    set_ahead(postgres_url)
    programs = postgres._programs
    if not (programs / "pg_dump").exists():
        pytest.skip("the server has come without pg_dump")
    dump = subprocess.run(
        [programs / "pg_dump", "--schema=ws_manager", postgres_url], capture_output=True, check=True
    ).stdout
    with server() as other:
        url = other.new(with_schema=False)
        subprocess.run(
            [programs / "psql", "-q", "-v", "ON_ERROR_STOP=1", url],
            input=dump,
            capture_output=True,
            check=True,
        )
        with open_ledger(url) as ledger:
            assert store_of(ledger).feed.has_gap(cursor)
            check_that_it_works(ledger, before)
