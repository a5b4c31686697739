"""`import`."""

from __future__ import annotations

from pathlib import Path


def test_export_and_import(cli, one_message, process, tmp_path: Path) -> None:
    target = tmp_path / "ledger.ndjson"
    assert cli("export", str(target)).exit_code == 0
    assert target.stat().st_mode & 0o777 == 0o600
    other = ("--db", str(tmp_path / "other.db"))
    assert cli(*other, "import", str(target)).stdout == "Imported: 1 connection(s), 1 message(s)\n"
    assert cli(*other, "export").stdout.splitlines()[1:] == cli("export", "-").stdout.splitlines()[1:]
    third = ("--db", str(tmp_path / "third.db"))
    assert process(*third, "import", "-", stdin=target.read_bytes()).returncode == 0
    assert cli(*third, "history", "-o", "id").stdout == cli("history", "-o", "id").stdout


def test_import_that_is_refused(cli, one_message, tmp_path: Path) -> None:
    source = tmp_path / "ledger.ndjson"
    cli("export", str(source))
    assert cli("import", str(source)).exit_code == 6
    source.write_bytes(source.read_bytes().replace(b"w\xc3\xa9st", b"w\xc3st"))
    result = cli("--db", str(tmp_path / "other.db"), "import", str(source))
    assert result.exit_code == 2
    assert "line 2 is not UTF-8" in result.stderr
    assert cli("--db", str(tmp_path / "other.db"), "list", "-o", "id").stdout == ""
    assert cli("import", str(tmp_path / "nothing")).exit_code == 2
