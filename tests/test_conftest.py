"""Tests that are coroutine functions: they are run, they can fail, and they end."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import run

ROOT = Path(__file__).parent.parent

needs_uvloop = pytest.mark.skipif(
    importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed here"
)


def outcome(folder: Path, body: str, *options: str) -> str:
    """Run one test with this body under the project's conftest, and return what pytest printed."""
    hooks = "pytest_addoption, pytest_configure, pytest_pyfunc_call"
    (folder / "conftest.py").write_text(f"from tests.conftest import {hooks}\n", encoding="utf-8")
    (folder / "test_it.py").write_text(f"import asyncio\nfrom tests import support\n{body}", encoding="utf-8")
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            folder,
            folder,
            *options,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    return ended.stdout


def test_one_that_holds_passes(tmp_path: Path) -> None:
    body = "async def test_it(tmp_path):\n    await asyncio.sleep(0)\n    assert tmp_path.exists()\n"
    assert "1 passed" in outcome(tmp_path, body)


def test_one_that_does_not_hold_fails(tmp_path: Path) -> None:
    assert "1 failed" in outcome(
        tmp_path, "async def test_it():\n    await asyncio.sleep(0)\n    assert False\n"
    )


def test_one_that_hangs_is_ended() -> None:
    async def hangs() -> None:
        await asyncio.Event().wait()

    with pytest.raises(asyncio.TimeoutError):
        run(hangs(), seconds=0)


@pytest.mark.parametrize("loop", ["asyncio", pytest.param("uvloop", marks=needs_uvloop)])
def test_one_runs_on_the_loop_that_was_chosen(tmp_path: Path, loop: str) -> None:
    body = (
        "async def test_it():\n"
        f"    assert type(asyncio.get_running_loop()).__module__.partition('.')[0] == {loop!r}\n"
    )
    assert "1 passed" in outcome(tmp_path, body, f"--loop={loop}")


async def test_this_one_runs_in_a_loop(request: pytest.FixtureRequest) -> None:
    assert request.node.name == "test_this_one_runs_in_a_loop"
