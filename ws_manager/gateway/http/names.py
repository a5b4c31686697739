"""The `Host` names that the gateway accepts, and the origins of web pages that may connect.

`Host` and `Origin` are compared with fixed lists and never with each other: in a DNS rebinding attack, a page whose
name resolves to 127.0.0.1 sends a Host and an Origin that are equal.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Optional
from urllib.parse import urlsplit

from ws_manager.errors import InvalidInput

WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound
"""Bind addresses that stand for every address."""

_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_BRACKETED = re.compile(r"\[[^\[\]]*\](:\d*)?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
# After a scheme other than http and https: printable ASCII without a path, a user or a pattern.
_OPAQUE = re.compile(r"[!-~]*")
_NOT_OPAQUE = frozenset("/?#@\\*")
_PORTS = {"http": 80, "https": 443}


class Names:
    """The accepted hosts and origins.

    Args:
        hosts: the bound addresses. If every address is bound, the local address of each connection is a name too.
            `localhost` always is one.
        public_hosts: further names by which clients address the gateway.
        origins: pages that may connect although their host is not one of those: exact origins (RFC 6454), such as
            `https://app.example.com` or `tauri://localhost`.

    Raises:
        InvalidInput: no client can send one of them.
    """

    def __init__(self, hosts: Iterable[str], public_hosts: Iterable[str], origins: Iterable[str]) -> None:
        bound = {_host_of(f"//{bracketed(host)}") for host in hosts}
        if "" in bound:
            raise InvalidInput("--host is not an address", hint="give an address of this machine")
        self._every_address = bool(bound & WILDCARDS)
        public = {_public_host(host) for host in public_hosts}
        self._hosts = {"localhost", *(bound - WILDCARDS), *public}
        self._origins = {_listed_origin(origin) for origin in origins}

    def hosts(self, came_to: Optional[str]) -> set[str]:
        """Return the names of the gateway. `came_to` is the local address of the connection."""
        return {*self._hosts, came_to} if self._every_address and came_to else self._hosts

    def has_host(self, header: str, came_to: Optional[str]) -> bool:
        """Return whether a `Host` header (RFC 9110 section 7.2) names this gateway."""
        return _host_of(f"//{header}") in self.hosts(came_to)

    def allows(self, origin: str, came_to: Optional[str]) -> bool:
        """Return whether pages of an origin may connect: it is listed, or its host is a name of the gateway."""
        if _origin(origin) in self._origins:
            return True
        return origin.startswith(("http://", "https://")) and _host_of(origin) in self.hosts(came_to)


def host_option(header: str) -> Optional[str]:
    """Return the option that would accept a `Host` header, or None if no option can."""
    host = _host_of(f"//{header}")
    return f"--public-host {host}" if _is_name(host) else None


def origin_option(header: str) -> Optional[str]:
    """Return the option that would accept an `Origin` header, or None if no option can."""
    try:
        _listed_origin(header)
    except InvalidInput:
        return None
    return f"--allow-origin {header}"


def bracketed(host: str) -> str:
    """Return a host as it is written in a URL (RFC 3986 section 3.2.2)."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _public_host(text: str) -> str:
    if "*" in text:
        raise InvalidInput(
            f"--public-host takes no pattern: {text!r}", hint="repeat --public-host for each of the names"
        )
    address = text if text.count(":") < 2 else bracketed(text)
    host = _host_of(f"//{_ascii(address)}")
    if not _is_name(host) or host in WILDCARDS:
        raise InvalidInput(
            f"--public-host is not a name that others can use: {text!r}",
            hint="give a name or an address alone, such as gateway.example.com",
        )
    return host


def _listed_origin(text: str) -> str:
    if "*" in text:
        raise InvalidInput(
            f"--allow-origin takes no pattern: {text!r}",
            hint="origins are compared exactly; repeat --allow-origin for each of them",
        )
    found = _origin(_ascii(text))
    # The origin of a page never has a WebSocket scheme.
    if found is None or found.startswith(("ws://", "wss://")):
        raise InvalidInput(
            f"not an origin: {text!r}",
            hint="write it as browsers do, without a path: https://app.example.com, tauri://localhost",
        )
    return found


def _origin(text: str) -> Optional[str]:
    """Return an origin in the form that browsers send; None if it is not an origin.

    Browsers write the scheme in lower case. After a scheme other than http and https they keep the text as it is.
    """
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or not _SCHEME.fullmatch(scheme):
        return None
    if scheme not in _PORTS:
        return f"{scheme}://{rest}" if _OPAQUE.fullmatch(rest) and not _NOT_OPAQUE & set(rest) else None
    host = _host_of(text)
    if "/" in rest or not _is_name(host):
        return None
    return f"{scheme}://{bracketed(host)}:{urlsplit(text).port or _PORTS[scheme]}"


def _is_name(host: str) -> bool:
    if _NAME.fullmatch(host):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _ascii(text: str) -> str:
    """Return an internationalised name in ASCII, as browsers send it (RFC 3490); "" if it has no such form."""
    scheme, separator, rest = text.rpartition("://")
    host, colon, port = rest.partition(":")
    if host.isascii():
        return text
    try:
        return f"{scheme}{separator}{host.encode('idna').decode('ascii')}{colon}{port}"
    except UnicodeError:
        return ""


def _host_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError if the port is not a number
    except ValueError:
        return ""
    # Older Pythons ignore text outside the brackets.
    if "[" in parts.netloc and not _BRACKETED.fullmatch(parts.netloc):
        return ""
    if parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        return ""
    return parts.hostname or ""
