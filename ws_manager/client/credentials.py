"""Where an agent's token comes from, and whom it trusts."""

from __future__ import annotations

import errno
import os
import ssl
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Callable, Optional

from ws_manager.errors import InvalidInput, NotAuthorised
from ws_manager.proxies import is_this_machine
from ws_manager.remedies import CHECK_CA, CHECK_TOKEN_FILE, PRINT_TOKEN
from ws_manager.settings import Located, database_location, given_token
from ws_manager.text import read_text
from ws_manager.tokens import ANY_AGENT, DEFAULT_TTL, mint, signing_key

MAX_TOKEN = 64 * 1024
"""Bytes of a file with a token. A token has a few hundred."""

_KEPT_SECONDS = DEFAULT_TTL / 2
_MAX_CERTIFICATES = 16 * 1024 * 1024


def own_token(
    database: Optional[Located],
    agent: str,
    ws_id: Optional[str],
    url: str,
    *,
    ours: bool = False,
    scopes: Iterable[str] = ("connect",),
    key_file: Optional[Path] = None,
) -> Optional[str]:
    """Return the token with which an agent on the gateway's own machine connects, so that nobody has to type one.

    Args:
        database: whose key signs it; the key is never made here. None is the database of the environment.
        agent: the agent that connects.
        ws_id: its connection, if it is known.
        url: the gateway's address. A token is made only for a gateway on this machine: another has its own key, and
            should not see what this one signs.
        ours: the address is the one that the database's own gateway has left in it.
        scopes: of a new token.
        key_file: has the key; None for the environment's, or the one beside the database.

    Returns:
        `BLACKROAD_WS_TOKEN`, or a new token; None if there is no key, because no gateway has asked for tokens here
        yet, or if the address is another machine's.

    Raises:
        InvalidInput, LedgerError, NotAuthorised: the key cannot be used.
    """
    token = given_token()
    if token is not None or not (ours or is_this_machine(url)):
        return token
    key = signing_key(database or database_location(), create=False, key_file=key_file)
    if key is None:
        return None
    return mint(key, agent, ws_id=ws_id, scopes=scopes)


def operator_token(url: str) -> Callable[[], Optional[str]]:
    """Return a function that returns the token for an operator's next request to a gateway.

    That is `BLACKROAD_WS_TOKEN` or, on this machine, one that is made from the key of the environment's database.
    """
    made: list[tuple[float, Optional[str]]] = []

    def token() -> Optional[str]:
        # Kept for a while: a gateway counts requests by token.
        if not made or time.monotonic() - made[-1][0] > _KEPT_SECONDS:
            made[:] = [(time.monotonic(), own_token(None, ANY_AGENT, None, url, scopes=("admin",)))]
        return made[-1][1]

    return token


def token_file(path: Path) -> Callable[[], str]:
    """Return a function that reads a token from a file, as it is then."""

    def read() -> str:
        try:
            with path.open("rb") as file:
                token = read_text(file, f"the token in {path}", MAX_TOKEN).strip()
        except InvalidInput as error:
            raise NotAuthorised(error.message, hint=error.hint) from None
        except OSError as error:
            raise NotAuthorised(
                f"cannot read the token in {path}: {os.strerror(error.errno or errno.EIO)}",
                remedy=CHECK_TOKEN_FILE,
            ) from None
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise NotAuthorised(f"there is no token in {path}", remedy=PRINT_TOKEN)
        return token

    return read


def trust(ca: Optional[Path]) -> Optional[ssl.SSLContext]:
    """Return the TLS context that checks a gateway's certificate: against the certificates in a file only.

    Raises:
        InvalidInput: the file cannot be read, or holds no certificate.
    """
    if ca is None:
        return None
    try:
        with ca.open("rb") as file:
            text = read_text(file, str(ca), _MAX_CERTIFICATES)
    except OSError as error:
        raise InvalidInput(
            f"cannot read {ca}: {os.strerror(error.errno or errno.EIO)}", remedy=CHECK_CA
        ) from None
    try:
        # OpenSSL takes ASCII only, and comments between certificates may be in any language. An empty text would
        # stand for the system's certificates.
        context = ssl.create_default_context(cadata=text.encode("ascii", "replace").decode("ascii") or "-")
    except ssl.SSLError:
        raise InvalidInput(f"{ca} holds no certificate", hint="it has to be a PEM file") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
