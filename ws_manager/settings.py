"""Environment variables and defaults."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

from ws_manager.errors import InvalidInput
from ws_manager.remedies import NAME_LOCATION
from ws_manager.text import without_mark

if TYPE_CHECKING:
    DB_PATH: Path
    """Where the ledger is, unless `BLACKROAD_WS_DB` or an argument says otherwise."""

_DB_PATH = "~/.blackroad/websocket-manager.db"

HEARTBEAT_TIMEOUT = 30.0
"""Seconds without a sign of life after which a connection counts as lost."""

MAX_CONTENT = 256 * 1024
"""Bytes of a message's content, as UTF-8 JSON, unless `BLACKROAD_WS_MAX_CONTENT` says otherwise."""

MAX_METADATA = 16 * 1024
"""Bytes of a connection's metadata, as UTF-8 JSON, unless `BLACKROAD_WS_MAX_METADATA` says otherwise."""

LARGEST = 1024 * 1024
"""The largest value for both, in bytes."""

MAX_NAME = 128
"""Characters of a ws_id, an agent's name or a message type."""

MAX_TIMEOUT = 10 * 365 * 86400.0
"""Seconds. A longer timeout is taken for a mistake."""


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
_USER = re.compile(r"^(?P<scheme>[^:]+://)(?P<user>[^:@/?]*)(?P<password>:[^/?]*)?@")
_SECRET = re.compile(r"(?P<name>[?&](?:ssl)?password=)[^&]*", re.IGNORECASE)


@dataclass(frozen=True)
class DatabaseUrl:
    """The URL of a database, such as `postgresql://user@host:port/database`. Its text is without the password.

    Attributes:
        url: as it was given, perhaps with a password.
    """

    url: str = field(repr=False)

    def __str__(self) -> str:
        return _SECRET.sub(r"\g<name>…", _USER.sub(r"\g<scheme>\g<user>@", self.url))

    @property
    def scheme(self) -> str:
        """What stands before the colon, in lower case."""
        return self.url.partition(":")[0].lower()


Location = Union[str, Path, DatabaseUrl]
"""Where a ledger is: the path of a file, or the URL of a database."""

Located = Union[Path, DatabaseUrl]
"""A location that was read: no text that may be either, and none that shows a password."""


def located(location: Location) -> Located:
    """Tell a URL from a path.

    Raises:
        InvalidInput: a path begins with a home folder that does not exist, or was made of a URL: it has lost a slash.
    """
    if isinstance(location, DatabaseUrl):
        return location
    if isinstance(location, str) and _URL.match(location):
        return DatabaseUrl(location)
    # One letter is a drive of Windows.
    if re.match(r"[A-Za-z][A-Za-z0-9+.\-]+:/", str(location)):
        raise InvalidInput(
            f"a Path cannot hold a URL: {str(location).partition(':')[0]}:…", hint="give the URL as text"
        )
    return expanded(location)


@dataclass(frozen=True)
class Sizes:
    """How large what enters the ledger may be, in bytes of UTF-8 JSON.

    Attributes:
        content: of a message.
        metadata: of a connection.
    """

    content: int = MAX_CONTENT
    metadata: int = MAX_METADATA


def __getattr__(name: str) -> Path:
    """Make `DB_PATH` when it is first used: it needs a home folder, which not every user has."""
    if name != "DB_PATH":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _default_path()


@functools.cache
def _default_path() -> Path:
    """Return `DB_PATH`. Without a home folder it keeps its `~`, and opening it is an error (see `expanded`)."""
    try:
        return expanded(_DB_PATH)
    except InvalidInput:
        return Path(_DB_PATH)


def expanded(path: Union[str, Path]) -> Path:
    """Return a path whose `~` or `~user` at the beginning is replaced by that home folder.

    Raises:
        InvalidInput: there is no such user, or this one has no home folder.
    """
    try:
        return Path(path).expanduser()
    except (RuntimeError, KeyError):
        user = Path(path).parts[0][1:]
        reason = f"there is no user {user}" if user else "this user has no home folder, and HOME is not set"
        hint = "check the name, or write ./~… for a file of that name" if user else "give a path without ~"
        if str(path) == _DB_PATH:
            raise InvalidInput(f"no such path: {path}: {reason}", remedy=NAME_LOCATION) from None
        raise InvalidInput(f"no such path: {path}: {reason}", hint=hint) from None


def sizes(environ: Optional[Mapping[str, str]] = None) -> Sizes:
    """Return `BLACKROAD_WS_MAX_CONTENT` and `BLACKROAD_WS_MAX_METADATA`, or the defaults.

    Raises:
        InvalidInput: one is not a size from 1 byte to 1 MiB.
    """
    values = os.environ if environ is None else environ
    content, metadata = values.get("BLACKROAD_WS_MAX_CONTENT"), values.get("BLACKROAD_WS_MAX_METADATA")
    return Sizes(
        parse_size(content, "BLACKROAD_WS_MAX_CONTENT") if content else MAX_CONTENT,
        parse_size(metadata, "BLACKROAD_WS_MAX_METADATA") if metadata else MAX_METADATA,
    )


def database_location(environ: Optional[Mapping[str, str]] = None) -> Located:
    """Return `BLACKROAD_WS_DB` (`~` expanded), or the default where it is unset or empty.

    Raises:
        InvalidInput: it begins with a home folder that does not exist.
    """
    value = (os.environ if environ is None else environ).get("BLACKROAD_WS_DB")
    return located(value or _default_path())


def heartbeat_timeout(environ: Optional[Mapping[str, str]] = None) -> float:
    """Return `BLACKROAD_HB_TIMEOUT` in seconds, or 30.

    Raises:
        InvalidInput: if it is not a duration of more than 0 seconds.
    """
    value = (os.environ if environ is None else environ).get("BLACKROAD_HB_TIMEOUT")
    if not value:
        return HEARTBEAT_TIMEOUT
    try:
        seconds = parse_duration(value)
    except InvalidInput as error:
        raise InvalidInput(f"BLACKROAD_HB_TIMEOUT: {error.message}", hint=error.hint) from None
    if not seconds:
        raise InvalidInput("BLACKROAD_HB_TIMEOUT must be more than 0 seconds", hint="unset it for 30 seconds")
    return seconds


def signing_secret(environ: Optional[Mapping[str, str]] = None) -> Optional[bytes]:
    """Return `BLACKROAD_WS_SECRET` as bytes, or None where it is unset or empty.

    Raises:
        InvalidInput: if it has under 32 bytes, too few for HS256 (RFC 7518 section 3.2).
    """
    value = (os.environ if environ is None else environ).get("BLACKROAD_WS_SECRET")
    if not value:
        return None
    secret = value.encode("utf-8", "surrogateescape")
    if len(secret) < 32:
        raise InvalidInput(
            "BLACKROAD_WS_SECRET has under 32 bytes",
            hint="make one with: openssl rand -base64 48; or unset it for a key beside the database",
        )
    return secret


def given_token(environ: Optional[Mapping[str, str]] = None) -> Optional[str]:
    """Return the token in `BLACKROAD_WS_TOKEN`, or None where it is unset or empty."""
    value = (os.environ if environ is None else environ).get("BLACKROAD_WS_TOKEN") or ""
    return without_mark(value) or None


def given_url(environ: Optional[Mapping[str, str]] = None) -> Optional[str]:
    """Return the gateway's address in `BLACKROAD_WS_URL`, or None where it is unset or empty."""
    return (os.environ if environ is None else environ).get("BLACKROAD_WS_URL") or None


def given_traceparent(environ: Optional[Mapping[str, str]] = None) -> Optional[str]:
    """Return the trace context in `TRACEPARENT`, unchecked, or None where it is unset or empty."""
    return (os.environ if environ is None else environ).get("TRACEPARENT") or None


def stripe_secrets(environ: Optional[Mapping[str, str]] = None) -> list[str]:
    """Return the signing secrets in `STRIPE_WEBHOOK_SECRET`, separated by commas: several during a rotation."""
    value = (os.environ if environ is None else environ).get("STRIPE_WEBHOOK_SECRET") or ""
    return [secret for secret in (part.strip() for part in value.split(",")) if secret]


def parse_size(text: str, name: str, *, most: int = LARGEST) -> int:
    """Turn `300000`, `64KiB` or `1MiB` into bytes.

    Args:
        text: as it was given.
        name: of the option or variable, for the error.
        most: bytes.

    Raises:
        InvalidInput: it is not of that form, is 0, or is over `most`.
    """
    number, unit = text.strip(), 1
    for suffix, factor in (("KiB", 1024), ("MiB", 1024 * 1024)):
        if number.lower().endswith(suffix.lower()):
            number, unit = number[: -len(suffix)].rstrip(), factor
    size = int(number) * unit if number.isascii() and number.isdigit() and len(number) < 16 else 0
    if not 1 <= size <= most:
        raise InvalidInput(
            f"{name} is not a size: {text!r}", hint=f"write bytes, 64KiB or 1MiB; at most {most} bytes"
        )
    return size


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: Union[str, float]) -> float:
    """Turn `30`, `250ms`, `90s`, `5m`, `24h` or `7d` into seconds. A bare number is seconds.

    Raises:
        InvalidInput: if it is not of that form, negative, not finite or beyond ten years.
    """
    number, unit = str(text).strip(), "s"
    for suffix in ("ms", "s", "m", "h", "d"):
        if number.endswith(suffix):
            number, unit = number[: -len(suffix)], suffix
            break
    try:
        seconds = float(number) * _UNITS[unit]
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_TIMEOUT:
        raise InvalidInput(f"not a duration: {str(text)!r}", hint="write 30, 90s, 5m, 24h or 7d")
    return seconds
