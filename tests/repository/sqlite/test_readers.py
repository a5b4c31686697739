"""Who reads a ledger, out of /proc: real locks of a real process, and lines as Linux writes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ws_manager.repository.sqlite import readers as module
from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.sqlite.readers import readers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells who holds a lock")

PROGRAM = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for line in sys.stdin:
    db.execute(line).fetchall()
    print("done", flush=True)
"""


@pytest.fixture
def program(database: Path, db: Database):
    """Another process that has the ledger open, and runs the lines that it reads."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        yield running


def tell(program, statement: str) -> None:
    program.stdin.write(statement + "\n")
    program.stdin.flush()
    assert program.stdout.readline() == "done\n"


def pids(database: Path) -> list[int]:
    found = readers(database)
    assert found is not None
    return [reader.pid for reader in found]


def test_whoever_reads_is_found_as_long_as_it_does(database: Path, program) -> None:
    tell(program, "SELECT count(*) FROM messages")
    assert pids(database) == []
    tell(program, "BEGIN")
    tell(program, "SELECT count(*) FROM messages")
    (reader,) = readers(database) or []
    assert reader.pid == program.pid
    assert "python" in reader.program
    assert 0 <= reader.seconds < 3600
    tell(program, "COMMIT")
    assert pids(database) == []


def test_this_process_is_left_out(database: Path, db: Database) -> None:
    db.execute("BEGIN")
    db.execute("SELECT count(*) FROM messages").fetchall()
    assert pids(database) == []
    db.execute("COMMIT")


def test_where_nobody_has_the_file_open(tmp_path: Path) -> None:
    assert readers(tmp_path / "ledger.db") is None


def test_where_the_system_does_not_tell(
    database: Path, db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PROC", tmp_path / "proc")
    assert readers(database) is None


def test_locks_of_other_kinds_are_left_out() -> None:
    locks = """\
1: POSIX  ADVISORY  READ  11 fd:00:5 123 123
2: POSIX  ADVISORY  READ  12 fd:00:5 124 127
3: POSIX  ADVISORY  WRITE 13 fd:00:5 120 120
4: POSIX  ADVISORY  READ  14 fd:00:5 128 128
5: FLOCK  ADVISORY  READ  15 fd:00:5 0 EOF
6: POSIX  ADVISORY  READ  16 fd:00:6 0 EOF
6: -> POSIX  ADVISORY  READ  17 fd:00:5 123 123
"""
    assert module._read_locks(locks) == [(11, "fd:00:5"), (12, "fd:00:5"), (16, "fd:00:6")]
