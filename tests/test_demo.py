"""The first thing that a newcomer runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_demo_runs_to_its_end() -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "demo" / "demo.py")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("target", "developers"), [("demo", False), ("test", True)])
def test_it_installs_only_what_it_runs(target: str, developers: bool, tmp_path: Path) -> None:
    said = subprocess.run(
        ["make", "--dry-run", target, f"PYTHON={sys.executable}", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "install --quiet --disable-pip-version-check --editable .\n" in said
    assert ("--group" in said) == developers
