"""A full disk under a running gateway: sockets stay, sends are refused, and all recovers when there is room."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import command, gateway, listener, running

AGENT = """
import asyncio, sys
from ws_manager.client.agent import AgentClient
from ws_manager.errors import WsManagerError

async def main(url):
    async with AgentClient("cipher", url=url, ws_id="ws-asks") as client:
        print("ready", flush=True)
        for line in sys.stdin:
            try:
                await client.send("ws-hears", line.strip())
                print("sent", flush=True)
            except WsManagerError as error:
                print(error.code, error.message, flush=True)

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if sys.platform == "linux"
        else None
    )
    if mounted is None or mounted.returncode:
        pytest.skip(f"no small file system: {mounted.stderr.strip() if mounted else 'needs Linux'}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no room."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    return filler


def test_all_recovers_when_there_is_room(small_disk: Path) -> None:
    database = small_disk / "ledger.db"
    with gateway(database) as (program, url), listener(database, "octavia", "--ws-id", "ws-hears") as hears:
        with running(sys.executable, "-c", AGENT, url, stdin=subprocess.PIPE) as asks:
            assert asks.line() == "ready"
            filler = fill(small_disk)

            refused = command(database, "send", "ws-hears", '"' + "x" * 100_000 + '"')
            assert refused.returncode == 1
            assert "the disk is full" in refused.stderr
            assert "make room" in refused.stderr

            asks.process.stdin.write("y" * 50_000 + "\n")
            asks.process.stdin.flush()
            assert asks.line() == "ledger the ledger cannot grow: the disk is full"

            filler.unlink()
            asks.process.stdin.write("there is room\n")
            asks.process.stdin.flush()
            assert asks.line() == "sent"
            sent = command(database, "send", "ws-hears", '"again"', "--wait", "20s")
            assert sent.returncode == 0, sent.stderr
            assert [hears.line().rpartition('"content":')[2] for _ in range(2)] == [
                '"there is room"}',
                '"again"}',
            ]
            assert not any("Disconnected" in line for line in hears.errors)
        assert program.end() == 0
