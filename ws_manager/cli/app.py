"""The program `ws-manager`: a table of its commands, and what is common to all of them.

A command's module is imported when that command runs, because nineteen modules imported at once cost more
than the work of a one-shot `send`.
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
from ws_manager.cli.process.signals import handle, next_one_ends
from ws_manager.errors import InvalidInput
from ws_manager.version import __version__

PROGRAM = "ws-manager"

_COMPLETE = "_WS_MANAGER_COMPLETE"

# The base of every usage error, whether Typer brings its own Click or uses the package.
_UsageError: Any = typer.BadParameter.__base__


class Command(NamedTuple):
    """A line of the table of commands.

    Attributes:
        name: what is typed.
        module: where it lives, below `ws_manager.cli.commands`.
        function: what is called there: a function with Typer's annotations, that returns nothing.
        help: one line, the first of the function's docstring too.
        example: one line that works as it stands.
        takes_url: whether it speaks to a gateway.
        commands: of a group of commands, those; it has no function of its own then.
    """

    name: str
    module: str
    function: str
    help: str
    example: str
    takes_url: bool = False
    commands: Mapping[str, Command] = MappingProxyType({})


_STRIPE = {
    command.name: command
    for command in (
        Command(
            "events",
            "stripe",
            "events",
            "List the events that have come, newest first.",
            "ws-manager stripe events --status unrouted",
        ),
        Command(
            "replay",
            "stripe",
            "replay",
            "Send events now that nobody was connected for.",
            "ws-manager stripe replay --since 2h",
        ),
        Command(
            "trigger",
            "stripe",
            "trigger",
            "Post a signed event of a test to the gateway.",
            "ws-manager stripe trigger payment_intent.succeeded",
            takes_url=True,
        ),
    )
}

COMMANDS = {
    command.name: command
    for command in (
        Command(
            "connect",
            "connect",
            "connect",
            "Register a connection for an agent.",
            'ws-manager connect octavia --metadata \'{"region":"us-west"}\'',
        ),
        Command(
            "disconnect",
            "disconnect",
            "disconnect",
            "Mark a connection as disconnected.",
            "ws-manager disconnect ws-001",
        ),
        Command(
            "list",
            "list",
            "list_connections",
            "List the active connections.",
            "ws-manager list --json",
        ),
        Command(
            "send",
            "send",
            "send",
            "Send a message to one connection.",
            "ws-manager send ws-001 '{\"ping\":true}' --wait 5s",
        ),
        Command(
            "broadcast",
            "broadcast",
            "broadcast",
            "Send a message to all active connections.",
            'ws-manager broadcast \'{"event":"deploy"}\' --agent octavia',
        ),
        Command(
            "receive",
            "receive",
            "receive",
            "Print what is pending for a connection, and confirm it.",
            "ws-manager receive ws-001 --follow",
        ),
        Command(
            "history",
            "history",
            "history",
            "Show messages, newest first.",
            "ws-manager history --ws-id ws-001 --limit 10",
        ),
        Command(
            "show",
            "show",
            "show",
            "Show all about a connection, message or broadcast.",
            "ws-manager show ws-001",
        ),
        Command(
            "heartbeat",
            "heartbeat",
            "heartbeat",
            "Record a sign of life of a connection.",
            "ws-manager heartbeat ws-001 --latency 12",
        ),
        Command(
            "heartbeat-check",
            "heartbeat_check",
            "heartbeat_check",
            "Disconnect the connections without a recent heartbeat.",
            "ws-manager heartbeat-check --timeout 5m",
        ),
        Command(
            "stats",
            "stats",
            "stats",
            "Print counts of connections and messages as JSON.",
            "ws-manager stats",
        ),
        Command(
            "top",
            "top",
            "top",
            "Watch connections, rates, recent messages and disconnects.",
            "ws-manager top --sort idle",
        ),
        Command(
            "serve",
            "serve",
            "serve",
            "Run the gateway that agents connect to.",
            "ws-manager serve",
        ),
        Command(
            "listen",
            "listen",
            "listen",
            "Connect to the gateway as an agent and print what arrives.",
            "ws-manager listen octavia --ws-id ws-001",
            takes_url=True,
        ),
        Command(
            "token",
            "token",
            "token",
            "Make a token for an agent, or look into one.",
            "ws-manager token octavia --ttl 24h",
        ),
        Command(
            "stripe",
            "",
            "",
            "List, replay and try out webhook events of Stripe.",
            "ws-manager stripe events",
            commands=_STRIPE,
        ),
        Command(
            "doctor",
            "doctor",
            "doctor",
            "Say what is wrong with the database or the gateway.",
            "ws-manager doctor",
        ),
        Command(
            "retry",
            "retry",
            "retry",
            "Send again what was set aside.",
            "ws-manager retry --all --since 2h",
        ),
        Command(
            "prune",
            "prune",
            "prune",
            "Delete what is confirmed, logged or over, and old.",
            "ws-manager prune --older-than 30d --dry-run",
        ),
        Command(
            "backup",
            "backup",
            "backup",
            "Copy the database to a new file while others go on writing.",
            "ws-manager backup ledger-copy.db",
        ),
        Command(
            "export",
            "export",
            "export",
            "Write the whole ledger as lines of JSON.",
            "ws-manager export ledger.ndjson",
        ),
        Command(
            "import",
            "import_",
            "import_ledger",
            "Fill an empty ledger with what export wrote.",
            "ws-manager import ledger.ndjson --db new.db",
        ),
    )
}
"""Every command, in the order of the help."""


class _OneCommand(TyperCommand):
    """A command whose usage line is written the same way by every Typer."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ANN401 - Click's or Typer's own context
        """Return `[OPTIONS]` and the arguments, without the braces that newer Typers put around them."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - as above
        """Run the command, with the garbage collector that start-up did without."""
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        return super().invoke(ctx)


class LazyGroup(TyperGroup):
    """Commands that are known by a table, and imported when they run.

    Attributes:
        table: the commands by their names.
    """

    table: Mapping[str, Command] = COMMANDS

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - Typer's own
        super().__init__(**attributes)
        self.params += global_parameters(takes_url=True, shows_url=True)
        # Nobody asks for the values: Typer looks here for names that resemble a mistyped one.
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
        made.params += global_parameters(takes_url=command.takes_url, shows_url=command.takes_url)
        if ctx is not None and ctx.resilient_parsing:
            from ws_manager.cli.completion import complete_values

            complete_values(command.name, made.params)
        return made  # type: ignore[no-any-return]

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:  # noqa: ANN401 - as above
        """Return the names and options that begin with what was typed, for the shell's completion."""
        from ws_manager.cli.completion import complete_commands

        return list(complete_commands(ctx, incomplete, self.table.values()))

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - as above
        """Write the table into the help, without importing a single command."""
        with formatter.section("Commands"):
            formatter.write_dl([(command.name, command.help) for command in self.table.values()])


class Program(LazyGroup):
    """The whole of it: turns what ends a command into an exit code."""

    def main(
        self,
        args: Optional[Sequence[str]] = None,
        prog_name: Optional[str] = None,
        complete_var: Optional[str] = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = False,
        **extra: Any,  # noqa: ANN401 - Typer's own
    ) -> NoReturn:
        """Run one command line and exit. The arguments are Typer's own; the shell has expanded `args`."""
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
            # Commands return nothing; a number is the code of a Typer Exit.
            code = result if isinstance(result, int) else DONE
            if code != INTERRUPTED:
                sys.stdout.flush()
        except SystemExit as stop:
            # Typer turns a closed pipe into exit 1.
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
    """Show the help where no command follows, as the program itself does."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), err=True)
        raise typer.Exit(USAGE)


def _number(code: object) -> int:
    return code if isinstance(code, int) else DONE if code is None else USAGE


def _failed(error: Exception, arguments: list[str]) -> int:
    from ws_manager.cli.errors import report

    if isinstance(error, BrokenPipeError):
        return exit_code(error)
    if isinstance(error, _UsageError):
        error = _as_ours(error)
    report(error, output_asked_for(arguments), debug="--debug" in arguments)
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
        standard.let_go(stopped=code in (INTERRUPTED, TERMINATED))


def _terminate(number: int, _frame: object) -> None:
    next_one_ends(number, [number])
    sys.exit(TERMINATED)
