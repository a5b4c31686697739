"""What every test may use: a scratch ledger, and an environment that is not the user's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ws_manager import ConnectionPool, get_db
from ws_manager.repository.database import Database


@pytest.fixture(autouse=True)
def _isolated_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's home and settings out of the tests, and the tests out of them."""
    for name in list(os.environ):
        if name.startswith(("BLACKROAD_", "STRIPE_", "WS_MANAGER_")):
            monkeypatch.delenv(name)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where a ledger can be made; there is none yet."""
    return tmp_path / "ledger.db"


@pytest.fixture
def db(database: Path) -> Iterator[Database]:
    """An open, empty ledger at `database`."""
    connection = get_db(database)
    yield connection
    connection.close()


@pytest.fixture
def pool(db: Database) -> ConnectionPool:
    """A pool on `db`."""
    return ConnectionPool(db)
