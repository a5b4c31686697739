"""`ws-manager top`: a live view on a terminal; elsewhere one JSON object per frame."""

import itertools
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Callable, Optional

import typer

from ws_manager.cli.exit_codes import TERMINATED
from ws_manager.cli.ledger import ledger_to_read
from ws_manager.cli.options import GlobalOptions, global_options
from ws_manager.cli.output.text import json_object, visible
from ws_manager.cli.process.stream import Stream, stopped_by_signals
from ws_manager.errors import InvalidInput
from ws_manager.settings import heartbeat_timeout, parse_duration

if TYPE_CHECKING:
    from ws_manager.core.read.overview import Overview, OverviewQuery, Sampler

_SHORTEST_INTERVAL = 0.1


def top(
    ctx: typer.Context,
    agent: Optional[str] = typer.Option(
        None, "--agent", metavar="NAME", help="Only this agent's connections."
    ),
    text: Optional[str] = typer.Option(
        None,
        "--text",
        metavar="TEXT",
        help="Only connections with this text in their ws_id, agent or metadata.",
    ),
    sort: str = typer.Option(
        "pending", "--sort", metavar="KEY", help="The order: pending, idle, round-trip, sent, age or agent."
    ),
    interval: str = typer.Option(
        "1s",
        "--interval",
        metavar="DURATION",
        help="The time between two frames; longer if a frame takes long.",
    ),
    once: bool = typer.Option(False, "--once", help="Print one frame and end."),
    count: Optional[int] = typer.Option(
        None, "--count", metavar="N", help="Print N frames, one below the other, and end."
    ),
    limit: int = typer.Option(
        20,
        "--limit",
        metavar="N",
        help="At most N connections per frame; the screen of a terminal shows as many as fit.",
    ),
) -> None:
    """Watch connections, rates, recent messages and disconnects.

    On a terminal, keys sort, filter, pause and quit; the last line shows them. Elsewhere there is one JSON object
    per frame. The ledger is opened read-only.
    """
    from ws_manager.core.read.overview import OverviewQuery, check_query
    from ws_manager.repository.findings import ORDERS

    options = global_options(ctx)
    form = _form(options)
    seconds = _interval(interval)
    frames = _frames(count, once=once)
    query = OverviewQuery(order=sort, agent=agent, text=text or None, connections=limit)
    check_query(query)
    with ledger_to_read(ctx) as ledger:
        sampler = ledger.sampler(heartbeat_timeout())
        if form != "table":
            with stopped_by_signals() as stop:
                stream = Stream(stop)
                for overview in _every(seconds, frames, sampler, query, stream.pause):
                    stream.put(_json(overview, form) + "\n")
            return
        from ws_manager.cli.top import top_screen as screen
        from ws_manager.cli.top.keyboard import Controls

        if frames is not None or not screen.can_move_the_cursor():
            for overview in _every(seconds, frames, sampler, query, time.sleep):
                screen.print_frame(overview, ledger.location)
                sys.stdout.flush()
            return
        ended_by = screen.watch(
            sampler.sample, Controls(ORDERS, sort, agent, text or None), seconds, ledger.location
        )
    if ended_by == signal.SIGINT:
        raise KeyboardInterrupt
    if ended_by is not None:
        sys.exit(TERMINATED)


def _form(options: GlobalOptions) -> str:
    """Return `table`, `json` or `ndjson`."""
    terminal = sys.stdout.isatty()
    form = options.output or ("table" if terminal else "ndjson")
    if form not in ("table", "json", "ndjson"):
        raise InvalidInput(f"top has no {form} output", hint="use -o ndjson, or ws-manager list")
    if form == "table" and not terminal:
        raise InvalidInput(
            "top draws a table on a terminal only", hint="leave out -o table: a pipe gets JSON"
        )
    return form


def _interval(text: str) -> float:
    seconds = parse_duration(text)
    if seconds < _SHORTEST_INTERVAL:
        raise InvalidInput(f"too short an interval: {text}", hint="give 100ms or more")
    return seconds


def _frames(count: Optional[int], *, once: bool) -> Optional[int]:
    """Return the number of frames to print; None for no end."""
    if once and count is not None:
        raise InvalidInput("--once and --count exclude each other", hint="--once is --count 1")
    if count is not None and count < 1:
        raise InvalidInput(f"not a number of frames: {count}", hint="give --count 1 or more")
    return 1 if once else count


def _every(
    seconds: float,
    frames: Optional[int],
    sampler: "Sampler",
    query: "OverviewQuery",
    pause: Callable[[float], None],
) -> Iterator["Overview"]:
    """Take an overview every `seconds`, or less often if it takes long. `pause` waits."""
    for number in itertools.count(1):
        began = time.monotonic()
        yield sampler.sample(query)
        if number == frames:
            return
        took = time.monotonic() - began
        pause(max(seconds - took, 4 * took))


def _json(overview: "Overview", form: str) -> str:
    """Return an overview as JSON text, ready for stdout."""
    from ws_manager.core.read.overview import overview_form

    text = json_object(overview_form(overview), indent=form == "json")
    return visible(text, is_json=True) if sys.stdout.isatty() else text
