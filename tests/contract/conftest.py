"""The ledgers and stores that the contract holds for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Union

import pytest

from tests.support import gateway_in_a_thread
from ws_manager import Ledger, open_ledger
from ws_manager.client.api import ApiClient
from ws_manager.client.remote import RemoteLedger


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.long), "remote"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which kind of ledger."""
    return str(request.param)


@pytest.fixture
def location(kind: str, request: pytest.FixtureRequest, database: Path) -> Union[Path, str]:
    """Where the ledger is."""
    return str(request.getfixturevalue("postgres_url")) if kind == "postgres" else database


@pytest.fixture
def on_the_file(location: Union[Path, str]) -> Iterator[Ledger]:
    """The ledger without a gateway between: for what only a gateway does, whatever `ledger` is."""
    with open_ledger(location) as ledger:
        yield ledger


@pytest.fixture
def ledger(kind: str, location: Union[Path, str], database: Path) -> Iterator[Ledger]:
    """An empty ledger of each kind."""
    if kind != "remote":
        with open_ledger(location) as ledger:
            yield ledger
        return
    with gateway_in_a_thread(database) as url, RemoteLedger(ApiClient(url, lambda: None)) as remote:
        yield remote
