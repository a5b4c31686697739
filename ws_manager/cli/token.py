"""`ws-manager token`: make a token for an agent, or look into one."""

import sys
from datetime import datetime, timezone
from typing import Optional

import typer

from ws_manager.cli.options import global_options
from ws_manager.cli.output import json_object, note_to_terminal, result, write
from ws_manager.errors import InvalidInput, NotAuthorised
from ws_manager.settings import given_token, parse_duration, signing_secret

_SCOPE = typer.Option(
    None,
    "--scope",
    metavar="SCOPES",
    help="What it allows, of connect, send, broadcast, admin; separated by spaces, or repeated. "
    "[default: connect]",
)


def token(
    ctx: typer.Context,
    agent: Optional[str] = typer.Argument(
        None,
        metavar="<agent>",
        help="Whose token: an agent's name, or * for every agent. With --inspect, the token.",
    ),
    ws_id: Optional[str] = typer.Option(
        None, "--ws-id", metavar="ID", help="Good for this connection alone."
    ),
    scope: Optional[list[str]] = _SCOPE,
    ttl: str = typer.Option("24h", "--ttl", metavar="DURATION", help="How long it is good for."),
    inspect: bool = typer.Option(
        False,
        "--inspect",
        help="Verify a token and show what it says: the one given, stdin's with -, or BLACKROAD_WS_TOKEN.",
    ),
) -> None:
    """Make a token for an agent, or look into one.

    The token alone is on stdout. It is signed with the key beside the database, which is made on first use,
    or with BLACKROAD_WS_SECRET. Whoever has it is the agent until it expires: it cannot be called back.
    """
    from ws_manager.core.values import check_name
    from ws_manager.tokens import key_path, mint, signing_key

    database = global_options(ctx).database
    if inspect:
        _inspect(ctx, agent)
        return
    if agent is None:
        raise InvalidInput("missing argument '<agent>'", hint="for example: ws-manager token octavia")
    names = check_name(agent, "agent"), None if ws_id is None else check_name(ws_id, "ws_id")
    scopes = ("connect",) if scope is None else tuple(" ".join(scope).split())
    seconds = parse_duration(ttl)
    # What cannot be made is said before a key is.
    mint(b"-" * 32, names[0], ws_id=names[1], scopes=scopes, ttl=seconds)
    new = signing_secret() is None and not key_path(database).exists()
    key = signing_key(database, create=True)
    assert key is not None
    made = mint(key, names[0], ws_id=names[1], scopes=scopes, ttl=seconds)
    if new:
        note_to_terminal(f"made a new signing key: {key_path(database)}")
    result(global_options(ctx), made, {"token": made}, made)


def _inspect(ctx: typer.Context, given: Optional[str]) -> None:
    from ws_manager.tokens import AUDIENCE, SCOPES, signing_key, verify

    text = sys.stdin.read().strip() if given == "-" else given or given_token()
    if not text:
        raise InvalidInput("no token to look into", hint="give it, or - for stdin, or set BLACKROAD_WS_TOKEN")
    database = global_options(ctx).database
    key = signing_key(database, create=False)
    if key is None:
        raise NotAuthorised(
            f"there is no signing key for {database}, so none of its tokens",
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


def _time(seconds: float) -> str:
    """Return seconds since 1970 as an RFC 3339 time; as a number where no calendar goes so far."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat()
    except (OverflowError, ValueError, OSError):
        return str(seconds)
