"""A worker of `serve --workers` on its own: what it does without a parent."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers need Linux")

LIMIT = 30


def test_worker_ends_if_its_parent_has_ended_before_it_could_join(tmp_path: Path) -> None:
    database = tmp_path / "ledger.db"
    parents, workers = socket.socketpair()
    parents.close()
    with workers:
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "ws_manager", "--db", str(database), "serve", "--no-auth"),
                *("--port", "0", "--workers", "2", "--as-worker", "1", "--channel", str(workers.fileno())),
            ],
            pass_fds=[workers.fileno()],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=LIMIT,
            check=False,
        )
    said = [json.loads(line)["message"] for line in ended.stderr.splitlines()]
    assert said == ["worker 1 ends, because its parent has ended"]
    assert ended.returncode == 0
    assert not database.exists()
