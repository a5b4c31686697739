"""How values are written: formats, terminals, locales, and what must not reach a terminal."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.support import open_sql, sql_of
from ws_manager.cli.output.text import json_object, json_text, visible
from ws_manager.cli.output.times import ago
from ws_manager.core.ledger import Ledger, ledger_over
from ws_manager.strict_json import Json

pytestmark = pytest.mark.over_http

HOSTILE = "esc \x1b[31m, csi \x9b31m, rlo \u202e, rli \u2067, bell \x07"
SEEN = r"esc \u001b[31m, csi \u009b31m, rlo \u202e, rli \u2067, bell \u0007"


@pytest.fixture
def ledger(database: Path):
    db = open_sql(database)
    yield ledger_over(db)
    db.close()


# Each kind of what nobody can see: spaces of no width, a byte order mark, a tag, separators of lines, a filler.
INVISIBLE = "\u200b\u2060\u00ad\u2028\u2029\ufeff\u3164\U000e0041\U000e007f\x85"
EARLIER = f"ws-{INVISIBLE}\u202e001"


def earlier_names(ledger: Ledger, ws_id: str = EARLIER, agent: str = f"oct{INVISIBLE}avia") -> None:
    """Leave a connection as an earlier version may have: with names that nobody can take any more."""
    ledger.connect("to be renamed", "to be renamed", {"text": HOSTILE + INVISIBLE})
    sql_of(ledger).execute(
        "UPDATE connections SET ws_id = ?, agent = ? WHERE ws_id = 'to be renamed'", (ws_id, agent)
    )


def test_visible() -> None:
    assert visible(HOSTILE) == SEEN
    assert visible(f"a{INVISIBLE}b") == (
        r"a\u200b\u2060\u00ad\u2028\u2029\ufeff\u3164\U000e0041\U000e007f\u0085b"
    )
    # What writing needs stays: Persian, a family of emoji, a flag.
    for text in ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "👩\u200d👧", "🏳\ufe0f\u200d🌈"):
        assert visible(text) == text
    assert visible("wést 日本 🙂 a\\b") == "wést 日本 🙂 a\\b"
    assert visible("a\nb") == "a\\u000ab"
    hostile = json.dumps({"text": HOSTILE + INVISIBLE}, ensure_ascii=False, indent=2)
    assert json.loads(visible(hostile, is_json=True)) == {"text": HOSTILE + INVISIBLE}
    assert visible(hostile, is_json=True).isascii()


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


def test_tsv_and_csv_keep_a_row_a_row(ledger: Ledger, cli) -> None:
    ledger.connect("octavia", "ws-001", {"text": "a\tb\nc", "quote": '"'})
    # An earlier file may hold what a name cannot be any more.
    sql_of(ledger).execute("UPDATE connections SET agent = ?", ("a\tb\n\\",))
    (line,) = cli("list").stdout.splitlines()
    cells = line.split("\t")
    assert len(cells) == 8
    assert cells[1] == r"a\tb\n" + "\\"
    assert json.loads(cells[7]) == {"text": "a\tb\nc", "quote": '"'}
    header, row = csv.reader(io.StringIO(cli("list", "-o", "csv").stdout))
    assert header[1] == "agent"
    assert row[1] == "a\tb\n\\"
    assert json.loads(row[7])["quote"] == '"'


def test_a_table_without_a_terminal_is_plain_and_whole(ledger: Ledger, cli) -> None:
    ledger.connect("日本", "ws-001", {"text": "x" * 300})
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


def test_rich_is_not_used_without_a_terminal(ledger: Ledger, modules_of) -> None:
    ledger.connect("octavia", "ws-001")
    loaded = modules_of("list", "-o", "table", FORCE_COLOR="1")
    assert "ws_manager.cli.commands.list" in loaded
    assert "rich" not in loaded


def test_list_on_a_terminal(ledger: Ledger, terminal) -> None:
    connection = ledger.connect("a[bold]b[/x]", metadata={"text": HOSTILE})
    ledger.send(connection.ws_id, 1)
    code, seen = terminal("list", columns=90)
    assert code == 0
    header, row, _standing = seen.splitlines()
    assert "ws_id" in header
    assert "pending" in header
    assert connection.ws_id in row
    assert "a[bold]b[/x]" in row
    assert "s ago" in row
    code, wide = terminal("list", columns=300)
    assert SEEN in json.loads('"' + wide.split('{"text":"')[1].split('"}')[0].replace("\\", "\\\\") + '"')


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("command", ["list", "history"])
@pytest.mark.on_the_file
def test_tables_fit_into_the_terminal(ledger: Ledger, terminal, columns: int, command: str) -> None:
    ledger.connect("an-agent-with-quite-a-long-name", "w" * 40, {"text": "x" * 200})
    ledger.connect("cipher", None, {"text": "日本" * 100})
    ledger.broadcast({"text": "y" * 300})
    code, seen = terminal(command, columns=columns, TERM="dumb")
    assert code == 0
    assert len(seen.splitlines()) > 2
    assert max(map(len, seen.splitlines())) <= columns


@pytest.mark.parametrize(
    "variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}]
)
def test_colours_can_be_refused(ledger: Ledger, terminal, variables: dict[str, str]) -> None:
    ledger.connect("octavia", "ws-001")
    ledger.send("ws-001", 1)
    plain = terminal("list", **variables)[1]
    assert "\x1b[3" not in plain
    assert "\x1b[3" in terminal("list")[1]


def harmless(seen: str) -> bool:
    return not {"\x1b", "\x9b", "\u202e", "\u2067", "\x07", *INVISIBLE} & set(seen)


@pytest.mark.parametrize("form", ["table", "json", "ndjson", "csv", "tsv"])
def test_nothing_steers_the_terminal(ledger: Ledger, terminal, form: str) -> None:
    earlier_names(ledger)
    ledger.send(EARLIER, HOSTILE + INVISIBLE, sender_id=EARLIER)
    commands = [["list"], ["history"], ["show", EARLIER], ["receive", EARLIER], ["disconnect", EARLIER]]
    for arguments in (*commands, ["list", "--all"], ["history", "--follow", "--since", "1h", "--limit", "1"]):
        code, seen = terminal(*arguments, "-o", form, columns=600, NO_COLOR="1", TERM="dumb")
        assert code == 0, seen
        assert harmless(seen), arguments
        assert "\\u202e001" in seen, arguments


def test_nothing_steers_the_terminal_of_a_view(ledger: Ledger, terminal) -> None:
    earlier_names(ledger)
    ledger.send(EARLIER, HOSTILE + INVISIBLE)
    code, seen = terminal("top", "--once", columns=600, NO_COLOR="1", TERM="dumb")
    assert (code, harmless(seen), "\\u202e001" in seen) == (0, True, True), seen


def test_names_of_earlier_versions_can_be_addressed(ledger: Ledger, cli, tmp_path: Path) -> None:
    earlier_names(ledger)
    agent = f"oct{INVISIBLE}avia"
    for arguments in (
        ["list", "--agent", agent],
        ["send", EARLIER, "1"],
        ["broadcast", "1", "--agent", agent],
        ["history", "--agent", agent],
        ["show", EARLIER],
        ["top", "--once", "--agent", agent],
        ["heartbeat", EARLIER],
        ["disconnect", EARLIER],
        ["connect", agent, "--ws-id", EARLIER],
        ["receive", EARLIER],
    ):
        result = cli(*arguments, "--json") if arguments[0] != "top" else cli(*arguments)
        assert result.exit_code == 0, (arguments, result.stderr)
        assert result.stdout.count("\n") >= 1
    lines = f'{{"to":{json.dumps(EARLIER)},"content":1}}\n'
    assert ledger.send(EARLIER, 1, sender_id=EARLIER) is not None
    batch = tmp_path / "batch"
    batch.write_text(lines, encoding="utf-8")
    assert cli("send", "--batch", str(batch)).exit_code == 0
    # It keeps its names, and nobody else gets such a name.
    assert cli("connect", "cipher", "--ws-id", EARLIER).exit_code == 2
    assert cli("connect", agent, "--ws-id", "ws-002").exit_code == 2


@pytest.mark.parametrize(
    "character", ["\u200b", "\ufeff", "\u2028", "\u202e", "\u00ad", "\U000e0041", "\u200d", "\u3164"]
)
def test_new_names_with_what_nobody_can_see_are_refused(ledger: Ledger, cli, character: str) -> None:
    ledger.connect("octavia", "ws-001")
    before = cli("export").stdout.splitlines()[1:]
    name = f"oct{character}avia"
    for arguments in (
        ["connect", name],
        ["connect", "octavia", "--ws-id", name],
        ["connect", name, "--ws-id", "ws-001"],
        ["send", "ws-001", "1", "--type", name],
        ["broadcast", "1", "--type", name],
        ["broadcast", "1", "--type", name, "--dry-run"],
        ["send", "ws-001", "--batch", "/dev/null", "--type", name],
        ["listen", name],
        ["token", name],
        ["token", "octavia", "--ws-id", name],
    ):
        result = cli(*arguments)
        assert result.exit_code == 2, arguments
        assert f"invisible character U+{ord(character):04X}" in result.stderr
    assert cli("export").stdout.splitlines()[1:] == before


def test_lines_stay_whole_for_every_reader(ledger: Ledger, process) -> None:
    breaks = "a\x85b\u2028c\u2029d"
    ledger.connect("octavia", "ws-001", {"text": breaks})
    sql_of(ledger).execute("UPDATE connections SET agent = ?", (f"{breaks}\x0b\x0c\x1c",))
    ledger.send("ws-001", breaks)
    lines = {
        name: process(*arguments).stdout.decode("utf-8")
        for name, arguments in {
            "list": ["list"],
            "csv": ["list", "-o", "csv", "--no-headers"],
            "ndjson": ["list", "-o", "ndjson"],
            "history": ["history", "-o", "ndjson"],
            "follow": ["history", "--follow", "--since", "1h", "--limit", "1"],
            "receive": ["receive", "ws-001"],
        }.items()
    }
    for name, line in lines.items():
        assert len(line.splitlines()) == 1, name
        assert "\\u2028" in line, name
    assert json.loads(lines["receive"])["content"] == breaks
    assert json.loads(lines["ndjson"])["metadata"] == {"text": breaks}
    exported = process("export").stdout.decode("utf-8")
    assert len(exported.splitlines()) == exported.count("\n")


class TestExcel:
    NAMES = ("=cmd|' /C calc'!A0", "+1", "-1", "@x", "\uff1dx", "a=b")

    def agents(self, cli, *arguments: str) -> list[str]:
        result = cli("list", "-o", "csv", "--fields", "agent,message_count", *arguments)
        assert result.exit_code == 0, result.stderr
        return [row["agent"] for row in csv.DictReader(io.StringIO(result.stdout))]

    def test_cells_stay_as_they_are(self, ledger: Ledger, cli) -> None:
        for name in self.NAMES:
            ledger.connect(name)
        assert self.agents(cli) == list(self.NAMES)

    def test_formulas_are_quoted_where_it_is_asked_for(self, ledger: Ledger, cli) -> None:
        for name in self.NAMES:
            ledger.connect(name)
        assert self.agents(cli, "--excel") == [*(f"'{name}" for name in self.NAMES[:-1]), "a=b"]

    def test_numbers_are_no_formulas(self, ledger: Ledger, cli) -> None:
        connection = ledger.connect("=a")
        ledger.send(connection.ws_id, -5)
        result = cli("history", "-o", "csv", "--excel", "--fields", "content,recipient_id", "--no-headers")
        assert result.stdout.split(",")[0] == "-5"

    def test_of_what_is_followed(self, ledger: Ledger, cli) -> None:
        ledger.connect("octavia", "=ws")
        ledger.send("=ws", 1)
        follow = ("history", "--follow", "--since", "1h", "--limit", "1", "--no-headers")
        result = cli(*follow, "-o", "csv", "--excel", "--fields", "recipient_id")
        assert result.stdout == "'=ws\n"

    @pytest.mark.parametrize("command", ["list", "history", "show ws-001", "stripe events"])
    def test_is_for_csv_alone(self, ledger: Ledger, cli, command: str) -> None:
        ledger.connect("octavia", "ws-001")
        assert cli(*command.split(), "--excel", "-o", "csv").exit_code == 0
        for output in ((), ("-o", "tsv"), ("--json",)):
            result = cli(*command.split(), "--excel", *output)
            assert (result.exit_code, "--excel is for csv alone" in result.stderr) == (2, True)


def test_errors_do_not_steer_the_terminal(db, terminal) -> None:
    code, seen = terminal("send", "\x1b[31m\u202e", "1")
    assert code == 3
    assert "\\u001b[31m\\u202e" in seen
    assert "\x1b" not in seen


def test_a_pipe_gets_everything_as_it_is(ledger: Ledger, process) -> None:
    earlier_names(ledger, "ws-\u202e001")
    assert json.loads(process("list", "--json").stdout)[0]["metadata"] == {"text": HOSTILE + INVISIBLE}
    assert "ws-\u202e001".encode() in process("list").stdout


@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.ISO-8859-1"])
def test_any_locale_will_do(ledger: Ledger, process, locale: str) -> None:
    ledger.connect("日本", "ws-001")
    variables = {"LC_ALL": locale, "LANG": locale, "PYTHONIOENCODING": "ascii:strict"}
    assert "日本".encode() in process("list", **variables).stdout
    assert process("send", "nobody-日本", "1", **variables).returncode == 3


@pytest.mark.on_the_file
def test_empty_answers_are_explained_on_a_terminal(terminal, cli) -> None:
    cli("connect", "octavia", "--ws-id", "ws-001")
    assert terminal("receive", "ws-001") == (0, "nothing is pending for ws-001\n")
    assert terminal("history") == (0, "no messages\n")
    cli("disconnect", "ws-001")
    assert terminal("list") == (0, "no active connections\n0 pending, 0 set aside; no gateway runs\n")


def test_a_new_database_is_announced_on_a_terminal(terminal, tmp_path: Path) -> None:
    path = tmp_path / "mistyped.db"
    seen = terminal("--db", str(path), "connect", "octavia", columns=500)[1]
    assert seen.startswith(f"created a new database: {path}\n")


@pytest.mark.parametrize("command", ["list", "history", "stats", "show", "broadcast"])
@pytest.mark.on_the_file
def test_looking_makes_no_database(process, tmp_path: Path, command: str) -> None:
    path = tmp_path / "mistyped.db"
    more = {"show": ["ws-001"], "broadcast": ["1", "--dry-run"]}
    ended = process("--db", str(path), command, *more.get(command, []))
    assert ended.returncode == (3 if command == "show" else 0)
    assert ended.stderr.startswith(f"there is no database at {path}".encode())
    assert list(tmp_path.iterdir()) == []


def test_received_messages_are_readable_on_a_terminal(ledger: Ledger, terminal) -> None:
    ledger.connect("octavia", "ws-001")
    ledger.connect("cipher", "ws-002")
    ledger.send("ws-001", {"text": "[bold]wést[/x]"}, "note", "ws-002")
    code, seen = terminal("receive", "ws-001")
    assert code == 0
    _day, clock, seq, kind, *rest = seen.split(maxsplit=4)
    assert (seq, kind) == ("#1", "note")
    assert clock.endswith("Z")
    assert rest == ['from ws-002  {"text":"[bold]wést[/x]"}\n']
