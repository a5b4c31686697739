"""Which commands make a database, and what none of them does to a file that is not theirs."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.commands import EVERY
from tests.support import running
from tests.users import ALICE, BOB, Ended, as_root, as_user, listing
from ws_manager import ConnectionPool, add_connection, get_db
from ws_manager.cli.app import app
from ws_manager.tokens import key_path

pytestmark = pytest.mark.sqlite_only("files that are no ledger")

READING = [
    ("list",),
    ("history",),
    ("show", "ws-001"),
    ("stats",),
    ("broadcasts",),
    ("bar",),
    ("top", "--once"),
    ("export",),
    ("backup", "COPY"),
    ("stripe", "events"),
    ("doctor",),
    ("prune", "--older-than", "1d", "--dry-run"),
    ("broadcast", "1", "--dry-run"),
    ("stripe", "replay", "--since", "1d", "--dry-run"),
]
WRITING = [
    ("disconnect", "ws-001"),
    ("unbar", "octavia"),
    ("replay", "a-message", "--to", "ws-001"),
    ("ask", "ws-001", "1"),
    ("send", "ws-001", "1"),
    ("send", "--batch", "LINES"),
    ("broadcast", "1"),
    ("broadcast", "--batch", "LINES"),
    ("receive", "ws-001"),
    ("heartbeat", "ws-001"),
    ("heartbeat-check",),
    ("retry", "--all"),
    ("prune", "--older-than", "1d"),
    ("stripe", "replay", "--since", "1d"),
    ("stripe", "trigger", "payment_intent.succeeded"),
    ("listen", "octavia"),
]
CREATING = [("connect", "octavia"), ("serve", "--port", "0"), ("import", "EXPORT")]
ALL = [*READING, *WRITING, *CREATING, ("token", "octavia"), ("wait", "a-message")]
WITHOUT = {"help", "copy"}
"""Commands that use no database, or are told of two; tests/cli/commands/test_copy.py has the latter."""

STRANGE = {
    "a text": b"agents: octavia, cipher\n",
    "one byte": b"\n",
    "a large text": b"x" * 100_000,
    "cookies": "CREATE TABLE cookies (name); PRAGMA user_version = 12",
    "messages": "CREATE TABLE messages (body)",
}


def everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    """The bytes and times of all files of a folder."""
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder of the database, with nothing else in it."""
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


@pytest.fixture
def run(cli, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run a command on the database in `place`."""
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_" + "x" * 32)
    (tmp_path / "lines").write_text('{"to":"ws-001","content":1}\n')
    source = tmp_path / "source.db"
    get_db(source).close()
    cli("--db", str(source), "export", str(tmp_path / "export"))
    words = {"COPY": tmp_path / "copy.db", "LINES": tmp_path / "lines", "EXPORT": tmp_path / "export"}

    def one(*arguments: str):
        return cli("--db", str(place / "ledger.db"), *(str(words.get(word, word)) for word in arguments))

    return one


def test_every_command_is_tried() -> None:
    tried = {" ".join(words[: 2 if words[0] == "stripe" else 1]) for words in ALL}
    assert {name for name, command in EVERY.items() if not command.commands} == tried | WITHOUT


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("arguments", ALL, ids=" ".join)
def test_a_file_that_is_no_ledger_is_refused_and_left_as_it_is(
    run, place: Path, arguments: tuple[str, ...], name: str
) -> None:
    contents = STRANGE[name]
    if isinstance(contents, bytes):
        (place / "ledger.db").write_bytes(contents)
    else:
        db = sqlite3.connect(place / "ledger.db")
        db.executescript(str(contents))
        db.close()
    before = everything(place)
    result = run(*arguments)
    assert (result.exit_code, everything(place)) == (1, before), result.output
    if arguments == ("doctor",):
        assert "problem" in result.stdout
    else:
        assert result.stderr.startswith("error: ")
        assert "is not a ledger" in result.stderr or "is not a SQLite database" in result.stderr
        assert result.stdout == ""


@pytest.mark.parametrize("state", ["missing", "empty"])
@pytest.mark.parametrize("arguments", [*READING, *WRITING], ids=" ".join)
def test_nothing_else_makes_a_database(run, place: Path, arguments: tuple[str, ...], state: str) -> None:
    if state == "empty":
        (place / "ledger.db").touch()
    before = everything(place)
    result = run(*arguments)
    assert everything(place) == before
    assert result.exit_code or arguments in READING
    assert str(place / "ledger.db") in result.stderr + result.stdout
    assert "Traceback" not in result.stderr


def test_a_mistyped_name_is_an_error_that_says_so(run, place: Path) -> None:
    result = run("send", "ws-001", "1")
    assert result.exit_code == 1
    assert f"error: there is no database at {place}" in result.stderr
    assert "hint: check --db" in result.stderr


@pytest.mark.parametrize("arguments", [CREATING[0], CREATING[2]], ids=" ".join)
@pytest.mark.parametrize("state", ["missing", "empty"])
def test_connect_and_import_make_one(run, place: Path, arguments: tuple[str, ...], state: str) -> None:
    if state == "empty":
        (place / "ledger.db").touch()
    assert run(*arguments).exit_code == 0
    assert run("send", "ws-001", "1").exit_code == 3


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_reading_changes_nothing(run, place: Path, arguments: tuple[str, ...]) -> None:
    run("connect", "octavia", "--ws-id", "ws-001")
    before = everything(place)
    assert run(*arguments).exit_code == 0
    assert everything(place) == before


def test_reading_changes_nothing_while_it_is_open(run, place: Path) -> None:
    run("connect", "octavia", "--ws-id", "ws-001")
    db = get_db(place / "ledger.db")
    run("send", "ws-001", "1")

    def durable() -> dict[str, tuple[bytes, int]]:
        # What is in the shared memory is a cache.
        return {name: state for name, state in everything(place).items() if not name.endswith("-shm")}

    before = durable()
    assert set(before) == {"ledger.db", "ledger.db-wal"}
    for arguments in READING:
        assert run(*arguments).exit_code == 0
        assert durable() == before
    db.close()


def test_shared_keeps_a_ledger_in_another_programs_database(run, place: Path) -> None:
    db = sqlite3.connect(place / "ledger.db")
    db.executescript(
        "CREATE TABLE cookies (name); INSERT INTO cookies VALUES ('a'); PRAGMA user_version = 12"
    )
    assert run("connect", "octavia", "--ws-id", "ws-001").exit_code == 1
    assert run("connect", "octavia", "--ws-id", "ws-001", "--shared").exit_code == 0
    assert run("send", "ws-001", "1").exit_code == 0
    assert run("list", "-o", "id").stdout == "ws-001\n"
    assert db.execute("SELECT name FROM cookies").fetchall() == [("a",)]
    assert db.execute("PRAGMA user_version").fetchone() == (12,)
    db.close()
    doctor = {check["check"]: check["status"] for check in json.loads(run("doctor", "--json").stdout)}
    assert doctor["schema"] == "ok"


def test_several_names_are_said_where_it_is_read(run, place: Path) -> None:
    run("connect", "octavia", "--ws-id", "ws-001")
    os.link(place / "ledger.db", place / "other.db")
    result = run("list", "-o", "id")
    assert (result.exit_code, result.stdout, "several names" in result.stderr) == (0, "ws-001\n", True)
    refused = run("send", "ws-001", "1")
    assert (refused.exit_code, "hard links" in refused.stderr) == (1, True)
    doctor = {check["check"]: check["status"] for check in json.loads(run("doctor", "--json").stdout)}
    assert doctor["access"] == "problem"


def test_a_token_that_cannot_be_made_makes_no_key_beside_the_file(run, place: Path) -> None:
    (place / "ledger.db").write_text("a note")
    assert run("token", "octavia").exit_code == 1
    assert run("serve", "--port", "0").exit_code == 1
    assert not key_path(place / "ledger.db").exists()


class TestSomebodyElse:
    @pytest.fixture
    def bob(self, shared_folder: Path):
        """Run a command as Bob on Alice's ledger, which everybody may read."""
        path = shared_folder / "ledger.db"

        def make() -> None:
            db = get_db(path)
            add_connection(ConnectionPool(db), "ws-001", "octavia")
            db.close()

        as_user(ALICE, make)
        path.chmod(0o644)

        def run(*arguments: str) -> Ended:
            def command() -> Ended:
                result = CliRunner().invoke(app, ["--db", str(path), *arguments])
                return Ended(result.exit_code, result.stdout, result.output)

            return Ended(*as_user(BOB, command))

        return run

    @as_root
    @pytest.mark.parametrize(
        "arguments", [words for words in READING if words[0] not in ("backup", "doctor")], ids=" ".join
    )
    def test_reads(self, bob, shared_folder: Path, arguments: tuple[str, ...]) -> None:
        before = listing(shared_folder)
        ended = bob(*arguments)
        assert ended.code == 0, ended
        assert listing(shared_folder) == before

    @as_root
    def test_lists(self, bob) -> None:
        assert bob("list", "-o", "id")[:2] == (0, "ws-001\n")

    @as_root
    def test_copies(self, bob, shared_folder: Path) -> None:
        copy = shared_folder / "copy.db"
        assert bob("backup", str(copy)).code == 0
        assert copy.stat().st_uid == BOB

    @as_root
    def test_sees_the_gateway_by_when_it_was_last_seen(self, bob, shared_folder: Path) -> None:
        path = shared_folder / "ledger.db"
        db = get_db(path)
        db.execute("INSERT INTO gateways (id, pid, url) VALUES ('g', 1, 'http://127.0.0.1:1')")
        db.execute("UPDATE connections SET gateway = 'g'")
        with running(path, "g"):
            assert "the socket of ws-001 is open" in bob("show", "ws-001").stdout
            assert "only the file's owner can see" in bob("doctor").stdout
        db.execute("UPDATE gateways SET seen_at = '2020-01-01T00:00:00.000000+00:00'")
        assert "the gateway does not run" in bob("show", "ws-001").stdout
        db.close()

    @as_root
    def test_may_not_write(self, bob) -> None:
        ended = bob("send", "ws-001", "1")
        assert (ended.code, "no permission to read and write" in ended.stderr) == (1, True)
