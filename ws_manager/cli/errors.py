"""The report of a command that fails: the error, and what to do next."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Optional

from ws_manager.cli.hints import hint_of
from ws_manager.cli.output.text import json_text, note, visible
from ws_manager.errors import NotFound, WsManagerError
from ws_manager.remedies import LIST_AGENT, LIST_CONNECTIONS

if TYPE_CHECKING:
    from ws_manager.core.ledger import Ledger


def not_active(ledger: Ledger, ws_id: str) -> NotFound:
    """Return the error for a connection that is not active.

    Its message says whether the ws_id is unknown, or since when and why it is disconnected.
    """
    connection = ledger.find(ws_id)
    if connection is None and ledger.knows_agent(ws_id):
        return NotFound(f"{ws_id} is an agent, and not a ws_id", remedy=LIST_AGENT, about=ws_id)
    if connection is None:
        return NotFound(f"no connection {ws_id}", remedy=LIST_CONNECTIONS)
    since = f" since {connection.disconnected_at}" if connection.disconnected_at else ""
    reason = f" ({connection.close_reason})" if connection.close_reason else ""
    return NotFound(
        f"{ws_id} is not active: {connection.status}{since}{reason}",
        hint=f"ws-manager connect {connection.agent} --ws-id {ws_id} registers it again",
    )


def report_error(error: BaseException, output: Optional[str], *, debug: bool) -> None:
    """Write to stderr what went wrong and what to do next.

    Args:
        error: the error that ended the command.
        output: the value of `-o`. With `json` and `ndjson` the report is a JSON object.
        debug: whether the traceback comes first.
    """
    if debug:
        import traceback

        lines = "".join(traceback.format_exception(type(error), error, error.__traceback__)).split("\n")
        sys.stderr.write("\n".join(map(visible, lines)))
    code, message, hint = _explained(error)
    if output in ("json", "ndjson"):
        explained = {"error": {"code": code, "message": message, "hint": hint}}
        sys.stderr.write(visible(json_text(explained), is_json=True) + "\n")
    else:
        note(f"error: {message}")
        if hint:
            note(f"hint: {hint}")
    sys.stderr.flush()


def _explained(error: BaseException) -> tuple[str, str, Optional[str]]:
    """Return an error's code, message and hint."""
    if isinstance(error, WsManagerError):
        return error.code, error.message, hint_of(error)
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return "error", f"{error.strerror or error}{where}", None
    # Its text is left out, because it may quote a message's content.
    return "internal", f"unexpected {type(error).__name__}", "run it again with --debug for the traceback"
