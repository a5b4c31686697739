"""Where an agent's token comes from, and whom it trusts."""

from __future__ import annotations

import errno
import ipaddress
import os
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Callable, Optional
from urllib.parse import urlsplit

from ws_manager.errors import InvalidInput, NotAuthorised
from ws_manager.settings import given_token
from ws_manager.tokens import mint, signing_key


def own_token(
    database: Path,
    agent: str,
    ws_id: Optional[str],
    url: str,
    *,
    ours: bool = False,
    scopes: Iterable[str] = ("connect",),
) -> Optional[str]:
    """Return the token that an agent on the gateway's own machine connects with, so that nobody types one.

    Args:
        database: whose key signs it; the key is never made here.
        agent: who connects.
        ws_id: as what, if it is known.
        url: the gateway's address. A token is made for this machine's alone: another one's gateway has its
            own key, and should not see what this one signs.
        ours: the address is the one that the database's own gateway has left in it.
        scopes: of a new token.

    Returns:
        `BLACKROAD_WS_TOKEN`, or a new token; None if there is no key, because no gateway has asked for tokens here
        yet, or if the address is another machine's.

    Raises:
        InvalidInput, NotAuthorised: the key cannot be used.
    """
    token = given_token()
    if token is not None or not (ours or _is_this_machine(url)):
        return token
    key = signing_key(database, create=False)
    if key is None:
        return None
    return mint(key, agent, ws_id=ws_id, scopes=scopes)


def token_file(path: Path) -> Callable[[], str]:
    """Return a function that reads a token from a file, as it is then."""

    def read() -> str:
        try:
            token = path.read_text(encoding="ascii").strip()
        except UnicodeDecodeError:
            token = ""
        except OSError as error:
            raise NotAuthorised(
                f"cannot read the token in {path}: {os.strerror(error.errno or errno.EIO)}",
                hint="check --token-file",
            ) from None
        if not token or not token.isprintable() or " " in token:
            raise NotAuthorised(f"there is no token in {path}", hint="ws-manager token <agent> prints one")
        return token

    return read


def trust(ca: Optional[Path]) -> Optional[ssl.SSLContext]:
    """Return what checks a gateway's certificate: with a file of certificates, those and no others.

    Raises:
        InvalidInput: the file cannot be read, or holds no certificate.
    """
    if ca is None:
        return None
    try:
        context = ssl.create_default_context(cafile=ca)
    except ssl.SSLError:
        raise InvalidInput(f"{ca} holds no certificate", hint="it has to be a PEM file") from None
    except OSError as error:
        raise InvalidInput(
            f"cannot read {ca}: {os.strerror(error.errno or errno.EIO)}", hint="check --ca"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _is_this_machine(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
