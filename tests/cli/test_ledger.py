"""Opening the ledger of a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from ws_manager.settings import located


@pytest.mark.no_ledger
@pytest.mark.parametrize(
    "arguments", [("prune", "--older-than", "0s"), ("backup", "COPY"), ("export",), ("doctor",)]
)
def test_a_mistyped_database_is_not_made(cli, database: Path, tmp_path: Path, arguments) -> None:
    result = cli(*(str(tmp_path / "copy.db") if word == "COPY" else word for word in arguments))
    assert result.exit_code == 1
    assert str(located(database)) in result.stdout + result.stderr
    assert list(tmp_path.iterdir()) == []
