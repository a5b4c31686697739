"""Bad input gets one clear line and the right exit code, and changes nothing. The real command, real files."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

import pytest

from tests.acceptance.processes import COMMAND, PATIENCE
from tests.support import open_db
from ws_manager import ConnectionPool, add_connection, send_message
from ws_manager.repository.findings import TABLES

UNPRIVILEGED = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if hasattr(os, "geteuid") and os.geteuid() == 0
    else []
)


@pytest.fixture
def ledger(database: Path) -> Path:
    """A ledger with a connection and a message."""
    db = open_db(database)
    pool = ConnectionPool(db)
    add_connection(pool, "ws-001", "octavia", {"region": "us-west"})
    send_message(pool, db, "ws-001", "first")
    db.close()
    return database


def run(database: object, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, "--db", str(database), *arguments],
        input=stdin,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


def dump(database: Path) -> dict[str, list[Any]]:
    db = sqlite3.connect(database)
    rows = {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in (*TABLES, "sqlite_sequence")}
    db.close()
    return rows


def one_clear_line(ended: subprocess.CompletedProcess[bytes], code: int) -> str:
    """The message of a command that failed as it should."""
    lines = ended.stderr.decode().splitlines()
    assert (ended.returncode, ended.stdout) == (code, b""), ended
    assert [line.split(": ")[0] for line in lines] in (["error", "hint"], ["error"]), lines
    assert "unexpected" not in lines[0]
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("connect", "octavia", "--metadata", "[1]"), 2, "JSON object"),
        (("connect", "octavia", "--metadata", "{"), 2, "not JSON"),
        (("connect", "octavia", "--metadata", '{"a":NaN}'), 2, "NaN"),
        (("connect", "octavia", "--metadata", '{"a":"\\ud800"}'), 2, "surrogate"),
        (("connect", "octavia", "--metadata", '{"a":"' + "x" * 20_000 + '"}'), 2, "bytes"),
        (("connect", ""), 2, "empty"),
        (("connect", "   "), 2, "empty"),
        (("connect", "a\x1b[31mb"), 2, "U+001B"),
        (("connect", "a\x9bb"), 2, "U+009B"),
        (("connect", "a\nb"), 2, "U+000A"),
        (("connect", "a" * 129), 2, "129"),
        (("connect", "octavia", "--ws-id", ""), 2, "empty"),
        (("connect", "octavia", "--ws-id", "a\tb"), 2, "U+0009"),
        (("send", "ws-001", '"\\ud800"'), 2, "surrogate"),
        (("send", "ws-001", "[" * 60_000), 2, "deep"),
        (("send", "ws-001", "1" * 5000), 2, "cannot be kept|digits"),
        (("send", "ws-001", "1", "--type", ""), 2, "empty"),
        (("send", "ws-001", "1", "--wait", "-1"), 2, "duration"),
        (("send", "nobody", "1"), 3, "no connection nobody"),
        (("disconnect", "nobody"), 3, "no connection nobody"),
        (("heartbeat", "nobody"), 3, "no connection nobody"),
        (("receive", "nobody"), 3, "no connection nobody"),
        (("receive", "nobody", "--follow"), 3, "no connection nobody"),
        (("show", "nobody"), 3, "nobody"),
        (("heartbeat", "ws-001", "--latency", "-1"), 2, "latency"),
        (("heartbeat", "ws-001", "--latency", "nan"), 2, "latency"),
        (("heartbeat-check", "--timeout", "-1"), 2, "duration"),
        (("history", "--limit", "-1"), 2, "limit"),
        (("prune", "--older-than", "-1"), 2, "duration"),
    ],
)
def test_arguments(ledger: Path, arguments: tuple[str, ...], code: int, told: str) -> None:
    before = dump(ledger)
    message = one_clear_line(run(ledger, *arguments), code)
    assert any(part in message for part in told.split("|")), message
    assert dump(ledger) == before


@pytest.mark.parametrize("command", ["send", "disconnect", "heartbeat", "receive", "show"])
def test_an_id_that_is_not_unicode(ledger: Path, command: str) -> None:
    before = dump(ledger)
    arguments: tuple[Union[str, bytes], ...] = (command, b"\xff", *(["1"] if command == "send" else []))
    ended = subprocess.run(
        [*COMMAND, "--db", str(ledger), *arguments], capture_output=True, timeout=PATIENCE, check=False
    )
    assert ended.returncode in (2, 3), ended
    one_clear_line(ended, ended.returncode)
    assert dump(ledger) == before


@pytest.mark.parametrize(
    ("stdin", "told"),
    [(b"\xff", "not UTF-8"), (b"", "empty"), (b"x" * 300_000, "bytes"), (b"[" * 200_000, "deep")],
    # Not the input itself: pytest hands a test's name on in the environment, and that has a limit.
    ids=["not UTF-8", "empty", "too large", "too deep"],
)
def test_stdin(ledger: Path, stdin: bytes, told: str) -> None:
    before = dump(ledger)
    assert told in one_clear_line(run(ledger, "send", "ws-001", "-", stdin=stdin), 2)
    assert dump(ledger) == before


WRITES = ("connect", "octavia", "--ws-id", "ws-002")


def spoil(path: Path, how: str) -> None:
    if how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "not SQLite":
        path.write_bytes(b"no database at all\n" * 1000)
    elif how == "truncated":
        os.truncate(path, path.stat().st_size // 2 + 100)
    elif how == "newer":
        db = sqlite3.connect(path)
        db.execute("PRAGMA user_version = 99")
        db.close()
    else:
        path.chmod(0o000 if how == "unreadable" else 0o400)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("folder", "is a folder"),
        ("not SQLite", "not a SQLite database"),
        ("truncated", "damaged"),
        ("newer", "newer ws-manager"),
        ("unreadable", "no permission"),
        ("read-only", "no permission"),
    ],
)
@pytest.mark.parametrize("arguments", [WRITES, ("list",), ("send", "ws-001", "1"), ("export",)])
def test_files(ledger: Path, how: str, told: str, arguments: tuple[str, ...]) -> None:
    if UNPRIVILEGED and shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed, and permissions do not apply to root")
    spoil(ledger, how)
    before = ledger.read_bytes() if ledger.is_file() else None
    ended = subprocess.run(
        [*UNPRIVILEGED, *COMMAND, "--db", str(ledger), *arguments],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    if how == "read-only" and arguments[0] in ("list", "export"):
        assert (ended.returncode, ended.stderr, b"ws-001" in ended.stdout) == (0, b"", True)
    else:
        assert told in one_clear_line(ended, 1)
    assert (ledger.read_bytes() if ledger.is_file() else None) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    database = small_disk / "ledger.db"
    assert run(database, *WRITES).returncode == 0
    text = b"x" * 200_000
    sent = 0
    while True:
        ended = run(database, "send", "ws-002", "-", stdin=text)
        if ended.returncode:
            break
        sent += 1
    assert "full" in one_clear_line(ended, 1)
    # What was reported is there, and nothing else.
    db = open_db(database)
    assert db.value("SELECT count(*) FROM messages") == sent > 0
    assert db.value("SELECT message_count FROM connections") == sent
    assert db.value("PRAGMA quick_check") == "ok"
    db.close()


def test_a_backup_and_an_export_onto_a_full_disk_leave_no_half(ledger: Path, small_disk: Path) -> None:
    for _ in range(8):
        run(ledger, "send", "ws-001", "-", stdin=b"x" * 200_000)
    assert "full" in one_clear_line(run(ledger, "backup", str(small_disk / "copy.db")), 1)
    assert "No space" in one_clear_line(run(ledger, "export", str(small_disk / "ledger.ndjson")), 1)
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("arguments", ["history --limit 3000", "export", "list"])
def test_a_reader_that_closes_the_pipe(ledger: Path, arguments: str) -> None:
    db = open_db(ledger)
    pool = ConnectionPool(db)
    for number in range(2500):
        add_connection(pool, f"many-{number}", "octavia", {"fill": "x" * 100})
        send_message(pool, db, "ws-001", {"number": number, "fill": "x" * 100})
    db.close()
    command = f"{' '.join(COMMAND)} --db {ledger} {arguments} | head -n 1; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, timeout=PATIENCE, check=False)
    assert (ended.returncode, ended.stderr, ended.stdout.count(b"\n")) == (141, b"", 1)
