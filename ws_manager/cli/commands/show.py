"""show: all there is about one connection, message or broadcast."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
import sys
from typing import Any, Optional

import typer

from ws_manager.cli.options import global_options, open_to_read
from ws_manager.cli.output.format_options import EXCEL, NO_HEADERS, TIME, choose
from ws_manager.cli.output.rows import Row, json_object, rows, write
from ws_manager.cli.output.times import TIME_FIELDS, in_style, now
from ws_manager.core.read.explain import Answer, Answers
from ws_manager.errors import NotFound
from ws_manager.strict_json import Json

COLUMNS = ("part", "at", "name", "value")
"""In csv, tsv and a plain table: a row for the verdict, each fact and each entry of the timeline."""


def show(
    ctx: typer.Context,
    identifier: str = typer.Argument(
        ..., metavar="<identifier>", help="A ws_id, a msg_id or a broadcast_id."
    ),
    no_headers: bool = NO_HEADERS,
    time: Optional[str] = TIME,
    excel: bool = EXCEL,
) -> None:
    """Show all about a connection, message or broadcast.

    The verdict first: did it arrive, and if not, why; how does the connection stand, and why did it end. Then
    the facts, and what happened, oldest first. Off a terminal it is a line each, tab-separated: part (verdict,
    fact or timeline), at, name, value.
    """
    options = global_options(ctx)
    view = choose(options, COLUMNS, None, no_headers, time, excel)
    with open_to_read(ctx) as db:
        if db is None:
            raise NotFound(
                f"no connection, message or broadcast {identifier}", hint="check --db and BLACKROAD_WS_DB"
            )
        answer = Answers(db).show(identifier)
    if options.json:
        write(json_object(_as_object(answer, time or "iso"), indent=options.output == "json"), is_json=True)
        sys.stdout.flush()
        return

    def draw(_found: object) -> None:
        from ws_manager.cli.output.tables import show_answer

        show_answer(f"{answer.kind} {identifier}", answer, time)

    rows(options, _as_rows(answer, identifier), COLUMNS, "id", draw, view)


def _as_object(answer: Answer, style: str) -> dict[str, Any]:
    present = now()
    facts = {name: _fact(name, value) for name, value in answer.facts.items()}
    if style != "iso":
        for name in TIME_FIELDS & facts.keys():
            facts[name] = facts[name] and in_style(facts[name], style, present)
    timeline = [
        {"at": in_style(entry.at, style, present), "what": entry.what, "detail": entry.detail}
        for entry in answer.timeline
    ]
    # Written here, so that content among the facts is nested as it stands.
    told = Json(json_object(facts))
    return {"kind": answer.kind, "verdict": answer.verdict, "facts": told, "timeline": timeline}


def _as_rows(answer: Answer, identifier: str) -> list[Row]:
    parts: list[tuple[str, Any, str, Any]] = [("verdict", None, answer.kind, answer.verdict)]
    parts += [
        ("fact", value, name, None) if name in TIME_FIELDS else ("fact", None, name, _fact(name, value))
        for name, value in answer.facts.items()
    ]
    parts += [("timeline", entry.at, entry.what, entry.detail) for entry in answer.timeline]
    found: list[Row] = [dict(zip(COLUMNS, part), id=identifier) for part in parts]
    return found


def _fact(name: str, value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Nest content and metadata as the JSON that they are."""
    return Json(value) if name in ("content", "metadata") else value
