"""Context managers that open a command's ledger: a file, or one over HTTP with `--url`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional

import typer

from ws_manager.cli.options import GlobalOptions, global_options
from ws_manager.errors import InvalidInput
from ws_manager.settings import Located

if TYPE_CHECKING:
    from ws_manager.client.remote import RemoteLedger
    from ws_manager.core.ledger import Ledger


@contextlib.contextmanager
def ledger_to_write(ctx: typer.Context, *, create: bool = False, shared: bool = False) -> Iterator[Ledger]:
    """Open the ledger that the options name.

    Args:
        ctx: the command's context.
        create: create a missing ledger, and say so; otherwise a missing ledger is an error.
        shared: allow a database of another program.

    Raises:
        InvalidInput, LedgerError: as `open_ledger`.
    """
    options = global_options(ctx)
    if options.url is not None:
        if shared:
            raise InvalidInput("--shared is for a database file", hint="leave it out, or leave out --url")
        with remote_ledger(options) as remote:
            yield remote
        return
    from ws_manager.core.ledger import open_ledger

    check_no_gateway(options)
    location = options.database
    new = create and not _exists(location)
    with open_ledger(location, create=create, shared=shared) as ledger:
        if new:
            from ws_manager.cli.output.text import note_to_terminal

            made = "created a new database:" if isinstance(location, Path) else "made a new ledger in"
            note_to_terminal(f"{made} {ledger.location}")
        yield ledger


@contextlib.contextmanager
def ledger_to_read(ctx: typer.Context) -> Iterator[Ledger]:
    """Open the ledger that the options name; it is not written to.

    Raises:
        InvalidInput, LedgerError: as `open_ledger`; a missing ledger is an error.
    """
    options = global_options(ctx)
    if options.url is not None:
        with remote_ledger(options) as remote:
            yield remote
        return
    from ws_manager.core.ledger import open_ledger

    check_no_gateway(options)
    with open_ledger(options.database, read_only=True) as ledger:
        yield ledger


@contextlib.contextmanager
def ledger_if_any(ctx: typer.Context) -> Iterator[Optional[Ledger]]:
    """Open the ledger for a command that lists; yield None, with a note on stderr, if there is none.

    Raises:
        InvalidInput, LedgerError: as `open_ledger`.
    """
    options = global_options(ctx)
    if options.url is not None:
        with ledger_to_read(ctx) as ledger:
            yield ledger
        return
    from ws_manager.cli.output.text import note
    from ws_manager.core.locations import caveats

    check_no_gateway(options)
    location = options.database
    if not _exists(location):
        if not isinstance(location, Path):
            missing = f"there is no ledger in {location}"
        elif location.exists():
            missing = f"the database is empty at {location}"
        else:
            missing = f"there is no database at {location}"
        note(f"{missing}: nothing has been registered or sent there")
        yield None
        return
    with ledger_to_read(ctx) as ledger:
        for caveat in caveats(location):
            note(caveat)
        yield ledger


def remote_ledger(options: GlobalOptions) -> RemoteLedger:
    """Return the ledger of the gateway that the options name.

    Its token is that of `--token-file` or `BLACKROAD_WS_TOKEN`. On the gateway's own machine one is made from the key
    beside the database, so that nobody has to type one.

    Raises:
        InvalidInput: the address, the proxy or the certificates cannot be used.
    """
    from ws_manager.client.api import ApiClient
    from ws_manager.client.credentials import operator_token, token_file, trust
    from ws_manager.client.remote import RemoteLedger

    assert options.url is not None
    token = operator_token(options.url) if options.token_file is None else token_file(options.token_file)
    return RemoteLedger(ApiClient(options.url, token, trust(options.ca), _waiting(options.url)))


def check_no_gateway(options: GlobalOptions) -> None:
    """Check that nothing is given that only a gateway needs.

    Raises:
        InvalidInput: there is.
    """
    for name, value in (("--token-file", options.token_file), ("--ca", options.ca)):
        if value is not None:
            raise InvalidInput(f"{name} is for a gateway", hint="give its address with --url")


def _waiting(url: str) -> Callable[[], None]:
    """Return a function that says once that a gateway does not answer."""
    from ws_manager.cli.output.text import note_to_terminal

    said: list[bool] = []

    def say() -> None:
        if not said:
            note_to_terminal(f"{url} does not answer; trying again for some seconds")
        said.append(True)

    return say


def _exists(location: Located) -> bool:
    from ws_manager.core.locations import exists

    return exists(location)
