"""`ws-manager token`: make a token for an agent, inspect one, or revoke one."""

from datetime import datetime, timezone
from pathlib import Path
from typing import Optional

import typer

from ws_manager.cli.ledger import check_no_gateway, ledger_to_write, remote_ledger
from ws_manager.cli.options import KEY_FILE, global_options
from ws_manager.cli.output.results import write_result
from ws_manager.cli.output.text import json_object, note, note_to_terminal, write
from ws_manager.errors import InvalidInput, NotAuthorised
from ws_manager.settings import expanded, given_token, parse_duration, signing_secret
from ws_manager.text import read_text

_SCOPE = typer.Option(
    None,
    "--scope",
    metavar="SCOPES",
    help="What the token allows: connect, send, broadcast, read, content, admin; separated by spaces, or repeated. "
    "[default: connect]",
)


def token(
    ctx: typer.Context,
    agent: Optional[str] = typer.Argument(
        None,
        metavar="<agent>",
        help="The agent's name, or * for every agent. With --inspect, the token.",
    ),
    revoke: Optional[str] = typer.Option(
        None,
        "--revoke",
        metavar="JTI",
        help="Revoke a token, by the jti that --inspect shows, or by the token itself: - reads it from stdin.",
    ),
    ws_id: Optional[str] = typer.Option(
        None, "--ws-id", metavar="ID", help="Valid for this connection only."
    ),
    scope: Optional[list[str]] = _SCOPE,
    ttl: Optional[str] = typer.Option(
        None, "--ttl", metavar="DURATION", help="How long the token is valid. [default: 24h]"
    ),
    out: Optional[str] = typer.Option(
        None,
        "--out",
        metavar="FILE",
        help="Write the token to this file, mode 0600, instead of stdout; an existing file is replaced.",
    ),
    key_file: Optional[str] = KEY_FILE,
    inspect: bool = typer.Option(
        False,
        "--inspect",
        help="Verify a token and show its claims. The token is the argument, stdin with -, or BLACKROAD_WS_TOKEN.",
    ),
) -> None:
    """Make a token for an agent, inspect one, or revoke one.

    Only the token is written to stdout, or to the file of --out. It is signed with --key-file,
    BLACKROAD_WS_SECRET, or the key beside the database file, which is created on first use. Whoever has it can act as
    the agent until it expires or is revoked. Its sockets are then closed within a second, and their receipts no
    longer count.
    """
    from ws_manager.cli.secret_file import check_place, write_secret
    from ws_manager.core.validation import check_name
    from ws_manager.tokens import DEFAULT_TTL, mint

    if revoke is not None:
        if agent is not None or inspect or out is not None:
            raise InvalidInput("--revoke takes no other token, --inspect or --out", hint="leave them out")
        _revoke(ctx, revoke, key_file)
        return
    if inspect:
        if out is not None:
            raise InvalidInput("--inspect and --out exclude each other", hint="leave one of them out")
        _inspect(ctx, agent, key_file)
        return
    if agent is None:
        raise InvalidInput("missing argument '<agent>'", hint="for example: ws-manager token octavia")
    names = check_name(agent, "agent"), None if ws_id is None else check_name(ws_id, "ws_id")
    scopes = ("connect",) if scope is None else tuple(" ".join(scope).split())
    seconds = DEFAULT_TTL if ttl is None else parse_duration(ttl)
    # Invalid values are reported before a key is created.
    mint(b"-" * 32, names[0], ws_id=names[1], scopes=scopes, ttl=seconds)
    if out in ("", "-"):
        raise InvalidInput(
            f"--out needs the name of a file, not '{out}'", hint="without --out the token goes to stdout"
        )
    place = None if out is None else expanded(out)
    if place is not None:
        check_place(place)
    options = global_options(ctx)
    if options.url is not None:
        with remote_ledger(options) as remote:
            made, expires = remote.token(names[0], names[1], scopes, None if ttl is None else seconds)
    else:
        check_no_gateway(options)
        made, expires = _made_here(ctx, names, scopes, seconds, key_file)
    if place is None:
        write_result(options, made, {"token": made}, made)
        return
    write_secret(place, made + "\n")
    line = f"Wrote a token to {out} (agent={agent}, expires {expires})"
    write_result(options, line, {"file": out, "agent": agent, "expires_at": expires}, str(out))


def _made_here(
    ctx: typer.Context,
    names: tuple[str, Optional[str]],
    scopes: tuple[str, ...],
    seconds: float,
    key_file: Optional[str],
) -> tuple[str, str]:
    """Make a token with the key that was given or the database's, and return it with its end."""
    from ws_manager.tokens import key_path, mint, signing_key, verify

    key = _key(ctx, key_file)
    if key is None:
        database = global_options(ctx).database
        assert isinstance(database, Path)
        key = signing_key(database, create=True)
        note_to_terminal(f"created a new signing key: {key_path(database)}")
        if not database.exists():
            note_to_terminal(f"there is no database at {database} yet: the token is for a future gateway")
    assert key is not None
    made = mint(key, names[0], ws_id=names[1], scopes=scopes, ttl=seconds)
    return made, _time(verify(key, made).expires_at)


def _inspect(ctx: typer.Context, given: Optional[str], key_file: Optional[str]) -> None:
    from ws_manager.tokens import AUDIENCE, SCOPES, verify

    if global_options(ctx).url is not None:
        raise InvalidInput(
            "--inspect needs the key that has signed the token",
            hint="inspect it on the machine of the ledger, without --url and BLACKROAD_WS_URL",
        )
    text = _stdin() if given == "-" else given or given_token()
    if not text:
        raise InvalidInput(
            "no token to inspect", hint="give the token, or - for stdin, or set BLACKROAD_WS_TOKEN"
        )
    key = _key(ctx, key_file)
    if key is None:
        raise NotAuthorised(
            f"there is no signing key for {global_options(ctx).database}, so it has no tokens",
            hint="use the --db that the gateway serves",
        )
    claims = verify(key, text)
    shown = {
        "sub": claims.agent,
        "ws_id": claims.ws_id,
        "scope": " ".join(scope for scope in SCOPES if scope in claims.scopes),
        "aud": AUDIENCE,
        "iat": _time(claims.issued_at),
        "exp": _time(claims.expires_at),
        "jti": claims.jti,
    }
    write(json_object(shown, indent=not global_options(ctx).output), is_json=True)


def _revoke(ctx: typer.Context, given: str, key_file: Optional[str]) -> None:
    from ws_manager.tokens import jti_of, verify

    name = _stdin() if given == "-" else given
    if name.count(".") == 2:
        # A token, not its jti: see RFC 7515 section 3.1.
        if global_options(ctx).url is not None:
            name = jti_of(name)
        else:
            # One that has expired need not be revoked.
            key = _key(ctx, key_file)
            if key is None:
                raise NotAuthorised("there is no signing key, so there are no tokens", hint="check --db")
            name = verify(key, name).key or ""
    with ledger_to_write(ctx) as ledger:
        new, ended = ledger.revoke(name)
    if not new:
        note(f"note: {name} was revoked already")
    row = {"jti": name, "revoked": True, "disconnected": ended}
    write_result(global_options(ctx), f"Revoked: {name} ({len(ended)} connection(s) ended)", row, name)


def _stdin() -> str:
    from ws_manager.cli.process.line_reader import stdin
    from ws_manager.client.credentials import MAX_TOKEN

    return read_text(stdin(), "the token on stdin", MAX_TOKEN).strip()


def _key(ctx: typer.Context, key_file: Optional[str]) -> Optional[bytes]:
    """Return the key that was given, or the database's; None if that has none yet.

    A file that is not a ledger is refused before a key is created beside it.
    """
    from ws_manager.core.locations import check_location
    from ws_manager.tokens import signing_key

    database = global_options(ctx).database
    file = None if key_file is None else expanded(key_file)
    if file is None and signing_secret() is None and isinstance(database, Path):
        check_location(database)
    return signing_key(database, create=False, key_file=file)


def _time(seconds: float) -> str:
    """Return seconds since 1970 as an RFC 3339 time; as a number if they exceed the calendar."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat()
    except (OverflowError, ValueError, OSError):
        return str(seconds)
