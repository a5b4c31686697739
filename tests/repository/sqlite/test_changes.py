"""Commits are noticed, with and without the system's help."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from tests.support import open_db
from ws_manager.repository.sqlite import changes as module
from ws_manager.repository.sqlite.changes import Changes
from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.sqlite.log_events import LogEvents, log_events

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="inotify is Linux's")


@pytest.fixture
def other(database: Path, db: Database) -> Iterator[Database]:
    """Another connection to the same database, which commits."""
    other = open_db(database)
    yield other
    other.close()


def commit(db: Database) -> None:
    db.execute("INSERT INTO events (ts, kind) VALUES ('2026-01-01', 'test')")


def found(changes: Changes) -> None:
    """Wait until a change is noticed, bounded."""
    deadline = time.monotonic() + 10
    while not changes.happened():
        assert time.monotonic() < deadline, "it was not noticed"
        changes.wait()


@pytest.fixture(params=[pytest.param("told", marks=linux), "not told"])
def changes(
    request: pytest.FixtureRequest, db: Database, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Changes]:
    """With the system's help, and without it."""
    if request.param == "not told":
        monkeypatch.setattr(module, "log_events", lambda database: None)
    changes = Changes(db)
    assert changes.happened()
    yield changes
    changes.close()


class TestWait:
    def test_every_commit_is_noticed(self, changes: Changes, other: Database) -> None:
        for _ in range(50):
            commit(other)
            found(changes)
            assert not changes.happened()

    def test_one_that_comes_long_after_its_first_write_is_noticed(
        self, changes: Changes, other: Database
    ) -> None:
        """What does not fit into the cache is written before the commit."""
        other.execute("PRAGMA cache_size = 5")
        with other.transaction():
            for _ in range(500):
                other.execute(
                    "INSERT INTO events (ts, kind, detail) VALUES ('2026-01-01', 'test', ?)", ("x" * 500,)
                )
            for _ in range(20):
                changes.wait()
                assert not changes.happened()
        found(changes)


class Scripted(LogEvents):
    """A system that tells of nothing, as some file systems do."""

    def __init__(self) -> None:
        self.closed = False

    def wait(self, seconds: float) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


def test_a_system_that_tells_of_nothing_is_not_relied_on(
    db: Database, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = Scripted()
    monkeypatch.setattr(module, "log_events", lambda database: silent)
    monkeypatch.setattr(module, "_AFTER_SECONDS", 0.0)
    changes = Changes(db)
    assert changes.happened()
    for _ in range(3):
        assert not silent.closed
        changes.wait()
        commit(other)
        found(changes)
    assert silent.closed
    commit(other)
    found(changes)


@linux
class TestLogEvents:
    @pytest.fixture
    def events(self, database: Path, db: Database) -> Iterator[LogEvents]:
        """The events of a log that is open."""
        events: Optional[LogEvents] = log_events(database)
        assert events is not None
        yield events
        events.close()

    def test_a_write_ends_the_wait(self, events: LogEvents, other: Database) -> None:
        commit(other)
        assert events.wait(10)

    def test_what_was_told_once_is_not_told_again(self, events: LogEvents, other: Database) -> None:
        for _ in range(500):
            commit(other)
        assert events.wait(10)
        assert not events.wait(0)

    def test_reading_is_not_told(self, events: LogEvents, other: Database) -> None:
        assert other.value("SELECT count(*) FROM events") == 0
        assert not events.wait(0)

    def test_without_a_log_there_are_none(self, tmp_path: Path) -> None:
        assert log_events(tmp_path / "missing.db") is None
