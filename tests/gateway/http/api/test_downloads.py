"""`GET /v1/export` and `GET /v1/backup`."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from tests.gateway.http.api.support import KEY, ask, token
from tests.support import RunningGateway, gateway, until
from ws_manager import open_ledger


def filled(running: RunningGateway) -> None:
    """More than a piece of an export."""
    running.ledger.connect("octavia", "ws-001")
    running.send_many(3000, content="x" * 1000)


async def downloaded(running: RunningGateway, what: str) -> bytes:
    headers = {"Authorization": f"Bearer {token()}"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{running.url}/v1/{what}", headers=headers) as response,
    ):
        assert response.status == 200
        return await response.read()


async def test_an_export_is_imported_as_it_was(database: Path, tmp_path: Path) -> None:
    async with gateway(database, key=KEY) as running:
        filled(running)
        lines = (await downloaded(running, "export")).decode().splitlines()
        with open_ledger(tmp_path / "other.db") as other:
            counts = other.maintenance.import_lines(lines)
            assert counts["messages"] == 3000
            assert other.find("ws-001") == running.ledger.find("ws-001")


@pytest.mark.sqlite_only("a copy of its file")
async def test_a_backup_is_a_ledger_and_leaves_nothing_behind(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    async with gateway(database, key=KEY) as running:
        filled(running)
        copy = tmp_path / "copy.db"
        copy.write_bytes(await downloaded(running, "backup"))
        with open_ledger(copy, read_only=True) as other:
            assert other.stats() == running.ledger.stats()
    assert list(scratch.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} >= {"copy.db"}


@pytest.mark.parametrize("what", ["export", "backup"])
async def test_only_an_operator_gets_one(database: Path, what: str) -> None:
    async with gateway(database, key=KEY) as running:
        for bearer in (token("read", "content"), token("admin", agent="octavia")):
            assert (await ask(running, "GET", f"/v1/{what}", bearer=bearer)).status == 403


async def test_one_at_a_time_and_a_reader_that_goes_ends_it(database: Path) -> None:
    async with gateway(database, key=KEY) as running:
        running.ledger.connect("octavia", "ws-001")
        running.send_many(200, content="x" * 200_000)
        headers = {"Authorization": f"Bearer {token()}"}
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{running.url}/v1/export", headers=headers) as response,
        ):
            await response.content.readany()
            assert (await ask(running, "GET", "/v1/backup")).status == 409
            response.close()
        await until(lambda: not running.server._downloads._busy)
        assert (await ask(running, "GET", "/v1/export")).status == 200


@pytest.mark.sqlite_only("a copy of its file")
async def test_where_a_backup_cannot_be_made(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    async with gateway(database, key=KEY) as running:
        failed = await ask(running, "GET", "/v1/backup")
        assert (failed.status, failed.body["detail"]) == (503, "the gateway has no room for a copy")
