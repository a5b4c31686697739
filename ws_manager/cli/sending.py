"""The common part of `send` and `broadcast`: the message, and waiting for its confirmations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from ws_manager.cli.exit_codes import PartlyDone
from ws_manager.cli.options import GlobalOptions
from ws_manager.cli.output.results import write_result
from ws_manager.cli.output.text import note, note_to_terminal
from ws_manager.core.traceparent import check_traceparent, valid_traceparent
from ws_manager.errors import InvalidInput
from ws_manager.settings import given_traceparent
from ws_manager.strict_json import NotJson, checked
from ws_manager.text import read_text, without_mark

if TYPE_CHECKING:
    from ws_manager.core.ledger import Ledger
    from ws_manager.core.read.explain import Unconfirmed
    from ws_manager.core.sending import Sent
    from ws_manager.repository.records import DeliveryCounts

MESSAGE_HELP = (
    "JSON if it parses, otherwise text; - reads stdin. A message that begins with - needs -- before it."
)
BATCH_HELP = (
    "Messages from a file, or from stdin with -: one JSON value per line. Each line gets a line of output."
)
KEY_HELP = "Send it once, however often the same command is run with this key within a day."
TRACEPARENT_HELP = (
    "The W3C trace context of what is sent, which the receiver gets. [default: TRACEPARENT, if valid]"
)
EVERY_AGENT = "*"
"""Whose idempotency keys a shell uses: it shares them with tokens for every agent."""
WAIT_HELP = "Wait at most this long for the confirmations: 30, 90s, 5m. Exit code 5 if one is missing."


def nothing_to_send(command: str, missing: str) -> InvalidInput:
    """Return the error for a command without a message or a recipient."""
    return InvalidInput(
        f"missing argument '{missing}'",
        hint=f"see ws-manager {command} --help; --batch reads messages from a file",
    )


def traceparent_of(given: Optional[str]) -> Optional[str]:
    """Return the trace context of what is sent: that of `--traceparent`, or else of the environment, if it is valid.

    Raises:
        InvalidInput: the option is not one.
    """
    if given is not None:
        return check_traceparent(given)
    inherited = given_traceparent()
    return None if inherited is None else valid_traceparent(inherited)


def content_of(text: str) -> str:
    """Return the content of a message argument: `Json` if it parses, otherwise the text."""
    text = _stdin() if text == "-" else without_mark(text)
    try:
        return checked(text, "message")
    except NotJson as error:
        # A text that begins like this is usually meant as JSON.
        if text.lstrip()[:1] in ("{", "[", '"'):
            note_to_terminal(f"note: {error.message}; it is sent as text")
        return text


def _stdin() -> str:
    from ws_manager.cli.process.line_reader import LONGEST, stdin

    text = read_text(stdin(), "the message on stdin", LONGEST)
    # `echo hello | ws-manager send ws-001 -` sends what `ws-manager send ws-001 hello` sends.
    text = text[: -len("\r\n")] if text.endswith("\r\n") else text[:-1] if text.endswith("\n") else text
    if not text:
        raise InvalidInput("stdin is empty: no message", hint="to send an empty text, write '\"\"'")
    return text


def report_sent(
    options: GlobalOptions,
    ledger: Ledger,
    line: str,
    row: dict[str, Any],
    identifier: str,
    sent: Sent,
    seconds: Optional[float],
    more: Sequence[str] = (),
) -> None:
    """Write the result and, with `seconds`, wait for the confirmations. The other arguments are `write_result`'s.

    Raises:
        PartlyDone: a confirmation did not come in time.
    """
    if seconds is None:
        write_result(options, line, row, identifier, more)
        return
    # The line means that the message is committed, so it is written before the waiting. JSON has the counts too.
    at_once = options.output in (None, "table", "wide", "id")
    if at_once:
        write_result(options, line, row, identifier, more)
    counts = ledger.wait(sent, 0)
    missing: list[Unconfirmed] = []
    try:
        counts, missing = wait_for(ledger, sent, seconds)
    finally:
        # Also if the waiting is interrupted: the message is committed, and nothing else shows its id.
        if not at_once:
            write_result(options, line, row | outcome(counts, missing), identifier)
    judge(counts, missing, named=at_once)


def wait_for(ledger: Ledger, sent: Sent, seconds: float) -> tuple[DeliveryCounts, list[Unconfirmed]]:
    """Wait for the confirmations, and return the counts, and what is not confirmed then: at most 20, and why."""
    counts = ledger.wait(sent, 0)
    if counts.pending:
        if ledger.running_gateway() is None:
            note(
                "note: no gateway runs for this ledger; what is pending waits for one, or for ws-manager receive"
            )
        note_to_terminal(f"waiting at most {seconds:g} s for {counts.pending} confirmation(s)")
        counts = ledger.wait(sent, seconds)
    return counts, ledger.unconfirmed(sent) if counts.pending or counts.set_aside else []


def outcome(counts: DeliveryCounts, missing: list[Unconfirmed]) -> dict[str, Any]:
    """Return the fields that a waiting adds to a result."""
    return {**counts._asdict(), "unconfirmed": [one._asdict() for one in missing]}


def judge(counts: DeliveryCounts, missing: list[Unconfirmed], *, named: bool) -> None:
    """Say on stderr how a waiting ended; with `named`, also who has not confirmed, and why.

    Raises:
        PartlyDone: something is not confirmed.
    """
    confirmed = f"confirmed {counts.confirmed} of {sum(counts)}"
    if not counts.pending and not counts.set_aside:
        note(confirmed)
        return
    if named:
        for one in missing:
            note(f"{one.ws_id}  {one.msg_id}  {one.why}")
    lacking = [f"{counts.pending} pending"] * bool(counts.pending)
    lacking += [f"{counts.set_aside} set aside"] * bool(counts.set_aside)
    raise PartlyDone(
        f"{confirmed}: {', '.join(lacking)}", hint="ws-manager show explains each; what is pending is kept"
    )
