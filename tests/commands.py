"""Every command of the program, those of its groups too, by what is typed."""

from __future__ import annotations

from typing import Any

from typer.main import get_command

from ws_manager.cli.app import COMMANDS, Command, app

EVERY: dict[str, Command] = {
    f"{group.name} {command.name}" if command is not group else group.name: command
    for group in COMMANDS.values()
    for command in (group, *group.commands.values())
}


def made(name: str) -> Any:
    """Return Typer's own object for a command."""
    command: Any = get_command(app)
    for part in name.split():
        command = command.get_command(None, part)
    return command
