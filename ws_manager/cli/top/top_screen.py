"""The screen of `top`, drawn with Rich; imported only on a terminal."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from datetime import datetime
from typing import Any, Callable, Optional

from rich.console import Console, ConsoleDimensions, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ws_manager.cli.output.standing import backlog_text
from ws_manager.cli.output.tables import Column, console_of, message_state, message_style, table_of
from ws_manager.cli.output.text import Row, visible
from ws_manager.cli.output.times import ago, span
from ws_manager.cli.top.keyboard import Controls, Keyboard, keyboard
from ws_manager.core.read.overview import Overview, OverviewQuery
from ws_manager.repository.findings import MOST_COUNTED

Sample = Callable[[OverviewQuery], Overview]

SHARE = 5
"""A pause is at least this many times as long as the overview took: looking must not become a load."""

_HEADER_LINES = 3
_LEAST_FOR_ALL_PARTS = 16


def can_move_the_cursor() -> bool:
    """Return whether stdout is a terminal on which the view can be redrawn."""
    return os.environ.get("TERM", "") not in ("dumb", "unknown") and sys.stdout.isatty()


def size_of_terminal() -> tuple[int, int]:
    """Return the terminal's current columns and lines; `COLUMNS` and `LINES` do not follow a change of its size."""
    try:
        columns, lines = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        columns, lines = 0, 0
    # A terminal that does not know its size reports 0.
    return columns or 80, lines or 24


def query_for(controls: Controls, lines: int) -> OverviewQuery:
    """Return what an overview has to contain to fill a terminal.

    Args:
        controls: the settings of the view.
        lines: the terminal's lines.
    """
    room = lines - _HEADER_LINES - 1
    small = lines < _LEAST_FOR_ALL_PARTS
    return OverviewQuery(
        order=controls.order,
        agent=controls.agent,
        text=controls.text,
        connections=max(1, room - 1),
        messages=0 if small else min(10, room // 4),
        endings=0 if small else min(5, room // 6),
    )


def fitting(overview: Overview, lines: int) -> Overview:
    """Return an overview without the connections that do not fit beside the other parts.

    Args:
        overview: what is to be drawn.
        lines: the terminal's lines.
    """
    others = [part for part in (overview.messages, overview.endings) if part]
    # Each other part has a header, and an empty line above it.
    room = lines - _HEADER_LINES - 2 - sum(len(part) + 2 for part in others)
    return replace(overview, connections=overview.connections[: max(1, room)])


def print_frame(overview: Overview, database: str) -> None:
    """Print one frame below the cursor, without redrawing."""
    console = console_of(*size_of_terminal())
    console.print(Group(*_parts(overview, database, console.width)))


def watch(sample: Sample, controls: Controls, interval: float, database: str) -> Optional[int]:
    """Show the view on the alternate screen until a key or a signal ends it; the screen is restored then.

    Args:
        sample: takes an overview.
        controls: the settings, which the keys change.
        interval: seconds between two overviews.
        database: the path to show.

    Returns:
        The signal that ended it, or None.
    """
    console = console_of(*size_of_terminal())
    while True:
        with (
            keyboard() as board,
            Live(
                console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
            ) as live,
        ):
            _until_ended(live, board, sample, controls, interval, database)
        if board.signal is None or board.signal != board.signal_of_suspension:
            return board.signal
        # Ctrl-Z: the screen is restored; stop as any program does, and draw again when continued.
        os.kill(os.getpid(), signal.SIGSTOP)


def _until_ended(
    live: Live, board: Keyboard, sample: Sample, controls: Controls, interval: float, database: str
) -> None:
    overview: Optional[Overview] = None
    due, controls.changed = time.monotonic(), True
    while True:
        size = size_of_terminal()
        began = time.monotonic()
        if overview is None or controls.changed or (began >= due and not controls.paused):
            controls.changed = False
            overview = sample(query_for(controls, size[1]))
            due = began + max(interval, SHARE * (time.monotonic() - began))
        live.console.size = ConsoleDimensions(*size)
        live.update(frame(overview, controls, database, size, keys=board.has_keys), refresh=True)
        if board.signal is None:
            board_keys = board.wait(None if controls.paused else max(0.0, due - time.monotonic()))
            controls.press(board_keys)
        if board.signal is not None or controls.ended:
            return


def frame(
    overview: Overview, controls: Controls, database: str, size: tuple[int, int], *, keys: bool
) -> RenderableType:
    """Return the screen: the parts at the top, the keys on the last line."""
    width, lines = size
    screen = Table.grid(expand=True)
    screen.add_column(no_wrap=True, overflow="crop")
    console = Console(width=width, height=lines)
    drawn = 0
    for part in _parts(fitting(overview, lines), database, width):
        screen.add_row(part)
        drawn += len(console.render_lines(part, console.options.update(width=width), pad=False))
    for _ in range(lines - 1 - drawn):
        screen.add_row(Text(""))
    screen.add_row(_legend(controls, keys=keys))
    return screen


def _legend(controls: Controls, *, keys: bool) -> Text:
    if not keys:
        return Text("Ctrl-C quit", "reverse")
    if controls.prompt:
        hint = "Enter to take it, empty for all, Escape to leave it"
        return Text(visible(f"{controls.prompt}: {controls.typed}_  ({hint})"), "reverse")
    chosen = [
        f"s order: {controls.order}",
        f"/ text: {controls.text or 'any'}",
        f"a agent: {controls.agent or 'all'}",
        "p go on" if controls.paused else "p pause",
        "q quit",
    ]
    return Text(visible(("PAUSED  " if controls.paused else "") + "  ".join(chosen)), "reverse")


def _parts(overview: Overview, database: str, width: int) -> list[RenderableType]:
    now = datetime.fromisoformat(overview.at)
    parts: list[RenderableType] = [*_header(overview, database, now), Text("")]
    if overview.connections:
        parts.append(table_of([vars(state) for state in overview.connections], _connection_columns(), width))
    else:
        none = "no active connections" if not overview.active_connections else "no connection matches"
        parts.append(Text(none))
    if overview.messages:
        rows: list[Row] = [message._asdict() for message in overview.messages]
        parts += [Text(""), table_of(rows, _message_columns(now), width)]
    if overview.endings:
        parts += [Text(""), table_of([vars(e) for e in overview.endings], _ending_columns(now), width)]
    return parts


def _header(overview: Overview, database: str, now: datetime) -> list[Text]:
    gateway = overview.gateway
    running = f"gateway {gateway.url}, seen {ago(gateway.seen_at, now)}" if gateway else "no gateway yet"
    if gateway and not overview.gateway_runs:
        running = f"no gateway runs: the last one ended about {ago(gateway.seen_at, now)}"
    matching = overview.matching_connections
    match = "" if matching == overview.active_connections else f", {matching:,} match"
    counts = (
        f"active {overview.active_connections:,}{match}  {_rate(overview.sent_per_second)} sent"
        f"  {_rate(overview.confirmed_per_second)} confirmed"
        f"  ever {overview.total_ever_connected:,} connections, {overview.total_messages:,} messages"
    )
    title = Text(f"{now:%H:%M:%S}Z  ", "bold", no_wrap=True, overflow="ellipsis")
    title.append(visible(f"{running}  {database}"), "not bold")
    waits = Text(backlog_text(overview.backlog), no_wrap=True, overflow="ellipsis")
    if overview.backlog.set_aside or overview.backlog.unrouted:
        waits.stylize("yellow")
    return [title, Text(counts, no_wrap=True, overflow="ellipsis"), waits]


def _rate(value: Optional[float]) -> str:
    if value is None:
        return "-/s"
    return f"{value:,.0f}/s" if value >= 10 or value == 0 else f"{value:.1f}/s"


def _connection_columns() -> list[Column]:
    def slow(row: Row) -> str:
        return "yellow" if row["slow"] else ""

    def number(name: str, show: Callable[[Any], str]) -> Callable[[Row], str]:
        return lambda row: "" if row[name] is None else show(row[name])

    def pending(count: int) -> str:
        return f"{count:,}+" if count >= MOST_COUNTED else f"{count:,}"

    def reasons(row: Row) -> str:
        names: Any = row["slow"]
        return ", ".join(names)

    return [
        Column("ws_id", lambda row: str(row["ws_id"]), slow, shortened=True),
        Column("agent", lambda row: str(row["agent"]), slow, shortened=True),
        Column("age", number("age_seconds", span), slow, right=True, drop_order=4),
        Column("idle", number("idle_seconds", span), slow, right=True),
        Column("trip", number("round_trip_ms", "{} ms".format), slow, right=True, drop_order=1),
        Column("pending", number("pending", pending), slow, right=True),
        Column("waits", number("waiting_seconds", span), slow, right=True, drop_order=3),
        Column("sent", number("sent", "{:,}".format), slow, right=True, drop_order=2),
        Column("slow", reasons, slow),
    ]


def _message_columns(now: datetime) -> list[Column]:
    return [
        Column("sent", lambda row: ago(row["sent_at"], now), right=True),
        Column("message to", lambda row: str(row["recipient_id"]), shortened=True),
        Column("state", message_state, message_style),
        Column("type", lambda row: str(row["msg_type"]), drop_order=1),
        Column("content", lambda row: str(row["content_start"]), shortened=True),
    ]


def _ending_columns(now: datetime) -> list[Column]:
    return [
        Column("last", lambda row: ago(row["last_at"], now), right=True),
        Column("times", lambda row: str(row["count"]), right=True),
        Column("ended", lambda row: str(row["last_ws_id"]), shortened=True),
        Column("because", lambda row: str(row["reason"]), shortened=True),
    ]
