"""`export`."""

from __future__ import annotations

from pathlib import Path


def test_export_to_a_file_that_is_there(cli, one_message, tmp_path: Path) -> None:
    target = tmp_path / "ledger.ndjson"
    target.write_text("mine")
    assert cli("export", str(target)).exit_code == 2
    assert target.read_text() == "mine"
    assert cli("export", str(tmp_path / "no" / "folder")).exit_code == 2


def test_export_on_a_terminal_is_escaped(cli, one_message, terminal) -> None:
    _, seen = terminal("export")
    assert "\u202e" not in seen
    assert "\u009b" not in seen
