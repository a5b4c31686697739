"""The time of day is set back under real processes, by Debian's `faketime`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.processes import COMMAND, PATIENCE, command, listener, running

FAKETIME = shutil.which("faketime")

pytestmark = pytest.mark.skipif(FAKETIME is None, reason="needs the program faketime (Debian's package)")


def an_hour_ahead(database: Path, *arguments: str) -> str:
    """Run a command whose clock is an hour ahead: for the others, the clock was set back since."""
    done = subprocess.run(
        [FAKETIME or "", "-f", "+1h", *COMMAND, "--db", str(database), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_check_ends_what_was_last_heard_in_the_future(tmp_path: Path) -> None:
    database = tmp_path / "ledger.db"
    for ws_id in ("ws-dead", "ws-alive"):
        an_hour_ahead(database, "connect", "octavia", "--ws-id", ws_id)
    assert command(database, "list", "--stale", "-o", "id").stdout.split() == ["ws-dead", "ws-alive"]
    assert "the clock was set back" in command(database, "show", "ws-dead", "--json").stdout
    assert command(database, "heartbeat", "ws-alive").returncode == 0
    assert command(database, "heartbeat-check").stdout == "Active: 1  Timed out: 1\n"
    assert command(database, "list", "-o", "id").stdout.split() == ["ws-alive"]


def test_a_gateway_hears_the_living_and_loses_the_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, clock = tmp_path / "ledger.db", tmp_path / "clock"
    clock.write_text("+1h\n")
    # The file is read at each look at the clock. The monotonic clock is not touched, as when one is set.
    for name, value in {
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }.items():
        monkeypatch.setenv(name, value)
    # `faketime` itself would give an offset that does not change: its library alone reads the file.
    preload = subprocess.run(
        [FAKETIME or "", "-f", "+0", "sh", "-c", "echo $LD_PRELOAD"],
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("FAKETIME_")},
    ).stdout.strip()
    serve = ["env", f"LD_PRELOAD={preload}", *COMMAND, "--db", str(database), "serve"]
    with running(*serve, "--port", "0", "--no-auth", "--timeout", "3") as gateway:
        gateway.error_line("Ready: ")
        with listener(database, "octavia", "--ws-id", "ws-lives"):
            with listener(database, "octavia", "--ws-id", "ws-dies") as dies:
                heard = json.loads(command(database, "list", "--json").stdout)[0]["last_heartbeat"]
                clock.write_text("+0\n")
                dies.end(signal.SIGKILL)
            gateway.error_line("1 connection(s) lost: no heartbeat for 3 s")
            (lives,) = json.loads(command(database, "list", "--json").stdout)
            assert lives["ws_id"] == "ws-lives"
            assert lives["last_heartbeat"] < heard
        assert gateway.end() == 0
