"""Completion: what is offered, and that real shells put it into the line so that the command gets it back."""

from __future__ import annotations

import os
import pty
import select
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support import open_sql
from ws_manager.cli.completion import split
from ws_manager.core.locations import exists

BREAKS = " \t\n\"'@><=;|&(:"
PATIENCE = 20.0
NAMES = ("ws one", "ws:two", "o'brien", 'say "x"', "co$t`s", "back\\slash", "wést", "*", "[bold]", "plain-1")


@pytest.fixture
def offered(environment):
    """What bash is offered for a line."""

    def complete(line: str, **variables: str) -> list[str]:
        ended = subprocess.run(
            [sys.executable, "-m", "ws_manager"],
            capture_output=True,
            text=True,
            check=True,
            env={
                **environment,
                "_WS_MANAGER_COMPLETE": "complete_bash",
                "_TYPER_COMPLETE_ARGS": line,
                "COMP_WORDBREAKS": BREAKS,
                **variables,
            },
        )
        assert ended.stderr == ""
        return [name for name in ended.stdout.split("\n") if name]

    return complete


@pytest.fixture
def connected(cli) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    cli("connect", "cipher", "--ws-id", "ws-002")
    cli("connect", "octavia", "--ws-id", "gone-1")
    cli("disconnect", "gone-1")


def test_commands_and_options(offered) -> None:
    assert offered("ws-manager se") == ["send", "serve"]
    assert offered("ws-manager --vers") == ["--version"]
    assert offered("ws-manager send --wa") == ["--wait"]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("send ", ["ws-001", "ws-002"]),
        ("send ws-002", ["ws-002"]),
        ("ask ", ["ws-001", "ws-002", "cipher", "octavia"]),
        ("ask o", ["octavia"]),
        ("disconnect ", ["ws-001", "ws-002"]),
        ("heartbeat w", ["ws-001", "ws-002"]),
        ("receive ", ["gone-1", "ws-001", "ws-002"]),
        ("history --ws-id g", ["gone-1"]),
        ("history --ws-id=g", ["gone-1"]),
        ("connect ", ["cipher", "octavia"]),
        ("connect octavia --ws-id gone", ["gone-1"]),
        ("broadcast x --agent o", ["octavia"]),
        ("--json send ", ["ws-001", "ws-002"]),
        ("send nobody", []),
        ("show g", ["gone-1"]),
        ("stats ", []),
    ],
)
def test_names_from_the_ledger(connected, offered, line: str, names: list[str]) -> None:
    assert offered(f"ws-manager {line}") == names


def test_messages_and_broadcasts(cli, connected, offered) -> None:
    cli("broadcast", "1")
    newest = cli("history", "-o", "id").stdout.split()
    assert set(newest) <= set(offered("ws-manager show "))
    # The ids of a broadcast begin alike.
    assert offered(f"ws-manager show {newest[0][:-1]}") == [newest[0]]
    # Two messages, a broadcast, three connections.
    assert len(offered("ws-manager show ")) == 6


def test_names_that_would_steer_the_terminal_are_not_offered(connected, offered, db) -> None:
    db.execute("UPDATE connections SET ws_id = 'ws-\u202e\u200b1' WHERE ws_id = 'ws-001'")
    assert offered("ws-manager send ") == ["ws-002"]


def test_conditions(cli, offered) -> None:
    label = '{"app.kubernetes.io/name":"web","region":"us-west","long":"%s","lines":"a\\nb"}' % ("x" * 100)
    cli("connect", "octavia", "--ws-id", "ws-001", "--metadata", label)
    cli("connect", "cipher", "--ws-id", "ws-002", "--metadata", '{"region":"eu"}')
    assert offered("ws-manager broadcast x --where '") == [
        "agent=cipher",
        "agent=octavia",
        'metadata."app.kubernetes.io/name"=web',
        "metadata.region=eu",
        "metadata.region=us-west",
    ]
    assert offered("ws-manager broadcast x --where agent=o") == ["octavia"]
    assert offered("ws-manager broadcast x --where metadata.r") == [
        "metadata.region=eu",
        "metadata.region=us-west",
    ]
    assert offered("ws-manager broadcast x --where 'metadata.\"app") == [
        'metadata."app.kubernetes.io/name"=web'
    ]


def test_a_database_that_the_line_names(cli, connected, offered, database: Path, tmp_path: Path) -> None:
    other = tmp_path / "other one.db"
    cli("--db", str(other), "connect", "octavia", "--ws-id", "elsewhere")
    assert offered(f"ws-manager --db '{other}' send ") == ["elsewhere"]
    assert offered(f"ws-manager send --db '{other}' ") == ["elsewhere"]
    assert offered(f"ws-manager '--db={other}' send ") == ["elsewhere"]
    assert offered("ws-manager send ", BLACKROAD_WS_DB=str(other)) == ["elsewhere"]


@pytest.mark.no_ledger
def test_it_makes_nothing(offered, database: Path) -> None:
    assert offered("ws-manager send ") == []
    assert not exists(database)


@pytest.mark.sqlite_only("files that are no ledger")
@pytest.mark.parametrize("contents", [b"", b"no database" * 1000, "folder", "earlier"])
def test_a_file_that_is_no_ledger_is_silence(offered, database: Path, contents: object) -> None:
    if isinstance(contents, bytes):
        database.write_bytes(contents)
    elif contents == "folder":
        database.mkdir()
    else:
        db = sqlite3.connect(database)
        db.execute("CREATE TABLE connections (id INTEGER PRIMARY KEY)")
        db.close()
    before = database.read_bytes() if database.is_file() else b""
    assert offered("ws-manager send ") == []
    assert [path.name for path in database.parent.iterdir()] == [database.name]
    assert (database.read_bytes() if database.is_file() else b"") == before


def test_while_others_have_it_open(connected, offered, database: Path) -> None:
    db = open_sql(database)
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE connections SET message_count = 1")
    assert offered("ws-manager send ") == ["ws-001", "ws-002"]
    db.execute("ROLLBACK")
    db.close()


@pytest.mark.sqlite_only("psycopg loads asyncio")
def test_it_loads_little(connected, modules_of) -> None:
    variables = {"_WS_MANAGER_COMPLETE": "complete_bash", "COMP_WORDBREAKS": BREAKS}
    names = modules_of(_TYPER_COMPLETE_ARGS="ws-manager ", **variables)
    core = {name for name in names if name.startswith("ws_manager.core.")}
    assert core <= {"ws_manager.core.locations"}
    assert not {f"ws_manager.cli.commands.{name}" for name in ("send", "prune", "listen", "serve")} & names
    names = modules_of(_TYPER_COMPLETE_ARGS="ws-manager send ", **variables)
    assert not {"rich", "sqlite_utils", "aiohttp", "asyncio"} & names


@pytest.mark.parametrize(
    ("line", "words", "last"),
    [
        ("a b", ["a"], ("b", "")),
        ("a b ", ["a", "b"], ("", "")),
        ("a 'b c' d", ["a", "b c"], ("d", "")),
        ("a 'b c", ["a"], ("b c", "'")),
        ('a "b \\" c', ["a"], ('b " c', '"')),
        ('a "b\\c', ["a"], ("b\\c", '"')),
        ("a b\\ c", ["a"], ("b c", "")),
        ("a '' ", ["a", ""], ("", "")),
    ],
)
def test_splitting(line: str, words: list[str], last: tuple[str, str]) -> None:
    found, word = split(line)
    assert (found, word[:2]) == (words, last)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_each_shell_has_a_script(process, shell: str) -> None:
    ended = process("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert ended.returncode == 0
    assert b"_WS_MANAGER_COMPLETE" in ended.stdout


def in_shell(arguments: list[str], typed: str, environment: dict[str, str], until: str) -> str:
    """Type into a shell on a terminal until a text appears there, and return what is seen."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    ) as shell:
        os.close(theirs)
        os.write(ours, typed.encode())
        seen = ""
        while until not in seen:
            # A shell that waits for a closing quote would wait for ever.
            if not select.select([ours], [], [], PATIENCE)[0]:
                break
            try:
                some = os.read(ours, 65536)
            except OSError:
                break
            seen += some.decode(errors="replace")
        shell.kill()
        os.close(ours)
    return seen


@pytest.fixture
def bash(environment, tmp_path: Path, process):
    """Type into a bash that completes ws-manager, and return what is seen."""
    script = tmp_path / "completion.sh"
    shown = process("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    script.write_bytes(shown.stdout + b"\nPS1='$ '\n")

    def run(typed: str) -> str:
        return in_shell(
            ["bash", "--noprofile", "--rcfile", str(script), "-i"],
            f"{typed}; echo do''ne\n",
            {
                **environment,
                "TERM": "dumb",
                "LANG": "C.UTF-8",
                "HISTFILE": "",
                "PATH": sysconfig.get_path("scripts") + os.pathsep + environment["PATH"],
            },
            "\ndone",
        )

    return run


@pytest.mark.parametrize("quote", ["", "'", '"'])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_survives_a_real_bash(cli, bash, name: str, quote: str) -> None:
    cli("connect", "octavia", "--ws-id", name)
    # The tab completes the word and, as it is the only one, ends it with a space.
    seen = bash(f"ws-manager send {quote}\t'\"x\"'")
    assert f"to {name}\r\n" in seen, seen


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_condition_survives_a_real_bash(cli, bash, quote: str) -> None:
    cli("connect", "octavia", "--metadata", '{"app.kubernetes.io/name":"web server"}')
    cli("connect", "cipher")
    seen = bash(f"ws-manager broadcast 1 --where {quote}metadata.\t")
    assert "Broadcast to 1 connection(s)\r\n" in seen, seen


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_a_name_survives_a_real_zsh(cli, environment, tmp_path: Path, process, name: str) -> None:
    cli("connect", "octavia", "--ws-id", name)
    shown = process("--show-completion", "zsh", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    (tmp_path / ".zshrc").write_bytes(
        b"autoload -Uz compinit; compinit -u -D\nPS1='$ '\nunsetopt zle_bracketed_paste\n" + shown.stdout
    )
    scripts = sysconfig.get_path("scripts")
    seen = in_shell(
        ["zsh", "-i"],
        "ws-manager send \t'\"x\"'; echo do''ne\n",
        {
            **environment,
            "TERM": "dumb",
            "LANG": "C.UTF-8",
            "ZDOTDIR": str(tmp_path),
            "PATH": scripts + os.pathsep + environment["PATH"],
        },
        "\ndone",
    )
    assert f"to {name}\r\n" in seen, seen


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(
    "line", ["ws-manager send ", "ws-manager send ws", "ws-manager broadcast --agent=oct"]
)
def test_a_real_fish(cli, connected, environment, process, line: str) -> None:
    cli("connect", "octavia", "--ws-id", "ws one")
    shown = process("--show-completion", "fish", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout
    ended = subprocess.run(
        ["fish", "--no-config", "-c", f"{shown.decode()}\ncomplete -C '{line}'"],
        capture_output=True,
        text=True,
        check=True,
        env={
            **environment,
            "TERM": "dumb",
            "LANG": "C.UTF-8",
            "PATH": sysconfig.get_path("scripts") + os.pathsep + environment["PATH"],
        },
    )
    expected = ["--agent=octavia"] if "--agent" in line else ["ws one", "ws-001", "ws-002"]
    assert ended.stdout.splitlines() == expected
