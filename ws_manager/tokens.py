"""Tokens: who may be which agent, and for how long. And the key that signs them.

A token is a JWT (RFC 7519) signed with HS256 (RFC 7518 section 3.2) by the key beside the database, or by
`BLACKROAD_WS_SECRET`. No error text contains a token or a key.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import secrets
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ws_manager.errors import InvalidInput, LedgerError, LedgerFull, NotAuthorised, is_full
from ws_manager.own_files import beside, make_whole, opened, real
from ws_manager.remedies import GIVE_KEY, MAKE_TOKEN, PLACE_KEY
from ws_manager.settings import MAX_TIMEOUT, DatabaseUrl, Located, signing_secret
from ws_manager.text import decode

AUDIENCE = "ws-manager"
"""The `aud` of every token (RFC 7519 section 4.1.3)."""

ALGORITHM = "HS256"
"""The only algorithm, whatever a token's header names (RFC 8725 section 3.1)."""

ANY_AGENT = "*"
"""The `sub` of a token that every agent may use."""

SCOPES = ("connect", "send", "broadcast", "read", "content", "admin")
"""What a token can allow. `admin` includes all others; no other one includes another."""

MIN_KEY = 32
"""Bytes: a key for HS256 is at least as long as its hash (RFC 7518 section 3.2)."""

DEFAULT_TTL = 86400.0
"""Seconds that a token is valid by default."""


@dataclass(frozen=True)
class Claims:
    """The claims of a token.

    Attributes:
        agent: the agent that may use it, or `*` for every agent (`sub`).
        ws_id: the only connection that it is valid for; None for all of the agent's.
        scopes: what it allows, of `SCOPES`. Unknown scopes allow nothing.
        issued_at: when it was made, in seconds since 1970 (`iat`).
        expires_at: when it ends, in seconds since 1970 (`exp`); infinity for never.
        jti: its own name (RFC 7519 section 4.1.7); None for one that was made before tokens had it.
        key: identifies the token: its `jti`, or a hash of its claims. None for `EVERYTHING`.
    """

    agent: str
    ws_id: Optional[str]
    scopes: frozenset[str]
    issued_at: float
    expires_at: float
    jti: Optional[str] = None
    key: Optional[str] = None

    def check(self, agent: str, ws_id: Optional[str]) -> None:
        """Check that an agent may connect as a connection.

        Raises:
            NotAuthorised: the token is for another agent or connection, or lacks the scope `connect`.
        """
        self.require("connect")
        if self.agent not in (ANY_AGENT, agent):
            raise NotAuthorised("the token belongs to another agent", hint="ask for one of this agent's")
        if self.ws_id is not None and ws_id != self.ws_id:
            raise NotAuthorised("the token is for another ws_id", hint="ask for one of this ws_id's")

    def allows(self, scope: str) -> bool:
        """Return whether the token has a scope, by itself or by `admin`."""
        return scope in self.scopes or "admin" in self.scopes

    def require(self, scope: str) -> None:
        """Check that the token has a scope.

        Raises:
            NotAuthorised: it does not have it.
        """
        if not self.allows(scope):
            raise NotAuthorised(f"the token has no scope {scope}", hint="ask for one that has it")


EVERYTHING = Claims(ANY_AGENT, None, frozenset(SCOPES), 0.0, math.inf)
"""The claims of everybody when tokens are not required."""


def key_path(database: Path) -> Path:
    """Return where a database's signing key is: beside the file that the name leads to."""
    return beside(database, ".key")


def signing_key(
    database: Located,
    *,
    create: bool,
    key_file: Optional[Path] = None,
    environ: Optional[Mapping[str, str]] = None,
) -> Optional[bytes]:
    """Return the key that signs this ledger's tokens: from the environment, or from its file.

    Args:
        database: where the ledger is; it need not exist.
        create: make the key if there is none. If several processes do it at the same time, there is one key.
        key_file: the file, which then has to be there. None for the one beside the database.
        environ: the variables; `os.environ` if None.

    Returns:
        At least 32 bytes; None if there is no key and `create` is False.

    Raises:
        InvalidInput: `BLACKROAD_WS_SECRET` or the file's content is too short, others can read the file, or the
            database was named by a link that has another key beside it; or the ledger is not in a file, and no key
            was given.
        NotAuthorised: this user may not read the file.
        LedgerError: the file cannot be made, is a link, or does not belong to the database's owner.
    """
    if key_file is not None:
        given = _read(key_file, key_file)
        if given is None:
            raise InvalidInput(f"there is no signing key at {key_file}", hint="check the name")
        return given
    secret = signing_secret(environ)
    if secret is not None:
        return secret
    if isinstance(database, DatabaseUrl):
        raise InvalidInput(f"there is no signing key for {database}", remedy=GIVE_KEY)
    path = key_path(database)
    key = _read(path, database)
    linked = Path(f"{os.path.abspath(database)}.key")
    if real(linked) != real(path):
        key = _agreed(path, key, linked, _read(linked, database))
    if key is None and create:
        _make(path, database)
        key = _read(path, database)
    return key


def _agreed(path: Path, key: Optional[bytes], linked: Path, other: Optional[bytes]) -> Optional[bytes]:
    """Choose between the key beside the database and the one beside the link that named it."""
    if other is None or other == key:
        return key
    if key is None:
        import logging

        logging.getLogger("ws_manager").warning(
            "the signing key %s is beside a link to the database: move it to %s, where every name finds it",
            linked,
            path,
        )
        return other
    raise InvalidInput(
        f"two signing keys that differ: {path}, and {linked} beside a link to the same database",
        hint="delete the one that no gateway uses; the tokens that it signed end with it",
    )


def mint(
    key: bytes,
    agent: str,
    *,
    ws_id: Optional[str] = None,
    scopes: Iterable[str] = ("connect",),
    ttl: float = DEFAULT_TTL,
    now: Optional[float] = None,
) -> str:
    """Make a token.

    Args:
        key: as `signing_key` returns it.
        agent: this and the rest as in `new_claims`, which says what is raised too.
        ws_id: see there.
        scopes: see there.
        ttl: see there.
        now: see there.
    """
    return sign(key, new_claims(agent, ws_id=ws_id, scopes=scopes, ttl=ttl, now=now))


def new_claims(
    agent: str,
    *,
    ws_id: Optional[str] = None,
    scopes: Iterable[str] = ("connect",),
    ttl: float = DEFAULT_TTL,
    now: Optional[float] = None,
) -> Claims:
    """Return the claims of a new token, with a jti of its own.

    Args:
        agent: a checked name, or `*` for every agent.
        ws_id: a checked name, if the token is to be good for this connection alone.
        scopes: of `SCOPES`.
        ttl: seconds that it is good for, at least 1.
        now: seconds since 1970; the present time if None.

    Raises:
        InvalidInput: a scope is unknown, there are no scopes, or the ttl is too short or too long.
    """
    asked = check_scopes(scopes)
    if not 1 <= ttl <= MAX_TIMEOUT:
        raise InvalidInput("a token lasts at least 1 second and at most ten years", hint="24h is usual")
    issued, jti = int(time.time() if now is None else now), secrets.token_urlsafe(12)
    return Claims(agent, ws_id, asked, issued, issued + int(ttl), jti, jti)


def sign(key: bytes, claims: Claims) -> str:
    """Return the token that says what claims from `new_claims` say. The same claims make the same token."""
    import jwt

    payload: dict[str, Any] = {
        "sub": claims.agent,
        **({} if claims.ws_id is None else {"ws_id": claims.ws_id}),
        "scope": " ".join(scope for scope in SCOPES if scope in claims.scopes),
        "aud": AUDIENCE,
        "iat": int(claims.issued_at),
        "exp": int(claims.expires_at),
        "jti": claims.jti,
    }
    return jwt.encode(payload, key, algorithm=ALGORITHM)


def check_scopes(scopes: Iterable[str]) -> frozenset[str]:
    """Return scopes that a token can have.

    Raises:
        InvalidInput: a scope is unknown, or there are no scopes.
    """
    asked = frozenset(scopes)
    if not asked or not asked <= set(SCOPES):
        raise InvalidInput("not a scope of a token", hint=f"of {', '.join(SCOPES)}")
    return asked


def verify(key: bytes, token: str, now: Optional[float] = None) -> Claims:
    """Check a token's signature and claims, and return what it says.

    Args:
        key: as `signing_key` returns it.
        token: as it came.
        now: seconds since 1970; the present time if None.

    Raises:
        NotAuthorised: it is not one of ours, or has expired.
    """
    import jwt

    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            # `exp` is compared below with the given clock; `iat` restricts nothing.
            options={"require": ["exp", "iat", "aud", "sub"], "verify_exp": False, "verify_iat": False},
        )
    except jwt.InvalidAudienceError:
        raise NotAuthorised("the token is for another audience", remedy=MAKE_TOKEN) from None
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        # PyJWT's own text is not used: it can quote the token.
        raise NotAuthorised("the token is not valid here", remedy=MAKE_TOKEN) from None
    issued, expires = _seconds(claims["iat"]), _seconds(claims["exp"])
    ws_id, scope = claims.get("ws_id"), claims.get("scope")
    if issued is None or expires is None or not isinstance(ws_id, (str, type(None))):
        raise NotAuthorised("the token is not valid here", remedy=MAKE_TOKEN)
    if expires <= (time.time() if now is None else now):
        raise NotAuthorised("the token has expired", remedy=MAKE_TOKEN)
    scopes = frozenset(scope.split()) if isinstance(scope, str) else frozenset()
    jti = claims.get("jti") or None
    # As text that every ledger can keep.
    own = jti if jti and len(jti) <= _LONGEST_JTI and jti.isprintable() else _digest(token)
    return Claims(claims["sub"], ws_id, scopes, issued, expires, jti, own)


_LONGEST_JTI = 128


def jti_of(token: str) -> str:
    """Return the `jti` of a token, which is not verified: enough to revoke it where the key is elsewhere.

    Raises:
        NotAuthorised: it is not a token, or one without a jti.
    """
    import jwt

    try:
        jti = jwt.decode(token, options={"verify_signature": False}).get("jti")
    except jwt.InvalidTokenError:
        jti = None
    if not isinstance(jti, str) or not jti:
        raise NotAuthorised("this is not a token with a jti", hint="revoke it on the machine of the ledger")
    return jti


def _digest(token: str) -> str:
    """Return a hash of what is signed. Not of the signature, whose text is not unique (RFC 4648 section 3.5)."""
    return hashlib.sha256(token.rpartition(".")[0].encode("utf-8", "replace")).hexdigest()


def _seconds(value: object) -> Optional[float]:
    """Return a NumericDate (RFC 7519 section 2), or None if the value is not one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def _read(path: Path, database: Path) -> Optional[bytes]:
    try:
        with opened(path, database) as descriptor:
            mode = os.fstat(descriptor).st_mode
            key = _bare(os.read(descriptor, 4096)).strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotAuthorised(
            f"cannot read the signing key {path}: {os.strerror(error.errno or errno.EIO)}",
            hint="run it as the user who runs the gateway, or give a token",
        ) from None
    # Windows keeps permissions elsewhere, and shows 0666 for everything.
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise InvalidInput(f"others can read the signing key {path}", hint=f"chmod 600 {path}")
    if len(key) < MIN_KEY:
        raise InvalidInput(
            f"the signing key {path} is damaged: under {MIN_KEY} bytes",
            hint="delete it for a new one; the tokens that it signed end with it",
        )
    return key


def _bare(key: bytes) -> bytes:
    """Return a key without the byte order mark of a text editor or a shell; one of random bytes stays as it is."""
    try:
        text = decode(key, "the key")
    except InvalidInput:
        return key
    return text.encode("ascii") if text.isascii() else key


def _make(path: Path, database: Path) -> None:
    """Make a key file of mode 0600, unless another process was first."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_whole(path, f"{secrets.token_urlsafe(48)}\n".encode("ascii"), database)
    except OSError as error:
        raise (LedgerFull if is_full(error) else LedgerError)(
            f"cannot make the signing key {path}: {os.strerror(error.errno or errno.EIO)}",
            remedy=PLACE_KEY,
        ) from error
