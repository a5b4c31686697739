"""The ledgers and stores that the contract holds for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ws_manager import Ledger, open_ledger


@pytest.fixture(params=["sqlite"])
def ledger(request: pytest.FixtureRequest, database: Path) -> Iterator[Ledger]:
    """An empty ledger of each kind, at `database`."""
    assert request.param == "sqlite"
    with open_ledger(database) as ledger:
        yield ledger
