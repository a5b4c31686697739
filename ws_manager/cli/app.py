"""The program `ws-manager`: the table of its commands, and how each is found, run and ended.

A command's module is imported only when that command runs: importing all of them would take longer than a
one-shot `send`.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn, Optional, Union

import typer
from typer.core import TyperCommand, TyperGroup

from ws_manager.cli.exit_codes import CLOSED_PIPE, DONE, INTERRUPTED, TERMINATED, USAGE, exit_code
from ws_manager.cli.options import global_parameters, output_asked_for
from ws_manager.cli.process import standard
from ws_manager.cli.process.signals import end_on_next_signal, handle
from ws_manager.errors import InvalidInput
from ws_manager.version import __version__

PROGRAM = "ws-manager"

_COMPLETE = "_WS_MANAGER_COMPLETE"

# The base of every usage error, whether Typer brings its own Click or uses the package.
_UsageError: Any = typer.BadParameter.__base__


class Command(NamedTuple):
    """A line of the table of commands.

    Attributes:
        name: its name on the command line.
        module: its module in `ws_manager.cli.commands`; empty for a group of commands.
        function: the function in that module; Typer reads its annotations, and it returns nothing.
        help: one line; also the first line of the function's docstring.
        example: a command line that works unchanged.
        takes_url: whether it can go through a gateway, and so accepts `--url`.
        commands: the commands of a group, by their names; empty for a command.
    """

    name: str
    module: str
    function: str
    help: str
    example: str
    takes_url: bool = True
    commands: Mapping[str, Command] = MappingProxyType({})


def _command(
    name: str, text: str, example: str, *, module: str = "", function: str = "", takes_url: bool = True
) -> Command:
    """Return a line of the table; without other names, module and function are named as the command."""
    module = module or name.replace("-", "_")
    return Command(name, module, function or module, text, example, takes_url)


_STRIPE = {
    command.name: command
    for command in (
        _command(
            "events",
            "List the received events, newest first.",
            "ws-manager stripe events --status unrouted",
            module="stripe_events",
            function="events",
        ),
        _command(
            "replay",
            "Send stored events again that had no recipients.",
            "ws-manager stripe replay --since 2h",
            module="stripe_replay",
            function="replay",
        ),
        _command(
            "trigger",
            "Post a signed test event to the gateway.",
            "ws-manager stripe trigger payment_intent.succeeded",
            module="stripe_trigger",
            function="trigger",
        ),
    )
}

COMMANDS = {
    command.name: command
    for command in (
        _command(
            "connect",
            "Register a connection for an agent.",
            'ws-manager connect octavia --metadata \'{"region":"us-west"}\'',
        ),
        _command("disconnect", "Mark connections as disconnected.", "ws-manager disconnect ws-001"),
        _command(
            "bar",
            "Stop an agent from connecting, or list who is barred.",
            "ws-manager bar octavia",
        ),
        _command(
            "unbar",
            "Let a barred agent in again.",
            "ws-manager unbar octavia",
            module="bar",
            function="unbar",
        ),
        _command(
            "list", "List the active connections.", "ws-manager list --json", function="list_connections"
        ),
        _command(
            "send", "Send a message to one connection.", "ws-manager send ws-001 '{\"ping\":true}' --wait 5s"
        ),
        _command(
            "ask",
            "Ask a connection or an agent, and print the answer.",
            'ws-manager ask octavia \'{"task":"status"}\' --timeout 10s',
        ),
        _command(
            "broadcast",
            "Send a message to all active connections.",
            'ws-manager broadcast \'{"event":"deploy"}\' --agent octavia',
        ),
        _command(
            "broadcasts",
            "List the broadcasts, and how many have confirmed them.",
            "ws-manager broadcasts --limit 10",
        ),
        _command(
            "wait",
            "Wait until a message or a broadcast is confirmed.",
            "ws-manager wait 1a2b3c4d --timeout 1m",
        ),
        _command(
            "receive",
            "Print a connection's pending messages, or work on them.",
            "ws-manager receive ws-001 --follow",
        ),
        _command("history", "Show messages, newest first.", "ws-manager history --ws-id ws-001 --limit 10"),
        _command("show", "Explain a connection, message or broadcast.", "ws-manager show ws-001"),
        _command(
            "heartbeat", "Record a heartbeat of a connection.", "ws-manager heartbeat ws-001 --latency 12"
        ),
        _command(
            "heartbeat-check",
            "Disconnect the connections without a recent heartbeat.",
            "ws-manager heartbeat-check --timeout 5m",
        ),
        _command("stats", "Print counts of connections and messages as JSON.", "ws-manager stats"),
        _command(
            "top", "Watch connections, rates, recent messages and disconnects.", "ws-manager top --sort idle"
        ),
        _command("serve", "Run the gateway that agents connect to.", "ws-manager serve", takes_url=False),
        _command(
            "listen",
            "Be an agent that prints messages, or works on them.",
            "ws-manager listen octavia --ws-id ws-001",
        ),
        _command(
            "token",
            "Make a token for an agent, inspect one, or revoke one.",
            "ws-manager token octavia --ttl 24h",
        ),
        Command(
            "stripe",
            "",
            "",
            "List, replay and test Stripe's webhook events.",
            "ws-manager stripe events",
            commands=_STRIPE,
        ),
        _command("doctor", "Report problems of the database and the gateway.", "ws-manager doctor"),
        _command(
            "replay",
            "Send a message again, to any connection.",
            "ws-manager replay 1a2b3c4d --to ws-002",
        ),
        _command("retry", "Send messages again that were set aside.", "ws-manager retry --all --since 2h"),
        _command(
            "prune",
            "Delete old messages, logs and connections that are done with.",
            "ws-manager prune --older-than 30d --dry-run",
        ),
        _command(
            "backup",
            "Copy the database to a new file, even while others write.",
            "ws-manager backup ledger-copy.db",
        ),
        _command("export", "Write the whole ledger as lines of JSON.", "ws-manager export ledger.ndjson"),
        _command(
            "import",
            "Fill an empty ledger from an export.",
            "ws-manager import ledger.ndjson --db new.db",
            module="import_",
            function="import_ledger",
            takes_url=False,
        ),
        _command(
            "copy",
            "Copy a whole ledger to another place, while it is in use.",
            "ws-manager copy --from ledger.db --to postgresql://user@host/database",
            takes_url=False,
        ),
        _command(
            "help",
            "Explain a topic or a command.",
            "ws-manager help exit-codes",
            function="show_help",
            takes_url=False,
        ),
    )
}
"""Every command by its name, in the order of the help."""


class _OneCommand(TyperCommand):
    """A command with the same usage line in every version of Typer."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ANN401 - Click's or Typer's own context
        """Return `[OPTIONS]` and the arguments, without the braces that newer Typers put around them."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - as above
        """Enable the garbage collector, which start-up had disabled, and run the command."""
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        return super().invoke(ctx)


class LazyGroup(TyperGroup):
    """A group that imports a command when it runs.

    What the group knows of its commands before that is in a table.

    Attributes:
        table: the commands by their names.
    """

    table: Mapping[str, Command] = COMMANDS

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - Typer's own
        super().__init__(**attributes)
        self.params += global_parameters(takes_url=True)
        # Only the names matter: Typer looks here for one that resembles a mistyped name.
        self.commands: Any = dict.fromkeys(self.table)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - Click's or Typer's own context
        """Return the names, in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> Union[TyperCommand, TyperGroup, None]:  # noqa: ANN401 - as above
        """Import a command's module and return the command, or None if there is no such name."""
        command = self.table.get(cmd_name)
        if command is None:
            return None
        if command.commands:
            return _group(command)
        module = importlib.import_module(f"ws_manager.cli.commands.{command.module}")
        maker = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        example = f"Example: {command.example}"
        maker.command(command.name, cls=_OneCommand, epilog=example)(getattr(module, command.function))
        made: Any = typer.main.get_command(maker)
        made.params += global_parameters(takes_url=command.takes_url)
        if ctx is not None and ctx.resilient_parsing:
            from ws_manager.cli.completion import complete_values

            complete_values(command.name, made.params)
        return made  # type: ignore[no-any-return]

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:  # noqa: ANN401 - as above
        """Return the commands and options that begin with `incomplete`."""
        from ws_manager.cli.completion import complete_commands

        return list(complete_commands(ctx, incomplete, self.table.values()))

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - as above
        """Write the commands into the help, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(command.name, command.help) for command in self.table.values()])


class Program(LazyGroup):
    """The program: it runs one command and turns its end into an exit code."""

    def main(
        self,
        args: Optional[Sequence[str]] = None,
        prog_name: Optional[str] = None,
        complete_var: Optional[str] = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = False,
        **extra: Any,  # noqa: ANN401 - Typer's own
    ) -> NoReturn:
        """Run one command line and exit.

        The parameters are Typer's. Windows' expansion of `args` stays off: the shell has done it.
        """
        arguments = sys.argv[1:] if args is None else list(args)
        if _COMPLETE in os.environ or any(a.endswith("-completion") for a in arguments[:2]):
            from ws_manager.cli.completion import prepare

            prepare()
        try:
            result = super().main(
                arguments,
                PROGRAM,
                complete_var,
                standalone_mode=False,
                windows_expand_args=False,
                **extra,
            )
            # A command returns nothing. A number is the exit code of `typer.Exit`.
            code = result if isinstance(result, int) else DONE
            if code != INTERRUPTED:
                sys.stdout.flush()
        except SystemExit as stop:
            # Typer turns a closed pipe into exit code 1.
            code = CLOSED_PIPE if isinstance(stop.__context__, BrokenPipeError) else _number(stop.code)
        except Exception as error:
            code = _failed(error, arguments)
        sys.exit(code)


def _group(command: Command) -> TyperGroup:
    """Make a group of commands."""
    kind = type("Group", (LazyGroup,), {"table": command.commands})
    maker = typer.Typer(
        cls=kind,
        name=command.name,
        help=command.help,
        epilog=f"Example: {command.example}",
        invoke_without_command=True,
        callback=_needs_command,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    return typer.main.get_group(maker)


def _needs_command(ctx: typer.Context) -> None:
    """Show the help and exit with a usage error if no command follows."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), err=True)
        raise typer.Exit(USAGE)


def _number(code: object) -> int:
    return code if isinstance(code, int) else DONE if code is None else USAGE


def _failed(error: Exception, arguments: list[str]) -> int:
    from ws_manager.cli.errors import report_error

    if isinstance(error, BrokenPipeError):
        return exit_code(error)
    if isinstance(error, _UsageError):
        error = _as_ours(error)
    report_error(error, output_asked_for(arguments), debug="--debug" in arguments)
    return exit_code(error)


def _as_ours(error: Any) -> InvalidInput:  # noqa: ANN401 - the class is Click's or Typer's own
    text = " ".join(str(error.format_message()).split()).rstrip(".")
    hint = f"see {error.ctx.command_path if error.ctx else PROGRAM} --help"
    if text.startswith("No such option: -") and not text.startswith("No such option: --"):
        hint += "; what begins with - and is no option needs -- before it"
    return InvalidInput(text[:1].lower() + text[1:], hint=hint)


app = typer.Typer(
    cls=Program,
    name=PROGRAM,
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit()


@app.callback()
def program(
    ctx: typer.Context,
    version: bool = typer.Option(
        False, "--version", is_eager=True, callback=_version, help="Print the version."
    ),
) -> None:
    """Who is connected, what was sent to whom, and whether it arrived."""
    _needs_command(ctx)


def main() -> None:
    """Run the command line and exit."""
    handle(signal.SIGTERM, _terminate)
    standard.prepare()
    code: object = None
    try:
        typer.main.get_command(app).main()
    except SystemExit as end:
        code = end.code
        raise
    finally:
        standard.release(stopped=code in (INTERRUPTED, TERMINATED))


def _terminate(number: int, _frame: object) -> None:
    end_on_next_signal(number, [number])
    sys.exit(TERMINATED)
