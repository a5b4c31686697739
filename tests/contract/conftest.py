"""The registries that the contract holds for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ws_manager import get_db
from ws_manager.core.registry import Registry


@pytest.fixture(params=["local"])
def registry(request: pytest.FixtureRequest, database: Path) -> Iterator[Registry]:
    """An empty registry of each kind, open on `database`."""
    assert request.param == "local"
    db = get_db(database)
    yield Registry(db)
    db.close()
