"""`ws-manager history`: past messages, or new ones as they come."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
import sys
from collections.abc import Sequence
from typing import Optional

import typer

from ws_manager.cli.filters import note_unknown
from ws_manager.cli.ledger import ledger_if_any
from ws_manager.cli.options import global_options
from ws_manager.cli.output.format_options import (
    EXCEL,
    FIELDS,
    NO_HEADERS,
    TIME,
    FormatOptions,
    parse_format_options,
)
from ws_manager.cli.output.rows import row_line, write_rows
from ws_manager.cli.output.text import Row, note_to_terminal
from ws_manager.cli.process.stream import Stream, stopped_by_signals
from ws_manager.core.moments import parse_moment
from ws_manager.core.validation import check_limit
from ws_manager.errors import InvalidInput, LedgerError
from ws_manager.forms import MESSAGE_FIELDS, message_form
from ws_manager.remedies import CHECK_LOCATION
from ws_manager.repository.findings import MessageFilter

COLUMNS = (
    "seq",
    "msg_id",
    "sent_at",
    "msg_type",
    "sender_id",
    "recipient_id",
    "delivered",
    "confirmed_at",
    "rejected_at",
    "reject_reason",
    "content",
)
"""The columns in csv and tsv."""

_LIMIT = 50
_LOOK_AGAIN = 0.05


_WS_ID = typer.Option(None, "--ws-id", metavar="ID", help="Only messages to or from this connection.")
_AGENT = typer.Option(
    None, "--agent", metavar="NAME", help="Only messages to or from this agent's connections."
)
_TYPE = typer.Option(None, "--type", metavar="NAME", help="Only messages of this type.")
_PENDING = typer.Option(False, "--pending", help="Only messages that are not confirmed yet.")
_SET_ASIDE = typer.Option(
    False, "--set-aside", help="Only messages that were set aside. With --pending: both kinds."
)
_SINCE = typer.Option(
    None,
    "--since",
    metavar="WHEN",
    help="Only messages since then: 2h (ago), 2026-11-22T17:15:18Z, or seconds since 1970.",
)
_BEFORE = typer.Option(None, "--before", metavar="WHEN", help="Only messages sent before.")
_BROADCAST = typer.Option(None, "--broadcast", metavar="ID", help="Only the messages of this broadcast.")
_SEARCH = typer.Option(
    None, "--search", metavar="TEXT", help="Only messages whose content contains this text, ignoring case."
)
_MOST = typer.Option(
    None,
    "--limit",
    metavar="N",
    help="At most N messages; with --follow, end after them. [default: 50]",
)
_FOLLOW = typer.Option(
    False, "--follow", help="Print messages as they are committed, oldest first, until interrupted."
)


def history(
    ctx: typer.Context,
    ws_id: Optional[str] = _WS_ID,
    agent: Optional[str] = _AGENT,
    msg_type: Optional[str] = _TYPE,
    pending: bool = _PENDING,
    set_aside: bool = _SET_ASIDE,
    since: Optional[str] = _SINCE,
    before: Optional[str] = _BEFORE,
    broadcast: Optional[str] = _BROADCAST,
    search: Optional[str] = _SEARCH,
    limit: Optional[int] = _MOST,
    follow: bool = _FOLLOW,
    names: Optional[str] = FIELDS,
    no_headers: bool = NO_HEADERS,
    time: Optional[str] = TIME,
    excel: bool = EXCEL,
) -> None:
    """Show messages, newest first.

    A terminal shows a table. Elsewhere there is one tab-separated line per message: seq, msg_id, sent_at,
    msg_type, sender_id, recipient_id, delivered, confirmed_at, rejected_at, reject_reason, content. With
    --follow it begins now, or at --since, and prints readable lines on a terminal, JSON objects elsewhere.
    """
    formatting = parse_format_options(global_options(ctx), MESSAGE_FIELDS, names, no_headers, time, excel)
    if ws_id is not None and agent is not None:
        raise InvalidInput("--ws-id and --agent exclude each other", hint="a ws_id has one agent")
    if search == "":
        raise InvalidInput("--search is empty", hint="give the text to look for, or leave it out")
    first, end = (None if when is None else parse_moment(when) for when in (since, before))
    wanted = MessageFilter(
        ws_id, agent, msg_type, pending, set_aside, first, end, text=search, broadcast_id=broadcast
    )
    if not follow:
        _list(ctx, wanted, check_limit(_LIMIT if limit is None else limit), formatting)
        return
    if broadcast is not None:
        raise InvalidInput(
            "--follow and --broadcast exclude each other", hint="a broadcast is complete when it has an id"
        )
    _follow(ctx, wanted, None if limit is None else check_limit(limit), formatting)


def _list(ctx: typer.Context, wanted: MessageFilter, limit: int, formatting: FormatOptions) -> None:
    found: list[Row] = []
    with ledger_if_any(ctx) as ledger:
        if ledger is not None:
            note_unknown(ledger, agent=wanted.agent, ws_id=wanted.ws_id)
            found = [message_form(message) for message in ledger.messages(wanted, limit)]
    if not found:
        everything = wanted == MessageFilter() and limit
        note_to_terminal("no messages" if everything else "no such messages")
    write_rows(
        global_options(ctx), found, COLUMNS, "msg_id", lambda some: _table(some, formatting), formatting
    )


def _follow(
    ctx: typer.Context, wanted: MessageFilter, left: Optional[int], formatting: FormatOptions
) -> None:
    options = global_options(ctx)
    form = options.output or ("table" if sys.stdout.isatty() else "ndjson")
    with ledger_if_any(ctx) as ledger, stopped_by_signals() as stop:
        if ledger is None:
            raise LedgerError("there is nothing to follow", remedy=CHECK_LOCATION)
        if left == 0:
            return
        stream = Stream(stop)
        if form == "csv" and formatting.headers:
            stream.put(",".join(formatting.fields or COLUMNS) + "\n")
        if wanted.since is None:
            note_to_terminal("following; Ctrl-C ends it")
        for batch in ledger.follow(wanted, lambda: stream.pause(_LOOK_AGAIN)):
            for message in batch[:left]:
                stream.pause(0)
                stream.put(
                    row_line(message_form(message), form, COLUMNS, "msg_id", _readable, formatting) + "\n"
                )
            left = None if left is None else left - len(batch[:left])
            if left == 0:
                return


def _readable(row: Row) -> str:
    at, sender = str(row["sent_at"]), row["sender_id"]
    moment = f"{at[:10]} {at[11:19]}Z" if at.endswith("+00:00") else at
    origin = "" if sender is None else f" from {sender}"
    content = row["content"]
    return f"{moment} #{row['seq']} to {row['recipient_id']}{origin} {row['msg_type']}  {content}"


def _table(found: Sequence[Row], formatting: FormatOptions) -> None:
    from ws_manager.cli.output.tables import show_history

    show_history(found, formatting)
