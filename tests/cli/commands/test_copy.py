"""`copy`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.postgres import PASSWORD
from ws_manager.cli.app import app

pytestmark = pytest.mark.sqlite_only("those that need PostgreSQL have a database of their own")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "copy.db"


@pytest.fixture
def copy() -> Callable[..., Any]:
    """Run `copy` in this process. It takes no `--db`, which `cli` gives."""
    separate = "mix_stderr" in inspect.signature(CliRunner).parameters
    options: dict[str, Any] = {"mix_stderr": False} if separate else {}
    runner = CliRunner(**options)

    def run(*arguments: object) -> Any:
        return runner.invoke(app, ["copy", *map(str, arguments)])

    return run


def test_copy_and_move(
    cli: Any, one_message: None, copy: Callable[..., Any], database: Path, target: Path, tmp_path: Path
) -> None:
    copied = copy("--from", database, "--to", target)
    assert copied.exit_code == 0, copied.output
    first, second, third = copied.stdout.splitlines()
    assert first == "Copied: 1 connection(s), 1 message(s), 1 row(s) of other tables"
    assert second.startswith("3 row(s) written, 0 deleted, ")
    assert third == f"{database} is not sealed yet: run it again with --seal to finish"
    unfinished = cli("--db", str(target), "send", "ws-001", "1")
    assert unfinished.exit_code == 6
    assert "is an unfinished copy of" in unfinished.stderr
    assert cli("send", "ws-001", "2").exit_code == 0

    moved = copy("--from", database, "--to", target, "--seal")
    assert moved.exit_code == 0, moved.output
    assert moved.stdout.startswith(
        "Moved: 1 connection(s), 2 message(s), 1 row(s) of other tables\n2 row(s) written"
    )
    assert moved.stdout.splitlines()[-2:] == [
        f"{database} is sealed: use {target} from now on",
        f"The key that signs tokens is not copied: put it into {target}.key, mode 0600",
    ]
    refused = cli("send", "ws-001", "3")
    assert refused.exit_code == 6
    assert refused.stderr == (
        f"error: {database} was moved to {target}, and takes nothing more\n"
        f"hint: use --db {target}; if it did not move, ws-manager copy --unseal takes the seal off\n"
    )
    assert cli("list", "-o", "id").stdout == "ws-001\n"
    doctor = cli("doctor")
    assert doctor.exit_code == 1
    assert f"problem\tseal\tit was moved to {target}: nothing can be written\tuse it there" in doctor.stdout
    # A copy of a sealed ledger is sealed.
    assert cli("backup", str(tmp_path / "backup.db")).exit_code == 0
    assert cli("--db", str(tmp_path / "backup.db"), "send", "ws-001", "3").exit_code == 6
    for command in (
        ("connect", "octavia"),
        ("broadcast", "1"),
        ("disconnect", "ws-001"),
        ("receive", "ws-001"),
    ):
        ended = cli(*command)
        assert ended.exit_code == 6, (command, ended.output)
        assert f"was moved to {target}" in ended.stderr
    assert cli("--db", str(target), "send", "ws-001", "3").exit_code == 0
    assert cli("--db", str(target), "history", "-o", "id").stdout.count("\n") == 3
    again = copy("--from", database, "--to", target)
    assert (again.exit_code, "already" in again.stderr) == (6, True)

    undone = copy("--unseal", "--from", database)
    assert (undone.exit_code, undone.stdout) == (0, f"Unsealed: {database}\n")
    assert copy("--unseal", "--from", database).stdout == f"{database} was not sealed\n"
    assert cli("send", "ws-001", "4").exit_code == 0
    third_place = tmp_path / "third.db"
    found = json.loads(copy("--from", database, "--to", third_place, "--json").stdout)
    assert (found["from"], found["to"], found["sealed"]) == (str(database), str(third_place), False)
    assert (found["connections"], found["messages"], found["asks"]) == (1, 3, 0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--from", "{db}"], "--to is missing"),
        (["--to", "{db}"], "--from"),
        (["--from", "{db}", "--to", "{db}"], "cannot be copied to itself"),
        (["--from", "{db}", "--unseal", "--seal"], "--unseal stands alone"),
        (["--from", "{db}", "--to", "x.db", "--unseal"], "--unseal stands alone"),
        (["--from", "{db}", "--to", "x.db", "--db", "{db}"], "copy takes no --db"),
        (["--from", "{db}", "--to", "mysql://host/x"], "no ledger can be at a URL"),
        (["--from", "{db}", "--to", "x.db", "--url", "http://127.0.0.1:1"], "takes no --url"),
    ],
)
def test_what_it_refuses(
    cli: Any, one_message: None, copy: Callable[..., Any], database: Path, arguments: list[str], told: str
) -> None:
    result = copy(*(argument.format(db=database) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert told in result.stderr
    assert not Path("x.db").exists()


def test_a_source_that_is_missing(copy: Callable[..., Any], tmp_path: Path, target: Path) -> None:
    result = copy("--from", tmp_path / "nothing.db", "--to", target)
    assert result.exit_code == 1
    assert not target.exists()


def test_a_target_that_is_not_empty(
    cli: Any, one_message: None, copy: Callable[..., Any], database: Path, target: Path
) -> None:
    cli("--db", str(target), "connect", "octavia")
    result = copy("--from", database, "--to", target)
    assert result.exit_code == 6
    assert result.stderr == (
        f"error: {target} is not empty\nhint: copy to a new file, or to a database without a ledger: --to …\n"
    )


@pytest.mark.long
def test_to_postgres_and_back(
    cli: Any,
    one_message: None,
    copy: Callable[..., Any],
    database: Path,
    target: Path,
    postgres_url: str,
) -> None:
    shown = postgres_url.replace(f":{PASSWORD}", "")
    moved = copy("--from", database, "--to", postgres_url, "--seal")
    assert moved.exit_code == 0, moved.output
    assert moved.stdout.splitlines()[-2:] == [
        f"{database} is sealed: use {shown} from now on",
        f"The key that signs tokens is not copied: give {database}.key to every gateway with --key-file",
    ]
    outputs = [moved.output, cli("send", "ws-001", "1").output, cli("doctor").output]
    assert cli("--db", postgres_url, "send", "ws-001", "2").exit_code == 0
    back = copy("--from", postgres_url, "--to", target, "--seal")
    assert back.exit_code == 0, back.output
    for command in (("send", "ws-001", "3"), ("doctor",)):
        refused = cli("--db", postgres_url, *command)
        outputs.append(refused.output)
        assert f"was moved to {target}" in refused.output
        assert refused.exit_code == (6 if command[0] == "send" else 1)
    assert not any(PASSWORD in output for output in [*outputs, back.output])
    assert cli("--db", str(target), "history", "-o", "id").stdout.count("\n") == 2
    assert copy("--unseal", "--from", postgres_url).exit_code == 0
    assert cli("--db", postgres_url, "send", "ws-001", "3").exit_code == 0
