"""Who may talk to the gateway, decided before anything else is looked at.

`Host` and `Origin` are each compared with a fixed list, never with each other: a page that has its own name
resolve to 127.0.0.1 sends a Host and an Origin that agree (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from aiohttp import web

from ws_manager.errors import InvalidInput, NotAuthorised


def is_loopback(host: str) -> bool:
    """Say whether a bind address reaches this machine alone. A name other than `localhost` counts as no."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Access:
    """The check of every request.

    Args:
        hosts: names and addresses under which the gateway may be addressed; `localhost` is always one.

    Raises:
        InvalidInput: a host is no name.
    """

    def __init__(self, hosts: Iterable[str]) -> None:
        self._hosts = {"localhost", *(_host_of(f"//{_bracketed(host)}") for host in hosts)}
        if "" in self._hosts:
            raise InvalidInput("not a host name", hint="give a name or an address")

    def check(self, request: web.Request) -> None:
        """Let a request pass, or raise.

        Raises:
            NotAuthorised: a foreign Host or Origin, or a request that came through a proxy: without tokens
                the gateway cannot know who is behind it.
        """
        if _host_of(f"//{request.headers.get('Host', '')}") not in self._hosts:
            raise NotAuthorised("this Host is not served here")
        for origin in request.headers.getall("Origin", []):
            if not origin.startswith(("http://", "https://")) or _host_of(origin) not in self._hosts:
                raise NotAuthorised("this Origin is not allowed")
        if "Forwarded" in request.headers or "X-Forwarded-For" in request.headers:
            raise NotAuthorised("without tokens, requests through a proxy are refused")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _host_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for a port that is no number
    except ValueError:
        return ""
    if parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        return ""
    return parts.hostname or ""
