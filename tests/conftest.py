"""What every test may use: a scratch ledger, and an environment that is not the user's."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional, Union

import pytest

from tests.postgres import Server, server
from tests.support import Sql, open_sql, run
from ws_manager import ConnectionPool

# A shell starts what runs in the background with SIGINT ignored, and nohup with SIGHUP. What these tests start
# would inherit that, and keep it.
for _name, _usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    _number = getattr(signal, _name, None)
    if _number is not None and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the event loop and the engine be chosen.

    `serve` uses uvloop where it can, and asyncio's own everywhere else.
    """
    parser.addoption("--loop", choices=["asyncio", "uvloop"], default="asyncio", help="the tests' event loop")
    parser.addoption(
        "--engine",
        choices=["sqlite", "postgres"],
        default="sqlite",
        help="what keeps the ledger at `database`",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make every event loop of this process the chosen one."""
    if config.getoption("--loop") == "uvloop":
        try:
            import uvloop
        except ImportError:
            raise pytest.UsageError("uvloop is not installed here: leave out --loop") from None
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> Optional[bool]:
    """Leave the tests of the npm package to `make test-npm`: they build it, and run once for all Pythons."""
    asked = any("npm" in argument for argument in config.invocation_params.args)
    return True if collection_path == Path(__file__).parent / "npm" and not asked else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On PostgreSQL, leave out what has no ledger, and skip what is about SQLite's file."""
    if config.getoption("--engine") == "sqlite":
        return
    without = [item for item in items if "database" not in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=without)
    items[:] = [item for item in items if item not in set(without)]
    for item in items:
        for marker in item.iter_markers("sqlite_only"):
            item.add_marker(pytest.mark.skip(reason=f"only of SQLite: {marker.args[0]}"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Optional[bool]:
    """Run a test that is a coroutine function in an event loop of its own, for a bounded time."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(autouse=True)
def _isolated_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's home and settings out of the tests, and the tests out of them."""
    for name in list(os.environ):
        # A process that pytest-xdist starts has COLUMNS and LINES, which go before the size of a terminal.
        if name.startswith(("BLACKROAD_", "STRIPE_", "WS_MANAGER_")) or name in (
            "TRACEPARENT",
            "COLUMNS",
            "LINES",
        ):
            monkeypatch.delenv(name)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


@pytest.fixture
def database(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Union[Path, str]:
    """Where a ledger can be made: the path of a file that does not exist yet.

    With `--engine postgres` it is the URL of a database, in which an empty ledger is unless the test carries the
    marker `no_ledger`. Tests that need a path carry `sqlite_only`; the others use it as a `Location`.
    """
    if request.config.getoption("--engine") == "sqlite":
        return tmp_path / "ledger.db"
    # There is no file beside a database of PostgreSQL that could have the key.
    monkeypatch.setenv("BLACKROAD_WS_SECRET", "the key of these tests, not a secret")
    if request.node.get_closest_marker("no_ledger"):
        return str(request.getfixturevalue("postgres_url"))
    server: Server = request.getfixturevalue("postgres")
    return server.emptied()


@pytest.fixture
def db(database: Union[Path, str]) -> Iterator[Sql]:
    """An open, empty ledger at `database`."""
    connection = open_sql(database)
    yield connection
    connection.close()


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder into which every user may write; `tmp_path` is for its owner alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def pool(db: Any) -> ConnectionPool:
    """A pool on `db`."""
    return ConnectionPool(db)


@pytest.fixture
def run_python() -> Callable[..., str]:
    """Run a piece of Python in a process of its own, and return what it printed."""

    def run(code: str, *arguments: object) -> str:
        ended = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run


@pytest.fixture
def run_together() -> Callable[..., list[str]]:
    """Run a piece of Python in several processes that begin at the same moment, and return what each printed.

    Each gets its number as the last argument. It must not begin before it has read a line from stdin.
    """

    def run(code: str, processes: int, *arguments: object) -> list[str]:
        begin = "import sys\nprint('ready', flush=True)\nsys.stdin.readline()\n"
        started = [
            subprocess.Popen(
                [sys.executable, "-c", begin + code, *map(str, arguments), str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(processes)
        ]
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        outputs = []
        for process in started:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in started:
            output, errors = process.communicate()
            assert process.returncode == 0, errors
            outputs.append(output)
        return outputs

    return run


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server of PostgreSQL, for all tests of this process."""
    with server() as started:
        yield started


@pytest.fixture
def postgres_url(postgres: Server) -> Iterator[str]:
    """The URL of a database that has no ledger yet."""
    yield postgres.usual
    postgres.empty(postgres.usual)
