"""Transactions that stand still, because their process is suspended or its machine has gone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from ws_manager.errors import LedgerError
from ws_manager.repository.engines import engine_of
from ws_manager.repository.postgres import database
from ws_manager.repository.postgres.database import Database
from ws_manager.repository.postgres.maintenance import Maintenance


@pytest.fixture
def pair(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Database, Database]]:
    """Two sessions whose transactions may stand still for 0.2 s."""
    settings = database._SETTINGS
    monkeypatch.setattr(database, "_SETTINGS", settings.replace(f"'{database.STILL_SECONDS}s'", "'200ms'"))
    assert settings != database._SETTINGS
    engine_of(postgres_url).open_to_write(postgres_url).close()
    with (
        contextlib.closing(Database(postgres_url)) as one,
        contextlib.closing(Database(postgres_url)) as other,
    ):
        yield one, other


def test_what_it_has_locked_is_free_again(pair: tuple[Database, Database]) -> None:
    one, other = pair
    with pytest.raises(LedgerError, match=r"stood still|has failed"), one.transaction():
        one.lock("a connection")
        with other.transaction():
            # Without the limit this would wait for 30 s, and fail.
            other.lock("a connection")
        one.execute("SELECT 1")
    # The next one has a new session.
    with one.transaction():
        one.lock("a connection")


def test_what_only_reads_may_stand_still(pair: tuple[Database, Database]) -> None:
    one, other = pair
    with one.snapshot():
        other.execute("SELECT pg_sleep(0.5)")
        assert one.value("SELECT 1") == 1


def test_import_may_stand_still(pair: tuple[Database, Database]) -> None:
    one, other = pair
    with one.transaction():
        assert Maintenance(one).is_empty()
        other.execute("SELECT pg_sleep(0.5)")
        assert one.value("SELECT 1") == 1
