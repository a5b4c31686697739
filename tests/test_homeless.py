"""A user without a home folder: what needs no home works, and the rest fails with one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ws_manager.errors import InvalidInput
from ws_manager.repository.sqlite.opening import open_to_write
from ws_manager.settings import database_location, expanded

HOMELESS = (
    # As in a container that runs with any uid: there is no HOME, and the user database knows nobody.
    "import os, pwd, sys\n"
    "os.environ.pop('HOME', None)\n"
    "def unknown(*_):\n    raise KeyError('uid not found')\n"
    "pwd.getpwuid = pwd.getpwnam = unknown\n"
)


def run(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of such a user."""
    return subprocess.run(
        [sys.executable, "-c", HOMELESS + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )


def program(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the program as such a user."""
    return run("from ws_manager.__main__ import main; main()", *arguments, **variables)


pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows finds the home folder another way")


class TestWithoutAHome:
    def test_the_library_works_on_a_named_file(self, database: Path) -> None:
        ended = run(
            "from ws_manager import *; import ws_manager, blackroad_websocket_manager\n"
            "db = get_db(sys.argv[1]); add_connection(ConnectionPool(db), 'ws-001', 'octavia'); db.close()\n"
            "print(ws_manager.DB_PATH, blackroad_websocket_manager.DB_PATH == ws_manager.DB_PATH)",
            str(database),
        )
        assert ended.stdout == "~/.blackroad/websocket-manager.db True\n", ended.stderr

    def test_the_library_works_on_the_file_of_the_environment(self, database: Path) -> None:
        ended = run("from ws_manager import get_db; get_db().close()", BLACKROAD_WS_DB=str(database))
        assert (ended.returncode, ended.stderr, database.exists()) == (0, "", True)

    def test_the_default_is_told_to_be_unknown(self) -> None:
        ended = run(
            "from ws_manager import *\ntry: get_db()\nexcept InvalidInput as e: print(e, '|', e.hint)"
        )
        assert "this user has no home folder" in ended.stdout
        assert "a path or BLACKROAD_WS_DB" in ended.stdout
        assert not Path("~").exists()

    @pytest.mark.parametrize(
        "arguments", [("connect", "octavia"), ("list",), ("token", "octavia"), ("doctor",)]
    )
    def test_the_commands_work_on_a_named_file(self, database: Path, arguments: tuple[str, ...]) -> None:
        open_to_write(database).close()
        for given in ({"BLACKROAD_WS_DB": str(database)}, {}):
            options = [] if given else ["--db", str(database)]
            ended = program(*options, *arguments, **given)
            assert (ended.returncode, ended.stderr) == (0, ""), ended

    def test_the_commands_say_what_to_do_otherwise(self) -> None:
        ended = program("list")
        assert ended.returncode == 2
        assert ended.stderr.splitlines() == [
            "error: no such path: ~/.blackroad/websocket-manager.db:"
            " this user has no home folder, and HOME is not set",
            "hint: say where the database is, with --db or BLACKROAD_WS_DB",
        ]

    def test_help_and_version_need_no_database(self) -> None:
        for argument in ("--help", "--version"):
            assert program(argument).returncode == 0

    def test_an_agent_of_another_machine_needs_no_database(self) -> None:
        ended = run(
            "from ws_manager.client.credentials import own_token\n"
            "print(own_token(None, 'octavia', None, 'https://gateway.example.com'))"
        )
        assert ended.stdout == "None\n", ended.stderr


class TestNobodysHome:
    def test_is_no_path(self) -> None:
        with pytest.raises(InvalidInput, match=r"~no-such-user/x: there is no user no-such-user"):
            expanded("~no-such-user/x")

    def test_of_the_environment(self) -> None:
        with pytest.raises(InvalidInput, match="there is no user no-such-user"):
            database_location({"BLACKROAD_WS_DB": "~no-such-user/x"})

    def test_of_the_library(self) -> None:
        with pytest.raises(InvalidInput, match="there is no user no-such-user"):
            open_to_write("~no-such-user/x")

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--db", "~no-such-user/x", "list"),
            ("list", "--db", "~no-such-user/x"),
            ("backup", "~no-such-user/x"),
            ("export", "~no-such-user/x"),
            ("import", "~no-such-user/x"),
            ("send", "--batch", "~no-such-user/x"),
            ("listen", "octavia", "--url", "http://127.0.0.1:1", "--token-file", "~no-such-user/x"),
            ("listen", "octavia", "--url", "http://127.0.0.1:1", "--ca", "~no-such-user/x"),
            ("serve", "--tls-cert", "~no-such-user/x", "--tls-key", "~no-such-user/x"),
        ],
        ids=" ".join,
    )
    def test_of_a_command(self, database: Path, arguments: tuple[str, ...]) -> None:
        open_to_write(database).close()
        ended = subprocess.run(
            [sys.executable, "-m", "ws_manager", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "BLACKROAD_WS_DB": str(database)},
        )
        lines = ended.stderr.splitlines()
        assert (ended.returncode, ended.stdout, len(lines)) == (2, "", 2), ended
        assert "no-such-user" in lines[0]
