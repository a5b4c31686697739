"""Formats, fields, headers and times of the commands that list; show and broadcast --dry-run in each of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import EVERY, made
from tests.support import open_sql, sql_of
from ws_manager import get_message_history
from ws_manager.core.ledger import Ledger, ledger_over

pytestmark = pytest.mark.over_http

AT = "2020-01-01T00:00:00.500000+00:00"


@pytest.fixture
def ledger(database: Path) -> Iterator[Ledger]:
    """ws-001 is active, ws-002 has gone, and ws-001 has a message."""
    db = open_sql(database)
    ledger = ledger_over(db)
    ledger.connect("octavia", "ws-001", {"region": "us-west"})
    ledger.connect("cipher", "ws-002")
    ledger.disconnect("ws-002", "enough")
    ledger.send("ws-001", {"n": 1.50})
    db.execute("UPDATE connections SET connected_at = ?, last_heartbeat = ?", (AT, AT))
    yield ledger
    db.close()


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "tsv", "table", "wide"])
def test_fields(cli, ledger: Ledger, form: str) -> None:
    text = cli("list", "-o", form, "--fields", "pending, ws_id").stdout
    if form == "json":
        assert json.loads(text) == [{"pending": 1, "ws_id": "ws-001"}]
        assert list(json.loads(text)[0]) == ["pending", "ws_id"]
    elif form == "ndjson":
        assert text == '{"pending":1,"ws_id":"ws-001"}\n'
    else:
        assert text.splitlines()[-1].replace(",", " ").split() == ["1", "ws-001"]
        assert ("pending" in text) == (form != "tsv")


@pytest.mark.parametrize("command", ["list", "history"])
def test_fields_that_there_are_not_are_answered_with_those_that_there_are(
    cli, database, command: str
) -> None:
    result = cli(command, "--fields", "ws_id,nmae")
    assert result.exit_code == 2
    known = "ws_id, agent, metadata," if command == "list" else "seq, msg_id, msg_type,"
    assert f"hint: one of {known}" in result.stderr
    error = json.loads(cli(command, "--fields", "nmae", "--json").stderr)["error"]
    assert error["code"] == "invalid"
    assert error["message"] == "no such field: 'nmae'"


def test_ids_have_no_fields(cli, ledger: Ledger) -> None:
    assert cli("list", "-o", "id", "--fields", "agent").exit_code == 2


@pytest.mark.parametrize("form", ["csv", "table", "wide"])
def test_no_headers(cli, ledger: Ledger, form: str) -> None:
    text = cli("list", "-o", form, "--no-headers").stdout
    assert text.startswith("ws-001")
    assert cli("list", "-o", form).stdout.startswith("ws_id")


@pytest.mark.parametrize(
    ("style", "told"), [("iso", AT), ("unix", 1577836800.5), (None, AT), ("relative", "d ago")]
)
def test_times(cli, ledger: Ledger, style: object, told: object) -> None:
    arguments = [] if style is None else ["--time", str(style)]
    row = json.loads(cli("list", "--json", *arguments).stdout)[0]
    cell = cli("list", *arguments).stdout.split("\t")[3]
    if style == "relative":
        assert row["connected_at"].endswith(str(told))
        assert cell == row["connected_at"]
    else:
        assert row["connected_at"] == told
        assert cell == str(told)
    assert cli("list", "--time", "noon").exit_code == 2


def test_wide_has_everything(cli, ledger: Ledger) -> None:
    header, row = cli("list", "-o", "wide").stdout.splitlines()
    assert " ".join(header.split()) == (
        "ws_id agent status connected_at last_heartbeat message_count pending"
        " db_id disconnected_at epoch confirmed_seq close_code close_reason gateway metadata"
    )
    assert row.endswith('{"region":"us-west"}')
    assert "written_at" in cli("history", "-o", "wide").stdout


def test_list_all_tells_why(cli, ledger: Ledger) -> None:
    header, _, gone = csv.reader(io.StringIO(cli("list", "--all", "-o", "csv").stdout))
    assert header[7:] == ["disconnected_at", "close_code", "close_reason", "metadata"]
    assert gone[0] == "ws-002"
    assert gone[9] == "enough"


def test_list_can_be_narrowed(cli, ledger: Ledger) -> None:
    assert cli("list", "--all", "--agent", "cipher", "-o", "id").stdout == "ws-002\n"
    assert cli("list", "--stale", "-o", "id").stdout == "ws-001\n"
    ledger.heartbeat("ws-001")
    assert cli("list", "--stale").stdout == ""
    assert cli("list", "--all", "--limit", "1", "-o", "id").stdout == "ws-001\n"
    assert cli("list", "--limit", "-1").exit_code == 2


def test_options_exist_only_where_they_mean_something(cli) -> None:
    having = {
        option: {name for name in EVERY for parameter in made(name).params if option in parameter.opts}
        for option in ("--fields", "--no-headers", "--time", "--where", "--follow")
    }
    assert having["--fields"] == {"list", "history", "broadcasts", "stripe events"}
    assert having["--time"] == having["--no-headers"] == {*having["--fields"], "show"}
    assert having["--where"] == {"broadcast", "list", "disconnect"}
    assert having["--follow"] >= {"history"}


def test_show_as_json(cli, ledger: Ledger) -> None:
    answer = json.loads(cli("show", "ws-001", "--json").stdout)
    assert list(answer) == ["kind", "verdict", "facts", "timeline"]
    assert (answer["kind"], answer["facts"]["metadata"]) == ("connection", {"region": "us-west"})
    assert answer["facts"]["connected_at"] == AT
    assert {"at", "what", "detail"} == set(answer["timeline"][0])
    msg_id = get_message_history(ledger)[0]["msg_id"]
    text = cli("show", msg_id, "-o", "ndjson", "--time", "unix").stdout
    assert '"content":{"n":1.5}' in text.replace(": ", ":").replace(", ", ",")
    assert isinstance(json.loads(text)["facts"]["sent_at"], float)


def test_show_in_lines(cli, ledger: Ledger) -> None:
    lines = [line.split("\t") for line in cli("show", "ws-001").stdout.splitlines()]
    assert {len(line) for line in lines} == {4}
    assert lines[0][:3] == ["verdict", "", "connection"]
    assert ["fact", AT, "connected_at", ""] in lines
    assert lines[-1][0] == "timeline"
    assert cli("show", "ws-001", "-o", "csv").stdout.startswith("part,at,name,value\n")


def test_show_what_there_is_not(cli, ledger: Ledger) -> None:
    result = cli("show", "nobody")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("error: no connection, message or broadcast nobody\nhint: ")
    assert json.loads(cli("show", "nobody", "--json").stderr)["error"]["code"] == "not_found"


def test_broadcast_where(cli, ledger: Ledger) -> None:
    ledger.connect("cipher", "ws-002", {"region": "eu"})
    sent = json.loads(cli("broadcast", "1", "--where", "metadata.region=eu", "--json").stdout)
    assert sent["recipients"] == ["ws-002"]
    both = ["--where", "metadata.region~.", "--where", "agent=octavia"]
    assert json.loads(cli("broadcast", "1", *both, "--json").stdout)["recipients"] == ["ws-001"]
    refused = cli("broadcast", "1", "--where", "region=eu")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert ledger.stats()["total_messages"] == 3


def test_dry_run_sends_nothing(cli, ledger: Ledger, database: Path) -> None:
    ledger.connect("cipher", "ws-003")
    before = sql_of(ledger).rows("SELECT * FROM broadcasts"), ledger.stats()
    result = cli("broadcast", "1", "--where", "metadata.region=us-west", "--dry-run", "--json")
    found = {row["ws_id"]: (row["gets_it"], row["why_not"]) for row in json.loads(result.stdout)}
    assert found == {
        "ws-001": (True, None),
        "ws-002": (False, "disconnected: enough"),
        "ws-003": (False, "condition not met: metadata.region=us-west"),
    }
    assert (sql_of(ledger).rows("SELECT * FROM broadcasts"), ledger.stats()) == before
    other = cli("broadcast", "1", "--agent", "octavia", "--dry-run")
    assert "ws-003\tcipher\tactive\t0\tother agent: cipher\n" in other.stdout
    assert cli("broadcast", "1", "--dry-run", "-o", "id").stdout == "ws-001\nws-003\n"


@pytest.mark.parametrize(
    "arguments", [["[" * 100_000], ["1", "--wait", "5s"], ["1", "--type", ""], ["1", "--where", "x"]]
)
def test_dry_run_of_what_cannot_be_sent(cli, ledger: Ledger, arguments: list[str]) -> None:
    assert cli("broadcast", "--dry-run", *arguments).exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "\udcff"],
        ["history", "--ws-id", "\udcff"],
        ["history", "--agent", "\udcff"],
        ["history", "--type", "\udcff"],
        ["history", "--broadcast", "\udcff"],
        ["list", "--agent", "\udcff"],
        ["broadcast", "1", "--agent", "\udcff"],
        ["disconnect", "\udcff"],
        ["heartbeat", "\udcff"],
        ["send", "\udcff", "1"],
        ["receive", "\udcff"],
    ],
)
def test_bytes_that_are_no_text_are_bad_input(cli, ledger: Ledger, arguments: list[str]) -> None:
    before = ledger.stats()
    result = cli(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is not valid Unicode\n" in result.stderr
    assert ledger.stats() == before
