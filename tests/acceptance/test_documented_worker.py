"""The worker in Python of docs/agents.md, run as it stands there; the one in JavaScript is run in `tests/npm`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tests.acceptance.applications import documented
from tests.acceptance.processes import command, gateway_with_tokens, running
from ws_manager import get_db


def test_does_jobs_sets_aside_what_fails_and_finishes_when_it_is_stopped(tmp_path: Path) -> None:
    database = tmp_path / "ledger.db"
    worker = tmp_path / "worker.py"
    worker.write_text(documented("agents.md", "python", "worker.py"), encoding="utf-8")
    token = command(database, "token", "octavia").stdout.strip()
    environment = {**os.environ, "BLACKROAD_WS_TOKEN": token}

    def send(job: str, *options: str) -> None:
        ended = command(database, "send", "worker-001", job, "--type", "job", *options)
        assert ended.returncode == 0, ended.stderr

    with gateway_with_tokens(database) as (_, url):
        assert command(database, "connect", "octavia", "--ws-id", "worker-001").returncode == 0
        send('{"name": "first", "seconds": 0}')
        with running(sys.executable, str(worker), url, environment=environment) as program:
            assert [program.line(), program.line()] == ["begins first", "has done first"]
            send('{"name": "second"}')
            for _ in range(3):
                assert program.line() == "begins second"
            send('{"name": "third", "seconds": 0.5}')
            assert program.line() == "begins third"
            assert program.end(signal.SIGTERM) == 0
            assert program.lines() == ["has done third"]
            errors = program.rest_of_errors()
            assert len(errors) == 3 and all("KeyError" in line for line in errors)
        db = get_db(database)
        rows = db.execute("SELECT delivered, reject_reason IS NOT NULL FROM messages ORDER BY id").fetchall()
        status = db.execute("SELECT status FROM connections").fetchone()[0]
        db.close()
        assert [tuple(row) for row in rows] == [(1, 0), (0, 1), (1, 0)]
        # What is sent while it restarts waits for it.
        assert status == "active"
