"""The ledgers and stores that the contract holds for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import gateway
from ws_manager import Ledger, open_ledger
from ws_manager.client.api import ApiClient
from ws_manager.client.remote import RemoteLedger


@contextlib.contextmanager
def gateway_in_a_thread(database: Path) -> Iterator[str]:
    """Run a gateway without tokens in an event loop of its own, and give its address."""
    started: list[str] = []
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with gateway(database) as running:
            started.append(running.url)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(30)
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@pytest.fixture
def on_the_file(database: Path) -> Iterator[Ledger]:
    """The ledger on its own machine: for what only a gateway does, whatever `ledger` is."""
    with open_ledger(database) as ledger:
        yield ledger


@pytest.fixture(params=["sqlite", "remote"])
def ledger(request: pytest.FixtureRequest, database: Path) -> Iterator[Ledger]:
    """An empty ledger of each kind, at `database`."""
    if request.param == "sqlite":
        with open_ledger(database) as ledger:
            yield ledger
        return
    with gateway_in_a_thread(database) as url, RemoteLedger(ApiClient(url, lambda: None)) as remote:
        yield remote
