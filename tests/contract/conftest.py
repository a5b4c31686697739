"""The ledgers and stores that the contract holds for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import gateway_in_a_thread
from ws_manager import Ledger, open_ledger
from ws_manager.client.api import ApiClient
from ws_manager.client.remote import RemoteLedger


@pytest.fixture
def on_the_file(database: Path) -> Iterator[Ledger]:
    """The ledger on its own machine: for what only a gateway does, whatever `ledger` is."""
    with open_ledger(database) as ledger:
        yield ledger


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.long), "remote"])
def ledger(request: pytest.FixtureRequest, database: Path) -> Iterator[Ledger]:
    """An empty ledger of each kind, at `database`."""
    if request.param != "remote":
        location = database if request.param == "sqlite" else request.getfixturevalue("postgres_url")
        with open_ledger(location) as ledger:
            yield ledger
        return
    with gateway_in_a_thread(database) as url, RemoteLedger(ApiClient(url, lambda: None)) as remote:
        yield remote
