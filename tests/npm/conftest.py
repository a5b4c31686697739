"""The npm package, built, packed and installed by the real npm, and Pythons that have no packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from tests.acceptance.processes import running
from tests.npm.building import ROOT, builder


def _interpreter(minor: int) -> Optional[str]:
    npm_build = builder()
    try:
        return str(npm_build.interpreter(minor, None, ""))
    except npm_build.Missing:
        return None


@pytest.fixture(scope="session")
def package() -> Path:
    """The packed package, built now."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    built = subprocess.run(
        [sys.executable, str(ROOT / "npm" / "build.py")], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return Path(built.stdout.strip())


@pytest.fixture(scope="session")
def project(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty project into which the package was installed."""
    folder = tmp_path_factory.mktemp("project with spaces")
    (folder / "package.json").write_text("{}")
    subprocess.run(
        ["npm", "install", "--offline", "--no-audit", "--no-fund", str(package)],
        cwd=folder,
        check=True,
        capture_output=True,
        env={**os.environ, "npm_config_cache": str(tmp_path_factory.mktemp("npm"))},
    )
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package keeps compiled files, for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def yarn(package: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Yarn 4, a program for Node."""
    folder = tmp_path_factory.mktemp("yarn")
    fetched = subprocess.run(
        ["npm", "pack", "--silent", "@yarnpkg/cli-dist@4"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if fetched.returncode:
        pytest.skip(f"npm cannot fetch Yarn: {' '.join(fetched.stderr.split())}")
    with tarfile.open(folder / fetched.stdout.strip()) as archive:
        program = archive.extractfile("package/bin/yarn.js")
        assert program is not None
        (folder / "yarn.js").write_bytes(program.read())
    return str(folder / "yarn.js")


@pytest.fixture(scope="session", params=["oldest", "newest"])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has no packages: 3.9, and the newest that is found."""
    minors = [9] if request.param == "oldest" else range(30, 9, -1)
    found = next(filter(None, map(_interpreter, minors)), None)
    if found is None:
        pytest.fail(f"no Python {'3.9' if request.param == 'oldest' else '3.10 or newer'} was found")
    folder = tmp_path_factory.mktemp("python")
    subprocess.run([found, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def without_network() -> Iterator[list[str]]:
    """What a command is run with to have no network but loopback; nothing where that is not permitted."""
    script = "ip link set lo up && echo up && exec sleep 1h"
    allowed = ["unshare", "-n", "ip", "link", "set", "lo", "up"]
    programs = all(map(shutil.which, ("unshare", "nsenter", "ip")))
    if not programs or subprocess.run(allowed, capture_output=True, check=False).returncode:
        yield []
        return
    with running("unshare", "-n", "sh", "-c", script) as holder:
        assert holder.line() == "up"
        yield ["nsenter", "-t", str(holder.process.pid), "-n"]


@pytest.fixture
def environment(
    project: Path, cache: Path, python: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands of the tests run in the project, with that Python, and find no network by a proxy either."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("BLACKROAD_WS_PYTHON", str(python))
    monkeypatch.setenv("BLACKROAD_WS_DB", str(database))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("npm_config_cache", str(cache / "npm"))
    monkeypatch.setenv("npm_config_update_notifier", "false")
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


@pytest.fixture
def shim(environment: None, project: Path) -> str:
    """The command that npm has made."""
    return str(project / "node_modules" / ".bin" / "ws-manager")


@pytest.fixture
def ws(shim: str, without_network: list[str]) -> list[str]:
    """The same, without network."""
    return [*without_network, shim]
