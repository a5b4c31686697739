"""With nowhere to write, nothing is confirmed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.acceptance.processes import COMMAND, PATIENCE, gateway
from ws_manager import ConnectionPool, add_connection, get_message_history, send_message
from ws_manager.repository.sqlite.database import Database


@pytest.mark.parametrize("arguments", ["receive ws-001", "listen octavia --ws-id ws-001 --count 1"])
def test_a_closed_stdout_leaves_messages_pending(
    arguments: str, database: Path, db: Database, pool: ConnectionPool
) -> None:
    add_connection(pool, "ws-001", "octavia")
    send_message(pool, db, "ws-001", "precious")
    with gateway(database):
        ended = subprocess.run(
            ["bash", "-c", f'exec "$@" {arguments} >&-', "-", *COMMAND, "--db", str(database)],
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert (ended.returncode, "stdout is closed" in ended.stderr) == (1, True)
    assert get_message_history(db)[0]["delivered"] == 0
