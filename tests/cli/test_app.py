"""What is common to all commands: help, global options, errors, exit codes, signals, pipes."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import EVERY
from tests.support import gateway_in_a_thread
from ws_manager import __version__
from ws_manager.cli import exit_codes
from ws_manager.cli.app import COMMANDS
from ws_manager.core.ledger import Ledger
from ws_manager.core.locations import exists
from ws_manager.errors import (
    Conflict,
    GatewayUnavailable,
    InvalidInput,
    LedgerBusy,
    NotAuthorised,
    NotFound,
    WsManagerError,
)

COMMAND = [sys.executable, "-m", "ws_manager"]


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_help_lists_every_command(cli, flag: str) -> None:
    result = cli(flag)
    assert result.exit_code == 0
    for command in COMMANDS.values():
        assert command.name in result.stdout
        assert command.help in result.stdout


@pytest.mark.parametrize("name", EVERY)
def test_each_command_explains_itself(cli, name: str) -> None:
    command = EVERY[name]
    result = cli(*name.split(), "-h")
    assert result.exit_code == 0
    told = " ".join(result.stdout.split())
    assert told.startswith(f"Usage: ws-manager {name} [OPTIONS]")
    assert "{" not in told.split("[OPTIONS]")[1].split(command.help)[0]
    # In one piece, to be copied.
    assert f"  Example: {command.example}\n" in result.stdout
    for option in ("--db", "--output", "--json", "--debug"):
        assert option in told
    for option in ("--url", "--token-file", "--ca"):
        assert (option in told) == (name not in ("serve", "import", "copy", "help"))


@pytest.mark.parametrize("name", [name for name in EVERY if not EVERY[name].commands])
def test_the_table_and_the_command_say_the_same(name: str) -> None:
    command = EVERY[name]
    function = getattr(importlib.import_module(f"ws_manager.cli.commands.{command.module}"), command.function)
    assert inspect.getdoc(function).splitlines()[0] == command.help


def test_without_a_command_it_shows_the_help_as_an_error(cli) -> None:
    result = cli()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Commands:" in result.stderr


def test_version(cli) -> None:
    assert cli("--version").stdout == f"ws-manager {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["lst"], "'list'"),
        (["send", "ws-001"], "<message>"),
        (["send", "ws-001", "-5"], "needs -- before it"),
        (["connect", "octavia", "--nope"], "--nope"),
        (["history", "--limit", "many"], "--limit"),
        (["list", "-o", "yaml"], "yaml"),
        (["list", "--db", ""], "--db is empty"),
        (["list", "--db"], "--db"),
    ],
)
def test_usage_errors_are_one_line_and_a_hint(cli, arguments: list[str], told: str) -> None:
    result = cli(*arguments)
    lines = result.stderr.splitlines()
    assert (result.exit_code, result.stdout) == (2, "")
    assert [line.split(":")[0] for line in lines] == ["error", "hint"]
    assert told in result.stderr


def test_options_stand_before_or_after_the_command(process, tmp_path: Path) -> None:
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    process("--db", str(first), "connect", "octavia", "--ws-id", "ws-001")
    process("connect", "octavia", "--ws-id", "ws-002", "--db", str(second))
    assert process("--db", str(first), "list", "-o", "id").stdout == b"ws-001\n"
    assert process("-o", "id", "list", "--db", str(second)).stdout == b"ws-002\n"
    # The one beside the command is the later one.
    assert process("--db", str(first), "list", "--db", str(second), "-o", "id").stdout == b"ws-002\n"


def test_flag_then_environment_then_default(process, tmp_path: Path, database: Path) -> None:
    process("connect", "octavia", "--ws-id", "in-environment")
    process("connect", "octavia", "--ws-id", "in-default", BLACKROAD_WS_DB="")
    process("connect", "octavia", "--ws-id", "in-flag", "--db", str(tmp_path / "flag.db"))
    assert process("list", "-o", "id").stdout == b"in-environment\n"
    assert process("list", "-o", "id", "--db", str(tmp_path / "flag.db")).stdout == b"in-flag\n"
    assert process("list", "-o", "id", BLACKROAD_WS_DB="").stdout == b"in-default\n"
    assert (tmp_path / "home" / ".blackroad" / "websocket-manager.db").exists()


@pytest.mark.no_ledger
@pytest.mark.parametrize(
    "arguments",
    [
        ["import", "x", "--url", "http://127.0.0.1:1"],
        ["--url", "http://127.0.0.1:1", "import", "x"],
        ["import", "x", "--token-file", "x"],
        ["serve", "--ca", "x"],
    ],
)
def test_a_command_on_the_file_refuses_a_gateway(process, database: Path, arguments: list[str]) -> None:
    ended = process(*arguments)
    assert ended.returncode == 2
    assert b" works on the database itself: it takes no --" in ended.stderr
    assert not exists(database)


@pytest.mark.parametrize("option", ["--token-file", "--ca"])
@pytest.mark.parametrize("command", [["list"], ["connect", "octavia"], ["top", "--once"], ["doctor"]])
def test_what_is_for_a_gateway_needs_one(process, option: str, command: list[str]) -> None:
    ended = process(*command, option, "x")
    assert ended.returncode == 2
    assert f"{option} is for a gateway" in ended.stderr.decode()


@pytest.mark.sqlite_only("a file that is named")
def test_the_address_comes_from_flag_then_environment_and_a_file_that_is_named_comes_first(
    process, database: Path
) -> None:
    with gateway_in_a_thread(database) as url:
        process("connect", "octavia", "--ws-id", "behind", "--url", url)
        other = str(database.with_name("other.db"))
        process("connect", "octavia", "--ws-id", "named", "--db", other)
        assert process("list", "-o", "id", BLACKROAD_WS_URL=url).stdout == b"behind\n"
        assert (
            process("list", "-o", "id", "--url", url, BLACKROAD_WS_URL="http://127.0.0.1:1").stdout
            == b"behind\n"
        )
        assert process("list", "-o", "id", "--db", other, BLACKROAD_WS_URL=url).stdout == b"named\n"


def test_import_does_not_guess_which_file_is_meant(process) -> None:
    ended = process("import", "x", BLACKROAD_WS_URL="http://127.0.0.1:1")
    assert (ended.returncode, b"BLACKROAD_WS_URL is set" in ended.stderr) == (2, True)


@pytest.mark.parametrize("name", ["list", "listen"])
def test_db_and_url_exclude_each_other(process, name: str) -> None:
    arguments = [name, "octavia"] if name == "listen" else [name]
    ended = process("--url", "http://127.0.0.1:1", *arguments, "--db", "x.db")
    assert ended.returncode == 2
    assert b"--db and --url exclude each other" in ended.stderr


@pytest.mark.parametrize("flags", [["--json"], ["-o", "json"], ["-ojson"], ["--output=ndjson"]])
def test_errors_as_json(cli, db, flags: list[str]) -> None:
    for arguments, code, number in (
        (["disconnect", "nobody"], "not_found", 3),
        (["disconnect"], "invalid", 2),
        (["heartbeat", "ws-001", "--latency", "-1"], "invalid", 2),
    ):
        result = cli(*flags, *arguments)
        error = json.loads(result.stderr)["error"]
        assert (result.exit_code, result.stdout) == (number, "")
        assert (list(error), error["code"]) == (["code", "message", "hint"], code)


def test_a_defect_of_ours_is_one_line_without_data(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: Ledger) -> None:
        raise KeyError("the content of a message")

    monkeypatch.setattr(Ledger, "stats", broken)
    cli("connect", "octavia")
    result = cli("stats")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == "error: unexpected KeyError"
    assert "Traceback" not in result.stderr
    assert "content" not in result.stderr
    assert "Traceback" in cli("stats", "--debug").stderr


@pytest.mark.sqlite_only("files that are no ledger")
def test_a_database_that_is_none(cli, database: Path) -> None:
    database.write_text("not a database, and long enough that SQLite reads it as one" * 10)
    result = cli("list")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {database} is not a SQLite database\nhint: ")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidInput("x"), 2),
        (NotFound("x"), 3),
        (NotAuthorised("x"), 4),
        (exit_codes.PartlyDone("x"), 5),
        (Conflict("x"), 6),
        (GatewayUnavailable("x"), 7),
        (LedgerBusy("x"), 1),
        (WsManagerError("x"), 1),
        (KeyError("x"), 1),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
    ],
)
def test_exit_codes(error: BaseException, code: int) -> None:
    assert exit_codes.exit_code(error) == code


@pytest.mark.sqlite_only("it needs no driver")
def test_a_one_shot_send_loads_no_more_than_it_needs(process, modules_of) -> None:
    process("connect", "octavia", "--ws-id", "ws-001")
    modules = modules_of("send", "ws-001", "{}")
    assert "ws_manager.cli.commands.send" in modules
    assert not modules & {
        "rich",
        "sqlite_utils",
        "aiohttp",
        "asyncio",
        "logging",
        "csv",
        "ctypes",
        "_hashlib",
        "psycopg",
    }
    assert not modules & {f"ws_manager.cli.commands.{name}" for name in ("connect", "serve", "listen")}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_waiting(process, environment, number: signal.Signals, code: int) -> None:
    process("connect", "octavia", "--ws-id", "ws-001")
    with subprocess.Popen(
        [*COMMAND, "send", "ws-001", "1", "--wait", "1h"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as started:
        try:
            # The documented line is there while the command still waits.
            assert started.stdout is not None
            assert started.stderr is not None
            assert started.stdout.readline().startswith(b"Sent message ")
            # It comes just before the waiting.
            assert started.stderr.readline().startswith(b"note: no gateway runs for this ledger")
            started.send_signal(number)
            output, errors = started.communicate(timeout=60)
        finally:
            started.kill()
    assert (started.returncode, output, errors) == (code, b"", b"")


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["stats"], ["connect", "cipher"]])
def test_a_closed_pipe(process, environment, arguments: list[str]) -> None:
    process("connect", "octavia", "--ws-id", "ws-001")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [*COMMAND, *arguments], stdout=writing, stderr=subprocess.PIPE, check=False, env=environment
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_stdout(process, environment) -> None:
    process("connect", "octavia", "--ws-id", "ws-001")
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [*COMMAND, "list"], stdout=full, stderr=subprocess.PIPE, check=False, env=environment
        )
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [b"error: No space left on device"]


def test_closed_standard_streams(process, environment) -> None:
    script = '"$0" -m ws_manager connect octavia --ws-id ws-001 >&- 2>&-'
    ended = subprocess.run(["sh", "-c", script, sys.executable], check=False, env=environment)
    assert ended.returncode == 0
    assert process("list", "-o", "id").stdout == b"ws-001\n"
