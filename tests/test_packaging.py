"""What is installed: both import names, typed, loaded only when used."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Callable

import pytest

import blackroad_websocket_manager
import ws_manager

ROOT = Path(__file__).parent.parent
DOCUMENTED = (
    "get_db",
    "ConnectionPool",
    "add_connection",
    "remove_connection",
    "broadcast",
    "send_message",
    "heartbeat_check",
    "get_message_history",
    "connection_stats",
    "get_active_connections",
    "Connection",
    "Message",
)
IMPORT_NAMES = ("blackroad_websocket_manager", "ws_manager")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive


class TestWheel:
    def test_is_named_as_documented(self, wheel: zipfile.ZipFile) -> None:
        assert Path(str(wheel.filename)).name == (
            f"blackroad_websocket_manager-{ws_manager.__version__}-py3-none-any.whl"
        )

    @pytest.mark.parametrize("name", IMPORT_NAMES)
    def test_has_both_packages_typed(self, wheel: zipfile.ZipFile, name: str) -> None:
        assert {f"{name}/__init__.py", f"{name}/py.typed"} <= set(wheel.namelist())

    def test_has_every_module(self, wheel: zipfile.ZipFile) -> None:
        modules = {
            str(path.relative_to(ROOT)) for name in IMPORT_NAMES for path in (ROOT / name).rglob("*.py")
        }
        assert {name for name in wheel.namelist() if name.endswith(".py")} == modules

    def test_has_nothing_else(self, wheel: zipfile.ZipFile) -> None:
        tops = {name.split("/")[0] for name in wheel.namelist()}
        assert tops == {*IMPORT_NAMES, f"blackroad_websocket_manager-{ws_manager.__version__}.dist-info"}


class TestInstallation:
    def test_version_is_the_same_everywhere(self) -> None:
        installed = importlib.metadata.version("blackroad-websocket-manager")
        assert ws_manager.__version__ == installed == blackroad_websocket_manager.__version__

    def test_command(self) -> None:
        scripts = importlib.metadata.distribution("blackroad-websocket-manager").entry_points
        assert [(script.name, script.value) for script in scripts] == [
            ("ws-manager", "ws_manager.__main__:main")
        ]


class TestNames:
    @pytest.mark.parametrize("name", DOCUMENTED)
    def test_both_import_names_have_the_same_thing(self, name: str) -> None:
        assert getattr(blackroad_websocket_manager, name) is getattr(ws_manager, name)

    @pytest.mark.parametrize("package", [blackroad_websocket_manager, ws_manager], ids=IMPORT_NAMES)
    def test_everything_in_all_is_there(self, package: object) -> None:
        names: list[str] = package.__all__  # type: ignore[attr-defined]
        assert set(DOCUMENTED) <= set(names)
        assert sorted(names) == dir(package)
        for name in names:
            getattr(package, name)

    @pytest.mark.parametrize("package", [blackroad_websocket_manager, ws_manager], ids=IMPORT_NAMES)
    def test_what_is_not_there(self, package: object) -> None:
        with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
            package.no_such_name  # type: ignore[attr-defined] # noqa: B018

    @pytest.mark.parametrize("name", IMPORT_NAMES)
    def test_star_import(self, name: str, run_python: Callable[..., str]) -> None:
        run_python(f"from {name} import *; get_db, ConnectionPool, broadcast")

    @pytest.mark.parametrize("name", IMPORT_NAMES)
    def test_import_loads_nothing_heavy(self, name: str, run_python: Callable[..., str]) -> None:
        heavy = {
            "sqlite3",
            "aiohttp",
            "typer",
            "asyncio",
            "rich",
            "sqlite_utils",
            "jwt",
            "dataclasses",
        }
        run_python(f"import sys, {name}; loaded = {heavy} & set(sys.modules); assert not loaded, loaded")

    def test_documented_functions_load_neither_aiohttp_nor_typer(
        self, run_python: Callable[..., str]
    ) -> None:
        heavy = {"aiohttp", "typer", "asyncio", "rich", "sqlite_utils"}
        code = f"from blackroad_websocket_manager import {', '.join(DOCUMENTED)}\nimport sys"
        run_python(f"{code}; loaded = {heavy} & set(sys.modules); assert not loaded, loaded")


PROGRAM = f"""
import sqlite3
from typing import Any, Optional
from PACKAGE import {", ".join(DOCUMENTED)}

db: sqlite3.Connection = get_db()
pool = ConnectionPool(get_db())
connection: Connection = add_connection(pool, "ws-001", "octavia", {{"region": "us-west"}})
reached: list[str] = broadcast(pool, get_db(), 1, filter_fn=lambda c: c.agent == "octavia")
message: Optional[Message] = send_message(pool, get_db(), "ws-001", 1)
rows: list[dict[str, Any]] = get_message_history(get_db())
every: list[Connection] = get_active_connections(pool)
was_active: bool = remove_connection(pool, "ws-001")
report: dict[str, list[str]] = heartbeat_check(pool, get_db())
stats: dict[str, Any] = connection_stats(pool, get_db())
wrong: int = send_message(pool, get_db(), "ws-001", 1)
"""


def test_type_checker_sees_the_names(tmp_path: Path) -> None:
    for name in IMPORT_NAMES:
        (tmp_path / f"with_{name}.py").write_text(PROGRAM.replace("PACKAGE", name))
    # Elsewhere than in the source tree, so that the names are found as in any program that installs us.
    ended = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    errors = sorted(ended.stdout.splitlines())
    assert [error.split(" (")[0] for error in errors] == [
        f"with_{name}.py:16: error: Incompatible types in assignment" for name in IMPORT_NAMES
    ]
