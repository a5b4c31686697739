"""How values are written: formats, terminals, locales, and what must not reach a terminal."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ws_manager.cli.output import Json, json_object, json_text, visible
from ws_manager.cli.times import ago
from ws_manager.core.functions import get_db
from ws_manager.core.registry import Registry

HOSTILE = "esc \x1b[31m, csi \x9b31m, rlo \u202e, rli \u2067, bell \x07"
SEEN = r"esc \u001b[31m, csi \u009b31m, rlo \u202e, rli \u2067, bell \u0007"


@pytest.fixture
def registry(database: Path):
    db = get_db(database)
    yield Registry(db)
    db.close()


def test_visible() -> None:
    assert visible(HOSTILE) == SEEN
    assert visible("wést 日本 🙂 a\\b") == "wést 日本 🙂 a\\b"
    assert visible("a\nb") == "a\\u000ab"
    hostile = json.dumps({"text": HOSTILE}, ensure_ascii=False, indent=2)
    assert json.loads(visible(hostile, is_json=True)) == {"text": HOSTILE}
    assert "\x9b" not in visible(hostile, is_json=True)


def test_json_from_the_ledger_is_nested_as_it_stands() -> None:
    assert json_text(Json('{"a":1.50, "b":1e999}')) == '{"a":1.50, "b":1e999}'
    assert json_text(Json('{\n\t"a": 1\r\n}')) == '{  "a": 1  }'
    assert json_object({"a": Json("[1]"), "b": "ü"}) == '{"a":[1],"b":"ü"}'
    assert json_object({"a": Json("[1]"), "b": {"c": 1}}, indent=True) == '{\n  "a": [1],\n  "b": {"c": 1}\n}'
    assert json_object({}) == "{}"


@pytest.mark.parametrize(
    ("age", "told"),
    [
        (-7200, "in 2h"),
        (-5, "0s ago"),
        (0, "0s ago"),
        (59, "59s ago"),
        (60, "1m ago"),
        (3600, "1h ago"),
        (86400 * 400, "400d ago"),
    ],
)
def test_ago(age: float, told: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert ago((now - timedelta(seconds=age)).isoformat(), now) == told


def test_ago_of_what_is_no_time() -> None:
    assert ago("yesterday", datetime.now(timezone.utc)) == "yesterday"


def test_tsv_and_csv_keep_a_row_a_row(registry: Registry, cli) -> None:
    registry.connect("octavia", "ws-001", {"text": "a\tb\nc", "quote": '"'})
    # An earlier file may hold what a name cannot be any more.
    registry.db.execute("UPDATE connections SET agent = 'a' || char(9) || 'b' || char(10) || '\\'")
    (line,) = cli("list").stdout.splitlines()
    cells = line.split("\t")
    assert len(cells) == 8
    assert cells[1] == r"a\tb\n" + "\\"
    assert json.loads(cells[7]) == {"text": "a\tb\nc", "quote": '"'}
    header, row = csv.reader(io.StringIO(cli("list", "-o", "csv").stdout))
    assert header[1] == "agent"
    assert row[1] == "a\tb\n\\"
    assert json.loads(row[7])["quote"] == '"'


def test_a_table_without_a_terminal_is_plain_and_whole(registry: Registry, cli) -> None:
    registry.connect("日本", "ws-001", {"text": "x" * 300})
    header, row = cli("list", "-o", "table").stdout.splitlines()
    assert header.split() == [
        "ws_id",
        "agent",
        "status",
        "connected_at",
        "last_heartbeat",
        "message_count",
        "pending",
        "metadata",
    ]
    assert row.endswith('{"text":"' + "x" * 300 + '"}')


def test_rich_is_not_used_without_a_terminal(registry: Registry, modules_of) -> None:
    registry.connect("octavia", "ws-001")
    loaded = modules_of("list", "-o", "table", FORCE_COLOR="1")
    assert "ws_manager.cli.connections" in loaded
    assert "rich" not in loaded


def test_list_on_a_terminal(registry: Registry, terminal) -> None:
    connection = registry.connect("a[bold]b[/x]", metadata={"text": HOSTILE})
    registry.send(connection.ws_id, 1)
    code, seen = terminal("list", columns=90)
    assert code == 0
    header, row = seen.splitlines()
    assert "ws_id" in header
    assert "pending" in header
    assert connection.ws_id in row
    assert "a[bold]b[/x]" in row
    assert "s ago" in row
    code, wide = terminal("list", columns=300)
    assert SEEN in json.loads('"' + wide.split('{"text":"')[1].split('"}')[0].replace("\\", "\\\\") + '"')


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("command", ["list", "history"])
def test_tables_fit_into_the_terminal(registry: Registry, terminal, columns: int, command: str) -> None:
    registry.connect("an-agent-with-quite-a-long-name", "w" * 40, {"text": "x" * 200})
    registry.connect("cipher", None, {"text": "日本" * 100})
    registry.broadcast({"text": "y" * 300})
    code, seen = terminal(command, columns=columns, TERM="dumb")
    assert code == 0
    assert len(seen.splitlines()) > 2
    assert max(map(len, seen.splitlines())) <= columns


@pytest.mark.parametrize(
    "variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}]
)
def test_colours_can_be_refused(registry: Registry, terminal, variables: dict[str, str]) -> None:
    registry.connect("octavia", "ws-001")
    registry.send("ws-001", 1)
    plain = terminal("list", **variables)[1]
    assert "\x1b[3" not in plain
    assert "\x1b[3" in terminal("list")[1]


@pytest.mark.parametrize("form", ["table", "json", "ndjson", "csv", "tsv"])
def test_nothing_steers_the_terminal(registry: Registry, terminal, form: str) -> None:
    registry.connect("octavia", "ws-\u202e001", {"text": HOSTILE})
    registry.send("ws-\u202e001", HOSTILE)
    for arguments in (["list"], ["history"], ["receive", "ws-\u202e001"], ["disconnect", "ws-\u202e001"]):
        code, seen = terminal(*arguments, "-o", form, columns=400, NO_COLOR="1", TERM="dumb")
        assert code == 0
        assert not {"\x1b", "\x9b", "\u202e", "\u2067", "\x07"} & set(seen)
        assert "ws-\\u202e001" in seen or arguments[0] == "receive"


def test_errors_do_not_steer_the_terminal(terminal) -> None:
    code, seen = terminal("send", "\x1b[31m\u202e", "1")
    assert code == 3
    assert "\\u001b[31m\\u202e" in seen
    assert "\x1b" not in seen


def test_a_pipe_gets_everything_as_it_is(registry: Registry, process) -> None:
    registry.connect("octavia", "ws-\u202e001", {"text": HOSTILE})
    assert json.loads(process("list", "--json").stdout)[0]["metadata"] == {"text": HOSTILE}
    assert "ws-\u202e001".encode() in process("list").stdout


@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.ISO-8859-1"])
def test_any_locale_will_do(registry: Registry, process, locale: str) -> None:
    registry.connect("日本", "ws-001")
    variables = {"LC_ALL": locale, "LANG": locale, "PYTHONIOENCODING": "ascii:strict"}
    assert "日本".encode() in process("list", **variables).stdout
    assert process("send", "nobody-日本", "1", **variables).returncode == 3


def test_empty_answers_are_explained_on_a_terminal(terminal, cli) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    assert terminal("receive", "ws-001") == (0, "nothing is pending for ws-001\n")
    assert terminal("history") == (0, "no messages\n")
    cli("disconnect", "ws-001")
    assert terminal("list") == (0, "no active connections\n")


def test_a_new_database_is_announced_on_a_terminal(terminal, tmp_path: Path) -> None:
    path = tmp_path / "mistyped.db"
    seen = terminal("--db", str(path), "connect", "octavia", columns=500)[1]
    assert seen.startswith(f"created a new database: {path}\n")


@pytest.mark.parametrize("command", ["list", "history", "stats", "show", "broadcast"])
def test_looking_makes_no_database(process, tmp_path: Path, command: str) -> None:
    path = tmp_path / "mistyped.db"
    more = {"show": ["ws-001"], "broadcast": ["1", "--dry-run"]}
    ended = process("--db", str(path), command, *more.get(command, []))
    assert ended.returncode == (3 if command == "show" else 0)
    assert ended.stderr.startswith(f"there is no database at {path}".encode())
    assert list(tmp_path.iterdir()) == []


def test_received_messages_are_readable_on_a_terminal(registry: Registry, terminal) -> None:
    registry.connect("octavia", "ws-001")
    registry.connect("cipher", "ws-002")
    registry.send("ws-001", {"text": "[bold]wést[/x]"}, "note", "ws-002")
    code, seen = terminal("receive", "ws-001")
    assert code == 0
    _day, clock, seq, kind, *rest = seen.split(maxsplit=4)
    assert (seq, kind) == ("#1", "note")
    assert clock.endswith("Z")
    assert rest == ['from ws-002  {"text":"[bold]wést[/x]"}\n']
