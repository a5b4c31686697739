"""`ws-manager ask`: ask a connection or an agent, and print the answer."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from typing import TYPE_CHECKING, Optional

import typer

from ws_manager.cli.errors import not_active
from ws_manager.cli.ledger import ledger_to_write
from ws_manager.cli.options import global_options
from ws_manager.cli.output.results import write_result
from ws_manager.cli.output.text import json_text, note_to_terminal
from ws_manager.cli.sending import MESSAGE_HELP, TRACEPARENT_HELP, content_of, traceparent_of
from ws_manager.errors import NoAnswer, NotAuthorised, NotFound, WsManagerError
from ws_manager.forms import ask_form
from ws_manager.remedies import LIST_AGENT, LIST_CONNECTIONS, SHOW
from ws_manager.repository.working import ANSWERED, CONFIRMED, SET_ASIDE, Ask
from ws_manager.settings import parse_duration
from ws_manager.strict_json import Json

if TYPE_CHECKING:
    from ws_manager.core.ledger import Ledger


def ask(
    ctx: typer.Context,
    to: str = typer.Argument(
        ..., metavar="<ws_id|agent>", help="The connection, or an agent: its connection that was heard last."
    ),
    message: str = typer.Argument(..., metavar="<message>", help=MESSAGE_HELP),
    timeout: str = typer.Option("10s", "--timeout", metavar="DURATION", help="Wait at most this long."),
    msg_type: str = typer.Option("data", "--type", metavar="NAME", help="The message's type."),
    traceparent: Optional[str] = typer.Option(None, "--traceparent", metavar="TEXT", help=TRACEPARENT_HELP),
) -> None:
    """Ask a connection or an agent, and print the answer.

    The answer is one line of JSON. The exit code is 5 if none comes in time. The message stays, and an answer is kept
    for 24 hours.
    """
    options, seconds = global_options(ctx), parse_duration(timeout)
    content, trace = content_of(message), traceparent_of(traceparent)
    with ledger_to_write(ctx) as ledger:
        sent = ledger.ask(to, content, msg_type, traceparent=trace)
        if sent is None:
            raise _nobody(ledger, to)
        note_to_terminal(
            f"asked {sent.recipient_id} with message {sent.msg_id}; waiting at most {seconds:g} s"
        )
        asked = ledger.wait_for_answer(sent.msg_id, seconds)
    if asked.state != ANSWERED:
        raise _no_answer(asked, seconds)
    write_result(options, json_text(Json(asked.answer)), ask_form(asked), str(asked.answer_id))


def _no_answer(asked: Ask, seconds: float) -> NoAnswer:
    message = f"message {asked.msg_id} to {asked.recipient_id}"
    if asked.state == SET_ASIDE:
        why = f"no answer: {message} was set aside: {asked.reject_reason or 'no reason given'}"
    elif asked.state == CONFIRMED:
        why = f"no answer within {seconds:g} s: {message} is confirmed, and not answered"
    else:
        why = f"no answer within {seconds:g} s: {message} is pending"
    return NoAnswer(why, remedy=SHOW, about=asked.msg_id)


def _nobody(ledger: "Ledger", to: str) -> WsManagerError:
    """Return the error for a name that is neither an active connection nor an agent that has one."""
    try:
        if ledger.find(to) is not None:
            return not_active(ledger, to)
        if ledger.knows_agent(to):
            return NotFound(f"the agent {to} has no active connection", remedy=LIST_AGENT, about=to)
    except NotAuthorised:
        # A token may ask without being allowed to see who is there.
        return NotFound(f"{to} is not active")
    return NotFound(f"no connection and no agent {to}", remedy=LIST_CONNECTIONS)
