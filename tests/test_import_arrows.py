"""Who may import whom: the contracts in pyproject.toml, and that they are not empty words."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHECK = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"


def lint(folder: Path) -> tuple[int, str]:
    """Check the contracts of a tree, and return the exit code and what was printed."""
    ended = subprocess.run(
        [sys.executable, "-c", CHECK], cwd=folder, capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


# The arrows are the same on every Python.
linted = pytest.mark.skipif(
    sys.version_info < (3, 10), reason="no import-linter for 3.9 knows acyclic_siblings"
)


@linted
def test_imports_follow_the_arrows_of_the_design() -> None:
    code, printed = lint(ROOT)
    assert code == 0, printed
    assert "0 broken" in printed


@linted
@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("core/registry.py", "ws_manager.stripe.events"),
        ("repository/engines.py", "ws_manager.tokens"),
        ("core/ledger.py", "ws_manager.repository.sqlite.store"),
        ("gateway/net/tcp.py", "ws_manager.gateway.http.access"),
        ("cli/options.py", "ws_manager.cli.output.rows"),
    ],
)
def test_another_arrow_is_refused(tmp_path: Path, module: str, imported: str) -> None:
    for name in ("ws_manager", "blackroad_websocket_manager"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    changed = tmp_path / "ws_manager" / module
    changed.write_text(f"{changed.read_text(encoding='utf-8')}\nimport {imported}\n", encoding="utf-8")
    code, printed = lint(tmp_path)
    assert code != 0
    assert re.search(r"[1-9] broken", printed), printed


def test_what_sqlite_needs_stays_in_its_engine() -> None:
    """SQLite is known elsewhere only to what takes a connection as `db_conn`."""
    leaks = re.compile(r"sqlite3|PRAGMA|data_version|\.transaction\(|filelock")
    allowed = {"core/functions.py", "core/pool.py", "stripe/events.py"}
    found = {
        path.relative_to(ROOT / "ws_manager").as_posix()
        for path in (ROOT / "ws_manager").rglob("*.py")
        if leaks.search(path.read_text(encoding="utf-8"))
    }
    # The other engine has transactions too.
    engines = ("repository/sqlite/", "repository/postgres/")
    assert {path for path in found if not path.startswith(engines)} <= allowed


def test_what_postgres_needs_stays_in_its_engine() -> None:
    found = {
        path.relative_to(ROOT / "ws_manager").as_posix()
        for path in (ROOT / "ws_manager").rglob("*.py")
        if re.search(r"psycopg|\bpg_\w+", path.read_text(encoding="utf-8"))
    }
    assert all(path.startswith("repository/postgres/") for path in found), found


def test_no_module_is_long() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / "ws_manager").rglob("*.py")
    }
    assert not {path: length for path, length in lengths.items() if length > 450}
