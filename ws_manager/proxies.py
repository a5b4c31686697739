"""Which proxy the environment names for an address, if any."""

from __future__ import annotations

import ipaddress
from typing import Optional
from urllib.parse import urlsplit

from ws_manager.errors import GatewayUnavailable, InvalidInput
from ws_manager.remedies import START_THIS_GATEWAY

_SCHEMES = {"ws": "http", "wss": "https"}


def is_this_machine(url: str) -> bool:
    """Return whether an address is a loopback address, and so on this machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def proxy_for(url: str) -> Optional[str]:
    """Return the address of the proxy for an address; None if it is reached directly.

    `HTTPS_PROXY` is for `https` and `wss`, `HTTP_PROXY` for `http` and `ws`, in capitals or not. Hosts in
    `NO_PROXY` are reached directly. So is a loopback address, always: behind a proxy it would be the proxy's own.

    Args:
        url: an address with a scheme and a host.

    Raises:
        InvalidInput: the proxy is not an `http` proxy, or not an address.
    """
    # Imported here: an agent on the gateway's machine does not need it.
    if is_this_machine(url):
        return None
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    scheme = _SCHEMES.get(parts.scheme, parts.scheme)
    proxy = getproxies().get(scheme)
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    # As curl does it: a proxy without a scheme is an http proxy.
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not _is_http(proxy):
        # Without the address itself: it may hold a password.
        raise InvalidInput(
            f"{scheme.upper()}_PROXY is not the address of an http proxy",
            hint="give http://HOST:PORT, or list the gateway's host in NO_PROXY",
        )
    return proxy


def _is_http(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy)
        # A port that is not a number raises.
        return parts.scheme.lower() == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def unreachable(cause: object, url: str, proxy: Optional[str]) -> GatewayUnavailable:
    """Return the error for a gateway that does not answer.

    Args:
        cause: in words, or an exception.
        url: the gateway's base address.
        proxy: that was asked for it; None for none. Its password is left out.
    """
    if proxy is None:
        return GatewayUnavailable(f"the gateway at {url} does not answer: {cause}", remedy=START_THIS_GATEWAY)
    return GatewayUnavailable(
        f"the proxy {urlsplit(proxy).netloc.rpartition('@')[2]} does not reach the gateway at {url}: {cause}",
        hint="check HTTPS_PROXY and HTTP_PROXY; NO_PROXY lists the hosts that are reached directly",
    )
