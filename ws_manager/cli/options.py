"""The options that every command has, before or after its name: `--db`, `--url`, `-o`, `--json` and others.

A command does not declare them: `ws_manager.cli.app` adds them to each, and the command asks
`global_options(ctx)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import typer
from typer.core import TyperOption

from ws_manager.errors import InvalidInput
from ws_manager.settings import Located, database_location, expanded, given_url, located, parse_duration

FORMATS = ("table", "wide", "json", "ndjson", "csv", "tsv", "id")
"""The values of `-o`."""

SHARED_HELP = "Keep the ledger in another program's database, beside its tables."
"""The help of `--shared`, of commands that may create a ledger."""

KEY_FILE = typer.Option(
    None,
    "--key-file",
    metavar="FILE",
    help="The key that signs tokens: at least 32 bytes, readable by you alone. "
    "[env: BLACKROAD_WS_SECRET, the key itself; default: beside the database file]",
)
"""The option of the commands that make or check tokens."""

_KEY = "ws_manager.options"
_ON_THE_FILE = "on the file"


@dataclass(frozen=True)
class GlobalOptions:
    """The global options of one command line.

    Attributes:
        db: the value of `--db`; None if it was not given. Use `database` for the file to open.
        url: the gateway's address: `--url`, or `BLACKROAD_WS_URL` where `--db` was not given. None for the file.
        token_file: the value of `--token-file`.
        ca: the value of `--ca`.
        output: one of `FORMATS`; None if the command chooses the format.
        debug: whether an error is reported with its traceback.
    """

    db: Optional[Located] = None
    url: Optional[str] = None
    token_file: Optional[Path] = None
    ca: Optional[Path] = None
    output: Optional[str] = None
    debug: bool = False

    @property
    def database(self) -> Located:
        """The file or the URL of the database: `--db`, `BLACKROAD_WS_DB` or the default, in this order."""
        return self.db or database_location()

    @property
    def json(self) -> bool:
        """Whether the output format is `json` or `ndjson`."""
        return self.output in ("json", "ndjson")


def global_options(ctx: typer.Context) -> GlobalOptions:
    """Return the global options of a running command."""
    given = ctx.meta.get(_KEY, {})
    files = {name: expanded(given[name]) if name in given else None for name in ("token_file", "ca")}
    return GlobalOptions(
        db=located(given["db"]) if "db" in given else None,
        **files,
        url=given.get("url") or (None if given.keys() & {"db", _ON_THE_FILE} else given_url()),
        output=given.get("output"),
        debug="debug" in given,
    )


def parse_age(text: str, option: str) -> float:
    """Return the age at which something is deleted in seconds.

    A unit is required, because a bare 30 would mean 30 seconds where 30 days were meant.

    Args:
        text: a duration, such as `30d`.
        option: the option's name, for errors.

    Raises:
        InvalidInput: it is not a duration, or has no unit.
    """
    seconds = parse_duration(text)
    if not text.strip()[-1:].isalpha():
        raise InvalidInput(f"{option} {text} of what?", hint="write 30d for days")
    return seconds


def output_asked_for(arguments: list[str]) -> Optional[str]:
    """Return the value of `-o` in a command line that could not be parsed; None if it has none."""
    found = None
    for number, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument == "--json":
            found = "json"
        elif argument in ("-o", "--output"):
            found = arguments[number + 1] if number + 1 < len(arguments) else found
        elif argument.startswith("--output="):
            found = argument[len("--output=") :]
        elif argument.startswith("-o") and len(argument) > 2:
            found = argument[2:]
    return found


def global_parameters(*, takes_url: bool) -> list[TyperOption]:
    """Make the global options of the program or of one command.

    Args:
        takes_url: whether it can go through a gateway; otherwise `--url` is a usage error, and not in the help.
    """
    keep, hidden = (_keep, False) if takes_url else (_refuse, True)
    return [
        _option(
            ["--db"],
            _keep,
            "PATH|URL",
            "The ledger: a SQLite file, or a database of PostgreSQL as postgresql://user@host/database. "
            "[env: BLACKROAD_WS_DB; default: ~/.blackroad/websocket-manager.db]",
        ),
        _option(
            ["--url"],
            keep,
            "URL",
            "A gateway's address, such as https://gateway.example.com: the command goes through it. "
            "[env: BLACKROAD_WS_URL]",
            hidden=hidden,
        ),
        _option(
            ["--token-file"],
            keep,
            "FILE",
            "A file with the gateway's token, read for each request. Not needed on the gateway's machine. "
            "[env: BLACKROAD_WS_TOKEN, the token itself]",
            hidden=hidden,
        ),
        _option(
            ["--ca"],
            keep,
            "FILE",
            "PEM file of the certificates that verify an https gateway.",
            hidden=hidden,
        ),
        _option(["-o", "--output"], _keep_output, "FORMAT", f"The output format: {', '.join(FORMATS)}."),
        _flag("--json", _keep_json, "The same as -o json."),
        _flag("--debug", _keep_flag, "Show the traceback of an error."),
    ]


def _option(
    names: list[str],
    callback: Any,  # noqa: ANN401 - Typer's parameter types differ from version to version
    metavar: str,
    text: str,
    *,
    hidden: bool = False,
) -> TyperOption:
    # Eager options are parsed before others, so their values are known when an argument is wrong.
    return TyperOption(
        param_decls=names,
        type=str,
        callback=callback,
        metavar=metavar,
        help=text,
        hidden=hidden,
        expose_value=False,
        is_eager=True,
    )


def _flag(name: str, callback: Any, text: str) -> TyperOption:  # noqa: ANN401 - as above
    return TyperOption(
        param_decls=[name],
        is_flag=True,
        default=False,
        callback=callback,
        help=text,
        expose_value=False,
        is_eager=True,
    )


def _given(ctx: typer.Context) -> dict[str, str]:
    # The contexts of the program and of its command share `meta`.
    given: dict[str, str] = ctx.meta.setdefault(_KEY, {})
    return given


def _keep(ctx: typer.Context, option: TyperOption, value: Optional[str]) -> None:
    if value is None:
        return
    if not value:
        raise InvalidInput(f"--{option.name} is empty", hint="give a value, or leave it out")
    _given(ctx)[str(option.name)] = value
    if {"db", "url"} <= _given(ctx).keys():
        raise InvalidInput(
            "--db and --url exclude each other", hint="a gateway at a --url has its own database"
        )


def _refuse(ctx: typer.Context, option: TyperOption, value: Optional[str]) -> None:
    _keep(ctx, option, value)
    _given(ctx)[_ON_THE_FILE] = "yes"
    for name in ("url", "token_file", "ca"):
        if name in _given(ctx):
            raise InvalidInput(
                f"{ctx.info_name} works on the database itself: it takes no --{name.replace('_', '-')}",
                hint="use --db",
            )


def _keep_output(ctx: typer.Context, _option: TyperOption, value: Optional[str]) -> None:
    if value is None:
        return
    if value not in FORMATS:
        raise InvalidInput(f"not an output format: {value!r}", hint=f"one of {', '.join(FORMATS)}")
    _given(ctx)["output"] = value


def _keep_json(ctx: typer.Context, _option: TyperOption, value: bool) -> None:
    if value:
        _given(ctx)["output"] = "json"


def _keep_flag(ctx: typer.Context, option: TyperOption, value: bool) -> None:
    if value:
        _given(ctx)[str(option.name)] = "yes"
