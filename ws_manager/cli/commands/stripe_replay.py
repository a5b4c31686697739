"""`ws-manager stripe replay`: send stored events again that had no recipients."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn, Optional

import typer

from ws_manager.cli.errors import report_error
from ws_manager.cli.exit_codes import PartlyDone
from ws_manager.cli.ledger import ledger_to_read, ledger_to_write
from ws_manager.cli.options import global_options
from ws_manager.cli.output.text import note, note_to_terminal
from ws_manager.cli.output.webhook_outcome import HEADER, outcome_line
from ws_manager.cli.process.stream import Stream, stopped_by_signals
from ws_manager.core.moments import parse_moment
from ws_manager.errors import InvalidInput, WsManagerError
from ws_manager.models import ROUTED
from ws_manager.stripe.events import content_of

if TYPE_CHECKING:
    from ws_manager.cli.options import GlobalOptions
    from ws_manager.core.ledger import Ledger

_WATCH_SECONDS = 0.05
_EVENT_IDS = typer.Argument(None, metavar="<event_id>", help="The events to send; may be repeated.")


def replay(
    ctx: typer.Context,
    event_id: Optional[list[str]] = _EVENT_IDS,
    since: Optional[str] = typer.Option(
        None,
        "--since",
        metavar="WHEN",
        help="All waiting events that were received since then: 2h (ago), an RFC 3339 time, or seconds since 1970.",
    ),
    to: Optional[str] = typer.Option(
        None, "--to", metavar="AGENT", help="Send to this agent's connections instead of the routed ones."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Send nothing: show how many recipients each has."),
    watch: bool = typer.Option(
        False, "--watch", help="Continue: send each event as soon as a recipient connects."
    ),
) -> None:
    """Send stored events again that had no recipients.

    An event is sent only once: one that is routed already is not sent again. Exit code 5 means that some events
    still wait.
    """
    if bool(event_id) == (since is not None or watch) and not (since is not None and watch):
        raise InvalidInput(
            "replay takes events, --since or --watch",
            hint="ws-manager stripe events --status unrouted lists them",
        )
    if watch and dry_run:
        raise InvalidInput("--watch and --dry-run exclude each other", hint="leave one of them out")
    start = "" if since is None else parse_moment(since)
    options = global_options(ctx)
    opened = ledger_to_read(ctx) if dry_run else ledger_to_write(ctx)
    with opened as ledger, stopped_by_signals() as stop:
        stream = Stream(stop)
        if options.output == "csv":
            stream.put(HEADER)
        if watch:
            _watch(options, ledger, start, to, stream)
        chosen = event_id or ledger.webhooks.waiting(start)
        left = _replay(options, ledger, chosen, to, stream, dry_run=dry_run)
        if not chosen:
            note_to_terminal("no waiting events")
    if left and not dry_run:
        raise PartlyDone(
            f"{left} of {len(chosen)} event(s) were not sent",
            hint="--watch sends waiting events as soon as a recipient connects",
        )


def _replay(
    options: "GlobalOptions",
    ledger: "Ledger",
    event_ids: Iterable[str],
    to: Optional[str],
    stream: Stream,
    *,
    dry_run: bool = False,
) -> int:
    """Replay events, write the outcome of each, and return the number of events that were not sent."""
    webhooks, left = ledger.webhooks, 0
    for event_id in event_ids:
        # A signal ends the command between two events.
        stream.pause(0)
        try:
            outcome = webhooks.replay(event_id, content_of, agent=to, dry_run=dry_run)
        except WsManagerError as error:
            # An event that cannot be sent does not stop the others.
            report_error(error, options.output, debug=options.debug)
            left += 1
            continue
        left += outcome.status != ROUTED
        if options.output != "id" or outcome.status == ROUTED:
            stream.put(outcome_line(options, outcome, dry_run=dry_run))
    return left


def _watch(
    options: "GlobalOptions", ledger: "Ledger", since: str, to: Optional[str], stream: Stream
) -> NoReturn:
    """Replay waiting events whenever the ledger has changed, until a signal ends the command."""
    note("Watching: events are sent as soon as a recipient connects")
    webhooks, changes = ledger.webhooks, ledger.changes()
    while True:
        if changes.happened():
            for event_id in webhooks.waiting(since):
                stream.pause(0)
                if webhooks.replay(event_id, content_of, agent=to, dry_run=True).status == ROUTED:
                    _replay(options, ledger, [event_id], to, stream)
        stream.pause(_WATCH_SECONDS)
