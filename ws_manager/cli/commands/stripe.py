"""`ws-manager stripe`: events, replay and trigger."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NoReturn, Optional

import typer

from ws_manager.cli.errors import report
from ws_manager.cli.exit_codes import PartlyDone
from ws_manager.cli.gateways import gateway_url
from ws_manager.cli.ledger import ledger_if_any, ledger_to_read, ledger_to_write
from ws_manager.cli.options import global_options
from ws_manager.cli.output.format_options import EXCEL, FIELDS, NO_HEADERS, TIME, FormatOptions, choose
from ws_manager.cli.output.rows import row_line, rows
from ws_manager.cli.output.text import Row, note, note_to_terminal
from ws_manager.cli.process.stream import Stream, stopped_by_signals
from ws_manager.core.moments import parse_moment
from ws_manager.core.webhooks import WebhookOutcome
from ws_manager.errors import InvalidInput, WsManagerError
from ws_manager.models import ROUTED
from ws_manager.settings import expanded
from ws_manager.stripe.events import content_of

if TYPE_CHECKING:
    from ws_manager.cli.options import GlobalOptions
    from ws_manager.core.ledger import Ledger

COLUMNS = ("received_at", "event_id", "event_type", "status", "agent", "msg_type", "recipients")
ALL_FIELDS = (*COLUMNS, "routed_at", "broadcast_id", "reason")
OUTCOME = ("event_id", "event_type", "status", "agent", "msg_type", "recipients", "broadcast_id", "reason")

_HEADER = ",".join(OUTCOME) + "\n"
_WATCH_SECONDS = 0.05
_EVENT_IDS = typer.Argument(None, metavar="<event_id>", help="The events; several may be given.")


def events(
    ctx: typer.Context,
    status: Optional[str] = typer.Option(
        None, "--status", metavar="STATUS", help="Only those that are routed, or unrouted."
    ),
    event: Optional[str] = typer.Option(
        None, "--event", metavar="PATTERN", help="Only of these types: invoice.paid, or invoice.*"
    ),
    since: Optional[str] = typer.Option(
        None,
        "--since",
        metavar="WHEN",
        help="Only what has come since then: 2h, an RFC 3339 time, or seconds since 1970.",
    ),
    limit: int = typer.Option(50, "--limit", metavar="N", help="At most so many, the newest."),
    names: Optional[str] = FIELDS,
    no_headers: bool = NO_HEADERS,
    time: Optional[str] = TIME,
    excel: bool = EXCEL,
) -> None:
    """List the events that have come, newest first.

    One that is unrouted waits for somebody to connect that it is for; or no message can have it, and its reason says
    why.
    """
    options = global_options(ctx)
    view = choose(options, ALL_FIELDS, names, no_headers, time, excel)
    start = "" if since is None else parse_moment(since)
    found: list[Row] = []
    with ledger_if_any(ctx) as ledger:
        if ledger is not None:
            listed = ledger.webhooks.events(status=status, since=start, pattern=event, limit=limit)
            found = [{name: getattr(each, name) for name in ALL_FIELDS} for each in listed]
    if not found:
        note_to_terminal("no such events" if status or event or since else "no events")

    def table(rows_of_it: Sequence[Row]) -> None:
        from ws_manager.cli.output.tables import show_webhook_events

        show_webhook_events(rows_of_it, view)

    rows(options, found, COLUMNS, "event_id", table, view)


def replay(
    ctx: typer.Context,
    event_id: Optional[list[str]] = _EVENT_IDS,
    since: Optional[str] = typer.Option(
        None,
        "--since",
        metavar="WHEN",
        help="All that wait, received since then: 2h, an RFC 3339 time, or seconds since 1970.",
    ),
    to: Optional[str] = typer.Option(
        None, "--to", metavar="AGENT", help="To this agent's connections, instead of where they were to go."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say to how many each would go."),
    watch: bool = typer.Option(
        False, "--watch", help="Go on: replay each as soon as somebody connects that it is for."
    ),
) -> None:
    """Send events now that nobody was connected for.

    Each becomes messages once, however often and by whomever it is sent: one that is routed already is not sent
    again. Exit code 5 says that some still wait.
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
            stream.put(_HEADER)
        if watch:
            _watch(options, ledger, start, to, stream)
        chosen = event_id or ledger.webhooks.waiting(start)
        left = _replay(options, ledger, chosen, to, stream, dry_run=dry_run)
        if not chosen:
            note_to_terminal("no events wait")
    if left and not dry_run:
        raise PartlyDone(
            f"{left} of {len(chosen)} event(s) were not sent",
            hint="those that wait are sent as soon as somebody is connected: --watch",
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
    """Replay events, write what became of each, and return how many were not sent."""
    webhooks, left = ledger.webhooks, 0
    for event_id in event_ids:
        # A signal ends it between two events.
        stream.pause(0)
        try:
            outcome = webhooks.replay(event_id, content_of, agent=to, dry_run=dry_run)
        except WsManagerError as error:
            # One that cannot be sent does not keep the others from it.
            report(error, options.output, debug=options.debug)
            left += 1
            continue
        left += outcome.status != ROUTED
        if options.output != "id" or outcome.status == ROUTED:
            stream.put(_line(options, outcome, dry_run=dry_run))
    return left


def _line(options: "GlobalOptions", outcome: WebhookOutcome, *, dry_run: bool = False) -> str:
    """Return the line that says what became of an event, ready for stdout."""

    def readable(_row: Row) -> str:
        if outcome.status == ROUTED:
            verb = "Would send" if dry_run else "Sent"
            return f"{verb} {outcome.event_id} ({outcome.event_type}) to {outcome.recipients} connection(s)"
        if outcome.reason is not None:
            return f"{outcome.event_id} ({outcome.event_type}) cannot become messages: {outcome.reason}"
        whom = outcome.agent or "everyone"
        return f"{outcome.event_id} ({outcome.event_type}) waits: nobody is connected as {whom}"

    row: Row = {name: getattr(outcome, name) for name in OUTCOME}
    return row_line(row, options.output or "table", OUTCOME, "event_id", readable, FormatOptions()) + "\n"


def _watch(
    options: "GlobalOptions", ledger: "Ledger", since: str, to: Optional[str], stream: Stream
) -> NoReturn:
    """Replay what waits whenever somebody has connected, until the command is ended."""
    note("Watching: events are sent as soon as somebody connects that they are for")
    webhooks, changes = ledger.webhooks, ledger.changes()
    while True:
        if changes.happened():
            for event_id in webhooks.waiting(since):
                stream.pause(0)
                if webhooks.replay(event_id, content_of, agent=to, dry_run=True).status == ROUTED:
                    _replay(options, ledger, [event_id], to, stream)
        stream.pause(_WATCH_SECONDS)


def trigger(
    ctx: typer.Context,
    event: str = typer.Argument(..., metavar="<event>", help="The type, such as payment_intent.succeeded."),
    ca: Optional[str] = typer.Option(
        None, "--ca", metavar="FILE", help="PEM certificates to check an https gateway's with."
    ),
) -> None:
    """Post a signed event of a test to the gateway.

    Signed with the secret in STRIPE_WEBHOOK_SECRET, so the whole way can be tried without an account at Stripe.
    """
    from ws_manager.stripe.trigger import post_event, sample_event

    options, sample = global_options(ctx), sample_event(event)
    url = options.url or gateway_url(options.database)
    # The database's own gateway runs on this machine, whatever its address is.
    direct = options.url is None
    outcome = post_event(url, sample, None if ca is None else expanded(ca), direct=direct)
    written = (_HEADER if options.output == "csv" else "") + _line(options, outcome)
    sys.stdout.write(written if options.output != "id" or outcome.status == ROUTED else "")
    sys.stdout.flush()
    if outcome.status != ROUTED and outcome.reason is None:
        raise PartlyDone(
            "nobody is connected that the event is for; it is stored",
            hint="connect an agent, then: ws-manager stripe replay " + outcome.event_id,
        )
