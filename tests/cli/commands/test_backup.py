"""`backup`."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.sqlite_only("a copy of its file")
def test_backup(cli, one_message, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    result = cli("backup", str(target))
    assert (result.exit_code, result.stdout) == (0, f"Backed up to {target}\n")
    assert target.stat().st_mode & 0o777 == 0o600
    assert cli("--db", str(target), "history", "-o", "id").stdout == cli("history", "-o", "id").stdout
    before = target.read_bytes()
    refused = cli("backup", str(target))
    assert refused.exit_code == 2
    assert "exists already" in refused.stderr
    assert target.read_bytes() == before
