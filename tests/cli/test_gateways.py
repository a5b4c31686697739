"""The gateway of a ledger, as commands on the same machine find it."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from ws_manager.cli.gateways import gateway_url, running_gateway
from ws_manager.errors import GatewayUnavailable, LedgerError


def test_no_gateway_runs_where_there_is_no_ledger(tmp_path: Path) -> None:
    assert running_gateway(tmp_path / "ledger.db") is None


def test_no_gateway_runs_for_a_ledger_that_is_being_made(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        # A file with its first page, and no table.
        db.execute("PRAGMA journal_mode = WAL")
        assert path.stat().st_size > 0
        with pytest.raises(GatewayUnavailable, match="no gateway runs for"):
            gateway_url(path)


def test_what_is_no_ledger_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"x" * 5000)
    with pytest.raises(LedgerError, match="not a"):
        gateway_url(path)
