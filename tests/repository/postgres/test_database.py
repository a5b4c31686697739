"""A session with PostgreSQL that is lost: when it is opened again, and when it must not be."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from ws_manager.errors import LedgerBusy, LedgerUnreachable
from ws_manager.repository.engines import engine_of
from ws_manager.repository.postgres import database
from ws_manager.repository.postgres.database import Database


@pytest.fixture
def db(postgres_url: str) -> Iterator[Database]:
    """A session with an empty ledger."""
    engine_of(postgres_url).open_to_write(postgres_url).close()
    db = Database(postgres_url)
    yield db
    db.close()


def lose(db: Database) -> None:
    """End the session from outside, and wait until it has ended."""
    pid = db._session.info.backend_pid
    with psycopg.connect(db.url, autocommit=True) as session:
        session.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))


def bars(db: Database) -> list[str]:
    """Return the names that are barred."""
    return [row[0] for row in db.rows("SELECT name FROM bars ORDER BY name")]


def bar(db: Database, name: str) -> None:
    """Write one."""
    db.execute("INSERT INTO bars (kind, name) VALUES ('agent', %s)", (name,))


def test_one_that_was_idle_is_opened_again_unnoticed(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_IDLE_SECONDS", 0.0)
    lose(db)
    with db.transaction():
        bar(db, "octavia")
    lose(db)
    assert bars(db) == ["octavia"]
    assert db.sessions == 3


def test_one_that_is_lost_within_a_statement_is_opened_again_by_the_next(db: Database) -> None:
    db.value("SELECT 1")
    lose(db)
    with pytest.raises(LedgerUnreachable) as raised:
        db.value("SELECT 1")
    assert isinstance(raised.value, LedgerBusy)
    assert raised.value.public_message == "the ledger's database cannot be reached"
    assert db.value("SELECT 1") == 1


def test_nothing_of_a_transaction_is_written_whose_session_is_lost(db: Database) -> None:
    with pytest.raises(LedgerUnreachable), db.transaction():
        bar(db, "one")
        lose(db)
        with pytest.raises(LedgerUnreachable):
            bar(db, "two")
        # Without an error here this would be written alone.
        bar(db, "three")
    assert bars(db) == []


def test_a_snapshot_does_not_go_on_in_another_session(db: Database) -> None:
    with db.snapshot():
        db.value("SELECT 1")
        lose(db)
        for _ in range(2):
            with pytest.raises(LedgerUnreachable):
                db.value("SELECT 1")
    assert bars(db) == []


def test_a_session_is_broken_off_by_another_thread(db: Database) -> None:
    began = time.monotonic()
    other = threading.Timer(0.1, db.break_off)
    other.start()
    with pytest.raises(LedgerUnreachable):
        db.value("SELECT pg_sleep(60)")
    other.join()
    assert time.monotonic() - began < 30
    assert db.value("SELECT 1") == 1
