"""`ws-manager help`: what belongs to no single command, or the help of one."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
from typing import Any, Optional

import typer

from ws_manager.cli.output.text import write
from ws_manager.cli.topics import TOPICS
from ws_manager.errors import NotFound


def show_help(
    ctx: typer.Context,
    topic: Optional[str] = typer.Argument(
        None, metavar="<topic>", help=f"One of {', '.join(TOPICS)}, or a command."
    ),
) -> None:
    """Explain a topic or a command."""
    program: Any = ctx.parent
    if topic is None:
        typer.echo(program.get_help())
        return
    if topic in TOPICS:
        for line in TOPICS[topic].split("\n"):
            write(line)
        return
    command = program.command.get_command(program, topic)
    if command is None:
        raise NotFound(
            f"no help on {topic}", hint=f"one of {', '.join(TOPICS)}, or a command of ws-manager --help"
        )
    with command.make_context(topic, [], parent=program, resilient_parsing=True) as context:
        typer.echo(command.get_help(context))
