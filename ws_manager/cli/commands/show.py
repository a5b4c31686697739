"""`ws-manager show`: explain one connection, message or broadcast."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
import sys
from typing import Any, Optional

import typer

from ws_manager.cli.errors import not_active
from ws_manager.cli.ledger import ledger_if_any
from ws_manager.cli.options import global_options
from ws_manager.cli.output.format_options import EXCEL, NO_HEADERS, TIME, parse_format_options
from ws_manager.cli.output.rows import write_rows
from ws_manager.cli.output.text import Row, json_object, write
from ws_manager.cli.output.times import TIME_FIELDS, format_time, now
from ws_manager.core.read.explain import Explanation
from ws_manager.errors import NotFound
from ws_manager.remedies import CHECK_LOCATION
from ws_manager.strict_json import Json

COLUMNS = ("part", "at", "name", "value")
"""The columns in csv, tsv and a plain table, which have a row for the verdict, each fact and each timeline entry."""


def show(
    ctx: typer.Context,
    identifier: str = typer.Argument(
        ..., metavar="<identifier>", help="A ws_id, a msg_id or a broadcast_id."
    ),
    no_headers: bool = NO_HEADERS,
    time: Optional[str] = TIME,
    excel: bool = EXCEL,
) -> None:
    """Explain a connection, message or broadcast.

    The verdict comes first: whether the message arrived, and if not, why; or the state of the connection. Then
    come the facts, and the timeline, oldest first. Outside a terminal each of them is a tab-separated line:
    part (verdict, fact or timeline), at, name, value.
    """
    options = global_options(ctx)
    formatting = parse_format_options(options, COLUMNS, None, no_headers, time, excel)
    with ledger_if_any(ctx) as ledger:
        if ledger is None:
            raise NotFound(f"no connection, message or broadcast {identifier}", remedy=CHECK_LOCATION)
        try:
            explanation = ledger.explain(identifier)
        except NotFound:
            if ledger.knows_agent(identifier):
                raise not_active(ledger, identifier) from None
            raise
    if options.json:
        write(
            json_object(_as_object(explanation, time or "iso"), indent=options.output == "json"), is_json=True
        )
        sys.stdout.flush()
        return

    def draw(_found: object) -> None:
        from ws_manager.cli.output.tables import show_explanation

        show_explanation(f"{explanation.kind} {identifier}", explanation, time)

    write_rows(options, _as_rows(explanation, identifier), COLUMNS, "id", draw, formatting)


def _as_object(explanation: Explanation, style: str) -> dict[str, Any]:
    present = now()
    facts = {name: _fact(name, value) for name, value in explanation.facts.items()}
    if style != "iso":
        for name in TIME_FIELDS & facts.keys():
            facts[name] = facts[name] and format_time(facts[name], style, present)
    timeline = [
        {"at": format_time(entry.at, style, present), "what": entry.what, "detail": entry.detail}
        for entry in explanation.timeline
    ]
    # As JSON text, so that content and metadata are nested unchanged.
    written = Json(json_object(facts))
    return {"kind": explanation.kind, "verdict": explanation.verdict, "facts": written, "timeline": timeline}


def _as_rows(explanation: Explanation, identifier: str) -> list[Row]:
    parts: list[tuple[str, Any, str, Any]] = [("verdict", None, explanation.kind, explanation.verdict)]
    parts += [
        ("fact", value, name, None) if name in TIME_FIELDS else ("fact", None, name, _fact(name, value))
        for name, value in explanation.facts.items()
    ]
    parts += [("timeline", entry.at, entry.what, entry.detail) for entry in explanation.timeline]
    found: list[Row] = [dict(zip(COLUMNS, part), id=identifier) for part in parts]
    return found


def _fact(name: str, value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a fact's value; content and metadata are JSON text already."""
    return Json(value) if name in ("content", "metadata") else value
