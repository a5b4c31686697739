"""receive --follow: real processes, because signals and pipes matter."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.processes import COMMAND, Program, command, running
from tests.support import open_socket, open_sql, sql_of
from ws_manager.core.ledger import Ledger, ledger_over

pytestmark = pytest.mark.over_http


@pytest.fixture
def ledger(database: Path) -> Iterator[Ledger]:
    """A ledger in which ws-001 is octavia's."""
    db = open_sql(database)
    ledger = ledger_over(db)
    ledger.connect("octavia", "ws-001")
    yield ledger
    db.close()


def counts(ledger: Ledger) -> tuple[int, int]:
    """How many messages are confirmed, and how many pending."""
    return sql_of(ledger).rows("SELECT sum(delivered), sum(1 - delivered) FROM messages")[0]


@contextmanager
def following(database: Path) -> Iterator[Program]:
    with running(*COMMAND, "--db", str(database), "receive", "ws-001", "--follow") as program:
        program.error_line("Ready: ")
        yield program


def content(program: Program) -> object:
    return json.loads(program.line())["content"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_goes_on_until_a_signal_comes(ledger: Ledger, database: Path, number: signal.Signals) -> None:
    ledger.send("ws-001", "before")
    with following(database) as program:
        assert content(program) == "before"
        sent = ledger.send("ws-001", "after")
        assert sent is not None
        assert content(program) == "after"
        assert ledger.wait([sent], 20).confirmed == 1
        assert program.end(number) == 0
        assert len(program.rest_of_errors()) == 1
    assert ledger.get("ws-001") is not None


def test_it_keeps_the_connection_alive(ledger: Ledger, database: Path) -> None:
    before = ledger.get("ws-001").last_heartbeat
    with following(database):
        while ledger.get("ws-001").last_heartbeat == before:
            pass
    assert sql_of(ledger).value("SELECT count(*) FROM heartbeat_log WHERE ws_id = 'ws-001'") == 1


def test_a_registration_by_a_command_is_a_conflict(ledger: Ledger, database: Path) -> None:
    with following(database) as program:
        ledger.connect("octavia", "ws-001")
        assert program.wait() == 6
        assert "registered again" in program.rest_of_errors()[-2]


def test_a_socket_that_takes_over_is_a_conflict(ledger: Ledger, database: Path) -> None:
    with following(database) as program:
        open_socket(ledger, "octavia", "ws-001", gateway="some-gateway")
        ledger.send("ws-001", "for the socket")
        assert program.wait() == 6
        assert program.lines() == []


def test_a_disconnection_ends_it(ledger: Ledger, database: Path) -> None:
    with following(database) as program:
        ledger.disconnect("ws-001", "by hand")
        assert program.wait() == 3
        assert "by hand" in program.rest_of_errors()[-2]


def test_one_that_is_disconnected_is_not_followed(ledger: Ledger, database: Path) -> None:
    ledger.send("ws-001", 1)
    ledger.disconnect("ws-001")
    ended = command(database, "receive", "ws-001", "--follow")
    assert (ended.returncode, ended.stdout) == (3, "")


def test_a_second_one_is_a_conflict(ledger: Ledger, database: Path) -> None:
    with following(database):
        assert command(database, "receive", "ws-001", "--follow").returncode == 6


def test_a_reader_that_goes_away_ends_it(ledger: Ledger, database: Path) -> None:
    with running(
        "bash",
        "-c",
        f'{" ".join(COMMAND)} --db {database} receive ws-001 --follow | head -n 1; exit "$PIPESTATUS"',
    ) as program:
        program.error_line("Ready: ")
        ledger.send("ws-001", 1)
        assert content(program) == 1
        while program.process.poll() is None:
            ledger.send("ws-001", 2)
        assert program.wait() == 141
        assert len(program.rest_of_errors()) == 1


class TestCount:
    def test_leaves_the_rest_pending(self, cli, ledger: Ledger) -> None:
        sql_of(ledger).execute("BEGIN")
        for number in range(250):
            ledger.send("ws-001", number)
        sql_of(ledger).execute("COMMIT")
        # More than one batch of the command.
        lines = cli("receive", "ws-001", "--count", "150").stdout.splitlines()
        assert [json.loads(line)["content"] for line in lines] == list(range(150))
        assert counts(ledger) == (150, 100)
        assert json.loads(cli("receive", "ws-001", "--count", "1").stdout)["content"] == 150

    def test_takes_what_there_is(self, cli, ledger: Ledger) -> None:
        ledger.send("ws-001", 1)
        result = cli("receive", "ws-001", "--count", "5")
        assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)

    def test_ends_following_after_so_many(self, ledger: Ledger, database: Path) -> None:
        with running(
            *COMMAND, "--db", str(database), "receive", "ws-001", "--follow", "--count", "2"
        ) as program:
            program.error_line("Ready: ")
            for number in range(3):
                ledger.send("ws-001", number)
            assert program.wait() == 0
            assert len(program.lines()) == 2
        assert counts(ledger) == (2, 1)

    @pytest.mark.parametrize("count", ["0", "-1", "many"])
    def test_is_a_number_of_messages(self, cli, ledger: Ledger, count: str) -> None:
        ledger.send("ws-001", 1)
        assert cli("receive", "ws-001", "--count", count).exit_code == 2
        assert counts(ledger) == (0, 1)


def test_a_heartbeat_timeout_of_years_is_none_too_long(
    ledger: Ledger, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLACKROAD_HB_TIMEOUT", "3650d")
    with following(database) as program:
        ledger.send("ws-001", 1)
        assert content(program) == 1
        assert program.end(signal.SIGTERM) == 0
