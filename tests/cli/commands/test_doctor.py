"""`doctor`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import gateway
from ws_manager import get_db
from ws_manager.core.doctor import examine
from ws_manager.repository.findings import Finding
from ws_manager.repository.sqlite import doctor as checks
from ws_manager.repository.sqlite.schema import EARLIER


def statuses(result) -> dict[str, str]:
    return {check["check"]: check["status"] for check in json.loads(result.stdout)}


@contextlib.contextmanager
def reading(database: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has begun to read, and does not end."""
    code = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); db.execute('BEGIN');"
        " db.execute('SELECT count(*) FROM messages').fetchall(); print('reads', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reads\n"
        yield reader


def spoil(database: Path, contents: object) -> None:
    """Turn a ledger into something else."""
    if isinstance(contents, bytes):
        database.write_bytes(contents)
    elif contents == "half":
        database.write_bytes(database.read_bytes()[: database.stat().st_size // 2])
    elif contents == "folder":
        database.unlink()
        database.mkdir()
    elif contents == "earlier":
        database.unlink()
        db = sqlite3.connect(database)
        db.execute(f"CREATE TABLE connections ({', '.join(sorted(EARLIER['connections']))})")
        db.close()
    elif contents == "another program's":
        database.unlink()
        db = sqlite3.connect(database)
        db.execute("CREATE TABLE messages (a)")
        db.close()
    else:
        db = sqlite3.connect(database)
        db.execute("PRAGMA user_version = 99" if contents == "newer" else "DROP TABLE messages")
        db.close()


def state(folder: Path) -> dict[str, object]:
    """What is in a folder, to the byte."""
    return {path.name: path.is_file() and path.read_bytes() for path in folder.iterdir()}


def unprivileged(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Run a command to which the modes of files apply, for root too."""
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    return subprocess.run(
        [*drop, sys.executable, "-m", "ws_manager", *arguments],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
        env=environment,
    )


@pytest.mark.sqlite_only("its file")
class TestDoctor:
    def test_a_ledger_that_is_well(self, cli, one_message) -> None:
        result = cli("doctor", "--json")
        told = statuses(result)
        assert (result.exit_code, "problem" in told.values()) == (0, False)
        assert list(told) == [
            "database",
            "access",
            "file mode",
            "folder mode",
            "file system",
            "schema",
            "contents",
            "gateway",
            "pending",
            "set aside",
            "webhooks",
            "write-ahead log",
            "copies",
            "SQLite",
            "aiohttp",
        ]
        assert told["gateway"] == "warning"

    def test_lines_in_a_pipe(self, cli, one_message) -> None:
        lines = [line.split("\t") for line in cli("doctor").stdout.splitlines()]
        assert {len(line) for line in lines} == {4}
        assert lines[0][:2] == ["ok", "database"]

    def test_one_screen_on_a_terminal(self, cli, one_message, terminal) -> None:
        code, seen = terminal("doctor")
        assert code == 0
        assert len(seen.splitlines()) <= 24
        assert seen.startswith("ok       database")
        assert "→ start one with: ws-manager serve" in seen

    def test_a_running_gateway_and_one_that_has_gone(self, cli, one_message, database: Path) -> None:
        with gateway(database) as (_, url):
            told = [c for c in json.loads(cli("doctor", "--json").stdout) if c["check"] == "gateway"]
            assert (told[0]["status"], url in told[0]["detail"]) == ("ok", True)
        told = [c for c in json.loads(cli("doctor", "--json").stdout) if c["check"] == "gateway"]
        assert (told[0]["status"], "last was seen" in told[0]["detail"]) == ("warning", True)

    def test_what_a_bare_copy_would_lack(self, cli, one_message, database: Path) -> None:
        db = get_db(database)
        cli("send", "ws-001", "1")
        assert statuses(cli("doctor", "--json"))["copies"] == "warning"
        db.close()
        assert statuses(cli("doctor", "--json"))["copies"] == "ok"

    def test_a_log_that_a_long_read_lets_grow(
        self, cli, one_message, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checks, "LARGE_LOG", 1000)
        db = get_db(database)
        with reading(database) as reader:
            cli("send", "ws-001", "1")
            (found,) = [
                c for c in json.loads(cli("doctor", "--json").stdout) if c["check"] == "write-ahead log"
            ]
        assert found["status"] == "warning"
        assert "end long reads" in found["advice"]
        if sys.platform == "linux":
            assert f"process {reader.pid} (" in found["detail"]
            assert re.search(r"\) has a read open, for \d+ seconds at most$", found["detail"])
        (found,) = [c for c in json.loads(cli("doctor", "--json").stdout) if c["check"] == "write-ahead log"]
        assert (found["status"], f"process {reader.pid}" in found["detail"]) == ("warning", False)
        db.close()

    def test_modes(self, cli, one_message, database: Path) -> None:
        database.chmod(0o644)
        database.parent.chmod(0o777)
        result = cli("doctor", "--json")
        assert (result.exit_code, statuses(result)["file mode"]) == (0, "warning")
        assert statuses(result)["folder mode"] == "warning"

    @pytest.mark.parametrize(
        ("contents", "check", "told"),
        [
            (b"no database at all" * 100, "contents", "not a SQLite database"),
            ("half", "contents", "damaged"),
            ("newer", "schema", "newer"),
            ("foreign", "schema", "without the table"),
            ("folder", "database", "not a file"),
        ],
    )
    def test_a_file_that_is_no_ledger(
        self, cli, one_message, database: Path, contents: object, check: str, told: str
    ) -> None:
        spoil(database, contents)
        before = state(database.parent)
        result = cli("doctor", "--json")
        assert result.exit_code == 1
        found = {each["check"]: each for each in json.loads(result.stdout)}[check]
        assert (found["status"], told in found["detail"], bool(found["advice"])) == ("problem", True, True)
        assert state(database.parent) == before

    @pytest.mark.parametrize("contents", [b"", "earlier"])
    def test_a_file_that_will_be_brought_up_to_date(
        self, cli, one_message, database: Path, contents: object
    ) -> None:
        spoil(database, contents)
        before = state(database.parent)
        result = cli("doctor", "--json")
        assert (result.exit_code, statuses(result)["schema"]) == (0, "warning")
        assert state(database.parent) == before

    @pytest.mark.parametrize("mode", [0o000, 0o400])
    def test_a_file_that_it_may_not_write(self, cli, one_message, environment, database: Path, mode) -> None:
        database.chmod(mode)
        ended = unprivileged("doctor", "--json", environment=environment)
        assert ended.returncode == 1
        told = {check["check"]: check["status"] for check in json.loads(ended.stdout)}
        assert told["access"] == "problem"
        assert told["contents"] == ("ok" if mode else "problem")

    def test_a_network_file_system(self, db, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checks, "_kind_of_file_system", lambda _path: "nfs4")
        found = {check.check: check for check in examine(database, "3.14.5")}["file system"]
        assert found.status == "problem"

    @pytest.mark.parametrize(
        ("version", "status"), [("3.14.3", "ok"), ("3.13.5", "warning"), ("4.0", "ok"), (None, "problem")]
    )
    def test_aiohttp(self, db, database: Path, version, status: str) -> None:
        assert examine(database, version)[-1].status == status

    def test_the_command_imports_neither_the_gateway_nor_sqlite_utils(self, one_message, modules_of) -> None:
        assert not {"aiohttp", "asyncio", "sqlite_utils", "rich"} & modules_of("doctor")

    def test_every_check_that_is_not_ok_has_advice(self, database: Path) -> None:
        assert all(
            isinstance(c, Finding) and (c.advice or c.remedy or c.status == "ok")
            for c in examine(database, None)
        )


@pytest.mark.no_ledger
def test_doctor_breaks_its_lines_between_words(terminal) -> None:
    _, told = terminal("doctor", columns=60)
    # A path is one word, whatever its length.
    assert all(len(line) <= 60 or "/" in line for line in told.splitlines())
    assert "check --db and BLACKROAD_WS_DB; ws-manager connect makes a new one" in " ".join(told.split())


@pytest.mark.sqlite_only("its file")
def test_doctor_names_another_programs_tables(cli, one_message, database: Path) -> None:
    spoil(database, "another program's")
    result = cli("doctor", "--json")
    schema = next(check for check in json.loads(result.stdout) if check["check"] == "schema")
    assert (result.exit_code, schema["status"], "messages" in schema["detail"]) == (1, "problem", True)
