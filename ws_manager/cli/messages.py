"""send, broadcast and receive."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Optional

import typer

from ws_manager.cli.exit_codes import PartlyDone
from ws_manager.cli.missing import not_active
from ws_manager.cli.options import GlobalOptions, global_options, open_registry
from ws_manager.cli.output import (
    MESSAGE_FIELDS,
    Json,
    message_line,
    note,
    note_to_terminal,
    result,
    stream_format,
)
from ws_manager.core.values import NotJson, check_name, decode_json
from ws_manager.errors import InvalidInput
from ws_manager.models import PendingMessage
from ws_manager.settings import parse_duration

if TYPE_CHECKING:
    from ws_manager.core.delivery import Delivery
    from ws_manager.core.registry import Registry
    from ws_manager.models import Connection

_BATCH = 100
_MESSAGE_HELP = (
    "JSON if it parses, otherwise text; - reads it from stdin. One that begins with - needs -- before it."
)
_BATCH_HELP = "Messages from a file, or from stdin with -: JSON, one a line; each is answered by a line."
_SEND_BATCH_HELP = _BATCH_HELP + ' Without <ws_id>: {"to":…,"content":…,"type":…}.'
_WHERE = typer.Option(
    None,
    "--where",
    metavar="CONDITION",
    help="Only where this holds, such as metadata.region=us-west: = != ~ < >. Repeatable: all must hold.",
)
_WAIT_HELP = "Wait so long for the confirmation: 30, 90s, 5m. Exit 5 if it does not come."


def send(
    ctx: typer.Context,
    ws_id: Optional[str] = typer.Argument(None, metavar="<ws_id>", help="The connection."),
    message: Optional[str] = typer.Argument(None, metavar="<message>", help=_MESSAGE_HELP),
    msg_type: str = typer.Option("data", "--type", metavar="NAME", help="The message's type."),
    wait: Optional[str] = typer.Option(None, "--wait", metavar="DURATION", help=_WAIT_HELP),
    batch: Optional[str] = typer.Option(None, "--batch", metavar="FILE", help=_SEND_BATCH_HELP),
) -> None:
    """Send a message to one connection.

    It is in the ledger when the command returns, and delivered when the agent has confirmed it.
    """
    if batch is not None:
        from ws_manager.cli.batch import BatchRun, check_alone
        from ws_manager.cli.lines import Lines

        check_alone(global_options(ctx), {"<message>": message, "--wait": wait})
        with Lines(batch) as lines, open_registry(ctx) as registry:
            BatchRun(registry, check_name(msg_type, "message type")).send(lines, ws_id)
        return
    if ws_id is None or message is None:
        raise _nothing_to_send("send", "<ws_id>" if ws_id is None else "<message>")
    seconds = None if wait is None else parse_duration(wait)
    content = _content(message)
    with open_registry(ctx) as registry:
        sent = registry.send(ws_id, content, msg_type)
        if sent is None:
            raise not_active(registry, ws_id)
        line = f"Sent message {sent.msg_id} to {ws_id}"
        row = {"msg_id": sent.msg_id, "ws_id": ws_id}
        _tell(global_options(ctx), registry, line, row, sent.msg_id, (sent.db_id, sent.db_id), seconds)


def broadcast(
    ctx: typer.Context,
    message: Optional[str] = typer.Argument(None, metavar="<message>", help=_MESSAGE_HELP),
    agent: Optional[str] = typer.Option(
        None, "--agent", metavar="NAME", help="Only to the connections of this agent."
    ),
    msg_type: str = typer.Option("broadcast", "--type", metavar="NAME", help="The message's type."),
    wait: Optional[str] = typer.Option(None, "--wait", metavar="DURATION", help=_WAIT_HELP),
    batch: Optional[str] = typer.Option(None, "--batch", metavar="FILE", help=_BATCH_HELP),
    where: Optional[list[str]] = _WHERE,
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Send nothing: show who would get it, and who would not and why."
    ),
) -> None:
    """Send a message to all active connections.

    All of them are in the ledger when the command returns, or none.
    """
    if batch is not None:
        from ws_manager.cli.batch import BatchRun, check_alone
        from ws_manager.cli.lines import Lines

        others: dict[str, object] = {"<message>": message, "--wait": wait}
        others |= {"--where": where, "--dry-run": dry_run}
        check_alone(global_options(ctx), others)
        with Lines(batch) as lines, open_registry(ctx) as registry:
            BatchRun(registry, check_name(msg_type, "message type")).broadcast(lines, agent)
        return
    if message is None:
        raise _nothing_to_send("broadcast", "<message>")
    seconds = None if wait is None else parse_duration(wait)
    chosen = None
    if where:
        from ws_manager.core.where import all_of

        chosen = all_of(where)
    content = _content(message)
    if dry_run:
        from ws_manager.cli.preview import preview

        if seconds is not None:
            raise InvalidInput("--dry-run and --wait exclude each other", hint="nothing is sent to wait for")
        preview(ctx, content, msg_type, agent, chosen)
        return
    with open_registry(ctx) as registry:
        sent = registry.broadcast(content, agent=agent, filter_fn=chosen, msg_type=msg_type)
        line = f"Broadcast to {len(sent.recipients)} connection(s)"
        row = {"broadcast_id": sent.broadcast_id, "recipients": sent.recipients}
        span = (sent.first_id, sent.last_id)
        _tell(global_options(ctx), registry, line, row, sent.broadcast_id, span, seconds)


def receive(
    ctx: typer.Context,
    ws_id: str = typer.Argument(..., metavar="<ws_id>", help="The connection."),
) -> None:
    """Print what is pending for a connection, and confirm it.

    Oldest first, without a gateway: JSON objects, one a line, or readable lines on a terminal. A message is
    confirmed once it has been written.
    """
    from ws_manager.core.delivery import Delivery

    form = stream_format(global_options(ctx))
    with open_registry(ctx) as registry:
        delivery = Delivery(registry.db)
        with delivery.holding(ws_id) as connection:
            written = _receive(delivery, connection, form)
    if not written:
        note_to_terminal(f"nothing is pending for {ws_id}")


def _nothing_to_send(command: str, missing: str) -> InvalidInput:
    return InvalidInput(
        f"missing argument '{missing}'",
        hint=f"see ws-manager {command} --help; --batch reads messages from a file",
    )


def _content(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return what a message argument stands for: JSON if it parses, otherwise the text itself."""
    if text == "-":
        text = _stdin()
    try:
        return decode_json(text, "message")
    except NotJson:
        return text


def _stdin() -> str:
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"the message on stdin is not UTF-8 (byte {error.start})", hint="convert it with iconv"
        ) from None
    # `echo hello | ws-manager send ws-001 -` sends what `ws-manager send ws-001 hello` sends.
    text = text[: -len("\r\n")] if text.endswith("\r\n") else text[:-1] if text.endswith("\n") else text
    if not text:
        raise InvalidInput("stdin is empty: no message", hint="to send an empty text, write '\"\"'")
    return text


def _tell(
    options: GlobalOptions,
    registry: "Registry",
    line: str,
    row: dict[str, Any],
    identifier: str,
    span: tuple[Optional[int], Optional[int]],
    seconds: Optional[float],
) -> None:
    """Write what was sent and, with `seconds`, wait for its confirmation.

    Raises:
        PartlyDone: not everything was confirmed in time.
    """
    first, last = span
    if seconds is None:
        result(options, line, row, identifier)
        return
    # The documented line says that it is committed, so it does not wait. An object holds the outcome too.
    at_once = options.output in (None, "table", "wide", "id")
    if at_once:
        result(options, line, row, identifier)
    outcome = (0, 0, 0) if first is None or last is None else registry.wait(first, last, 0)
    try:
        if first is not None and last is not None and outcome[1]:
            note_to_terminal(f"waiting at most {seconds:g} s for {outcome[1]} confirmation(s)")
            outcome = registry.wait(first, last, seconds)
    finally:
        # Also when it is interrupted: the message is on its way, and nothing else tells its id.
        if not at_once:
            confirmed, pending, set_aside = outcome
            row |= {"confirmed": confirmed, "pending": pending, "set_aside": set_aside}
            result(options, line, row, identifier)
    _judge(outcome)


def _judge(outcome: tuple[int, int, int]) -> None:
    confirmed, pending, set_aside = outcome
    told = f"confirmed {confirmed} of {sum(outcome)}"
    if not pending and not set_aside:
        note(told)
        return
    missing = [f"{pending} pending"] * bool(pending) + [f"{set_aside} set aside"] * bool(set_aside)
    raise PartlyDone(
        f"{told}: {', '.join(missing)}", hint="ws-manager history shows each; what is pending is kept"
    )


def _receive(delivery: "Delivery", connection: "Connection", form: str) -> int:
    """Write what is pending, batch by batch, and return how many messages that were."""
    count, cursor = 0, connection.confirmed_seq
    while True:
        # What is pending may have been set aside, or be somebody else's, by now.
        delivery.check_held(connection)
        batch = delivery.pending(connection.ws_id, cursor, _BATCH)
        if not batch:
            return count
        if form == "csv" and not count:
            sys.stdout.write(",".join(MESSAGE_FIELDS) + "\n")
        cursor = _write_batch(delivery, connection, batch, form)
        count += len(batch)


def _write_batch(
    delivery: "Delivery", connection: "Connection", batch: Sequence[PendingMessage], form: str
) -> int:
    """Write messages and confirm those that went out, whatever ends the writing; return the last one's id."""
    written = 0
    try:
        for line, seq in _lines(batch, form):
            sys.stdout.write(line)
            sys.stdout.flush()
            written = seq
    finally:
        if written:
            delivery.confirm_held(connection, batch[0].seq, written)
    return written


def _lines(batch: Sequence[PendingMessage], form: str) -> Iterable[tuple[str, int]]:
    for message in batch:
        fields = {
            "seq": message.seq,
            "id": message.msg_id,
            "msg_type": message.msg_type,
            "sender": message.sender_id,
            "sent_at": message.sent_at,
            "content": Json(message.content),
        }
        yield message_line(fields, form) + "\n", message.seq
