"""A received message as a line: NDJSON, csv, tsv or readable."""

from __future__ import annotations

import sys

from ws_manager.cli.options import GlobalOptions
from ws_manager.cli.output.rows import cells, joined
from ws_manager.cli.output.text import Row, json_for, json_object, json_text, visible
from ws_manager.errors import InvalidInput, WsManagerError
from ws_manager.forms import WIRE_FIELDS


def stream_format(options: GlobalOptions) -> str:
    """Return the format of a stream of messages: readable lines on a terminal, NDJSON elsewhere.

    Raises:
        InvalidInput: `id` was asked for: a message must be written whole before it is confirmed.
        WsManagerError: stdout is closed.
    """
    if sys.__stdout__ is None:
        raise WsManagerError("stdout is closed: messages would be confirmed and lost")
    if options.output == "id":
        raise InvalidInput(
            "-o id would confirm messages without printing them",
            hint="ws-manager history -o id lists them",
        )
    return options.output or ("table" if sys.stdout.isatty() else "ndjson")


def message_line(message: Row, form: str) -> str:
    """Return one received message as a line without its end, ready for stdout.

    Args:
        message: `WIRE_FIELDS`, `content` decoded or as `Json`; other members are left out.
        form: what `stream_format` returned. JSON is one object per line.
    """
    fields = {name: message[name] for name in WIRE_FIELDS}
    if form in ("json", "ndjson"):
        return json_for(sys.stdout, json_object(fields))
    if form in ("csv", "tsv"):
        return joined(form, cells(fields.values(), form))
    sender = fields["sender_id"]
    origin = "" if sender is None else f" from {sender}"
    at = str(fields["sent_at"])
    text = f"{at[:10]} {at[11:19]}Z #{fields['seq']} {fields['msg_type']}{origin}  {json_text(fields['content'])}"
    return visible(text)
