"""The tables of a terminal, held by snapshots: 80 and 200 columns, data that would do harm if it were let.

After a change that is wanted, write them anew: `WRITE_SNAPSHOTS=1 python -m pytest tests/cli/output/test_tables.py`,
and read the difference.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable

import pytest
from rich.cells import cell_len
from typer.main import get_command

from tests.support import open_socket, open_sql
from ws_manager.cli.app import app
from ws_manager.cli.output import format_options as view
from ws_manager.cli.output import standing, tables, times
from ws_manager.core.ledger import ledger_over

pytestmark = pytest.mark.over_http

SNAPSHOTS = Path(__file__).parent / "snapshots"
NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=timezone.utc)
HOSTILE = "[bold]b[/x] 🙂 שלום \u202edesrever\u2066 nl\n tab\t esc\x1b[31m bel\x07 csi\x9b2J del\x7f"
NAME = "[red]o[/x]🙂 שלום \u202ex"
HARMFUL = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u202e", "\u2066"} - {"\n"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def ledger(database: Path) -> Iterator[None]:
    """Connections and messages with fixed identifiers and times."""
    db = open_sql(database)
    ledger = ledger_over(db)
    ledger.connect("octavia", "ws-001", {"region": "us-west", "ip": "10.0.0.1"})
    ledger.connect("hostile", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff", {"note": HOSTILE})
    ledger.connect("cipher", "ws-003", {"list": [1, {"日本": "語" * 60}]})
    # Names that nobody can take any more, from before they were refused.
    db.execute("UPDATE connections SET agent = ? WHERE agent = 'hostile'", (NAME,))
    db.execute("UPDATE events SET detail = ? WHERE detail = 'agent=hostile'", (f"agent={NAME}",))
    for table in ("connections", "events"):
        db.execute(f"UPDATE {table} SET ws_id = 'ws-\u202e003' WHERE ws_id = 'ws-003'")
    open_socket(ledger, "octavia", "ws-004", gateway="g")
    ledger.connect("cipher", "ws-005")
    ledger.disconnect("ws-005")
    # From before reasons were checked.
    for table, column in (("connections", "close_reason"), ("events", "detail")):
        db.execute(
            f"UPDATE {table} SET {column} = ? WHERE {column} = 'disconnected by an operator'",
            ("[bold]enough\x1b[0m",),
        )
    ledger.broadcast({"event": HOSTILE})
    ledger.send("ws-001", "[/x]" + "x" * 300, "[note]", "ws-\u202e003")
    db.execute(
        "UPDATE connections SET close_code = 1006, close_reason = 'connection lost' WHERE ws_id = 'ws-004'"
    )
    db.execute("UPDATE connections SET connected_at = '2026-01-01T12:00:00.000000+00:00'")
    db.execute("UPDATE connections SET last_heartbeat = '2026-01-02T11:59:50.000000+00:00'")
    db.execute(
        "UPDATE connections SET disconnected_at = '2026-01-02T11:00:00.250000+00:00' WHERE ws_id = 'ws-005'"
    )
    db.execute("UPDATE events SET ts = '2026-01-01T12:00:00.000000+00:00'")
    db.execute("UPDATE broadcasts SET broadcast_id = '00000000-0000-4000-8000-00000000000b'")
    db.execute(
        "UPDATE messages SET broadcast_id = '00000000-0000-4000-8000-00000000000b' WHERE broadcast_id IS NOT NULL"
    )
    db.execute("UPDATE broadcasts SET sent_at = '2026-01-02T11:58:00.000000+00:00'")
    db.execute("UPDATE messages SET msg_id = '00000000-0000-4000-8000-00000000000' || id")
    db.execute("UPDATE messages SET sent_at = '2026-01-02T11:58:00.000000+00:00'")
    db.execute(
        "UPDATE messages SET delivered = 1, confirmed_at = '2026-01-02T11:58:00.033000+00:00' WHERE id = 1"
    )
    db.execute(
        "UPDATE messages SET rejected_at = '2026-01-02T11:58:02.000000+00:00',"
        " reject_reason = 'no [bold]\x9b' WHERE id = 2"
    )
    db.close()
    yield


@pytest.fixture
def screen(database: Path, ledger: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command as on a terminal of so many columns, at a fixed time, and return what it shows."""
    for module in (tables, times, view, standing):
        monkeypatch.setattr(module, "now", lambda: NOW)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("LINES", "60")

    def run(columns: int, *arguments: str) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        terminal = Terminal()
        monkeypatch.setattr("sys.stdout", terminal)
        monkeypatch.setattr("sys.stderr", terminal)
        with pytest.raises(SystemExit) as ended:
            get_command(app).main(["--db", str(database), *arguments])
        monkeypatch.undo()
        assert ended.value.code == 0, terminal.getvalue()
        return terminal.getvalue()

    return run


@pytest.mark.sqlite_only("the order in which it numbers a broadcast's messages")
@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("list", ["list"]),
        ("list-all", ["list", "--all"]),
        ("history", ["history"]),
        ("show-connection", ["show", "ws-001"]),
        ("show-gone", ["show", "ws-005"]),
        ("show-hostile", ["show", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"]),
        ("show-delivered", ["show", "00000000-0000-4000-8000-000000000001"]),
        ("show-set-aside", ["show", "00000000-0000-4000-8000-000000000002"]),
        ("show-broadcast", ["show", "00000000-0000-4000-8000-00000000000b"]),
        ("dry-run", ["broadcast", "1", "--dry-run", "--where", "metadata.region=us-west"]),
    ],
)
def test_snapshot(screen: Callable[..., str], name: str, arguments: list[str], columns: int) -> None:
    seen = screen(columns, *arguments)
    assert not HARMFUL & set(seen)
    assert max(map(cell_len, seen.splitlines())) <= columns
    snapshot = SNAPSHOTS / f"{name}-{columns}.txt"
    shown = "".join(f"{line.rstrip()}\n" for line in seen.splitlines())
    if os.environ.get("WRITE_SNAPSHOTS"):
        snapshot.write_text(shown, encoding="utf-8")
    assert shown == snapshot.read_text(encoding="utf-8")


def test_the_state_decides_the_colour(terminal, cli) -> None:
    cli("connect", "octavia", "--ws-id", "lost-and-found, set aside")
    _, seen = terminal("show", "lost-and-found, set aside")
    assert "\x1b[32mlost-and-found, set aside was registered by a command" in seen
    cli("disconnect", "lost-and-found, set aside")
    _, seen = terminal("show", "lost-and-found, set aside")
    assert "\x1b[31mlost-and-found, set aside is disconnected since" in seen
