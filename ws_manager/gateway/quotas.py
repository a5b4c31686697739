"""Limits what one token, one address and all of them together may use: handshakes, sockets and bytes sent."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Iterable
from types import TracebackType
from typing import Callable, Optional, Protocol, Union

from ws_manager.errors import GatewayUnavailable, InvalidInput
from ws_manager.tokens import Claims

LASTING_SECONDS = 60.0
"""The handshake of a socket that stays open for this many seconds is not counted."""

ENVELOPE = 200
"""Bytes that a message takes besides its content, in the ledger and on the wire."""


class OverQuota(GatewayUnavailable):
    """A caller has the most that it may have: HTTP 503.

    Attributes:
        option: the option of `serve` that sets the limit.
    """

    def __init__(self, message: str, option: str, *, hint: Optional[str] = None) -> None:
        super().__init__(message, hint=hint)
        self.option = option


class TooFast(OverQuota):
    """A caller exceeds a rate: HTTP 429 (RFC 6585 section 4).

    Attributes:
        seconds: after which the caller may try again.
    """

    code = "busy"

    def __init__(self, message: str, option: str, seconds: float, *, hint: Optional[str] = None) -> None:
        super().__init__(message, option, hint=hint)
        self.seconds = seconds


class Addresses:
    """Maps a peer to the address that it counts for.

    Args:
        proxies: addresses and networks of proxies, which are not counted: all their clients share an address.

    Raises:
        InvalidInput: a proxy is not an address or a network.
    """

    def __init__(self, proxies: Iterable[str] = ()) -> None:
        self._proxies = [_network(proxy) for proxy in proxies]

    def key(self, peer: object) -> Optional[str]:
        """Return the address that a peer counts for.

        Args:
            peer: the peer's address as `getpeername` returns it.

        Returns:
            The IPv4 address, or the /64 network of an IPv6 address, which usually belongs to one customer (RFC 6177).
            None for this machine, for a proxy, and for a peer without an address.
        """
        if not isinstance(peer, tuple):
            return None
        address = _plain(ipaddress.ip_address(str(peer[0]).partition("%")[0]))
        if _is_this_machine(address) or any(address in proxy for proxy in self._proxies):
            return None
        if address.version == 4:
            return str(address)
        return str(ipaddress.ip_network((address, 64), strict=False))


class Quotas(Protocol):
    """Counts what each token, each address and all of them together use.

    `OwnQuotas` counts for one gateway. A worker asks its parent, which counts for all workers, so an answer may take
    a moment. Calls take effect in their order. A handshake's number is unique within the gateway.
    """

    def arrive(self, address: str) -> asyncio.Future[bool]:
        """Count a TCP connection of an address. The answer is False if the address has too many with it.

        If no answer comes, the future raises `GatewayUnavailable`.
        """

    def depart(self, address: str) -> None:
        """Stop counting a connection that arrived."""

    async def check_address(self, address: str) -> None:
        """Check the rate of handshakes from an address.

        Raises:
            TooFast: there are too many.
        """

    async def enter(self, number: int, token: Optional[str], ws_id: Optional[str]) -> None:
        """Count a handshake and its socket from now on. One that replaces an open socket is always let in.

        Args:
            number: the handshake's.
            token: the key of its token; None is not counted by token.
            ws_id: the connection that it asks for.

        Raises:
            OverQuota: there are too many sockets, or the token has.
            TooFast: there are too many handshakes with the token.
        """

    def name(self, number: int, ws_id: str) -> None:
        """Note the connection of a handshake, once it is registered."""

    def leave(self, number: int) -> None:
        """Stop counting a handshake and its socket. Nothing happens if it is not counted."""

    def count(self, token: Optional[str], address: Optional[str]) -> None:
        """Count a handshake against the rates, because it was refused or its socket closed early."""

    async def request(self, key: str) -> int:
        """Count an HTTP request of a token, and return how many more may come at once.

        Raises:
            TooFast: there are too many.
        """

    def charge(self, key: str, cost: int) -> float:
        """Charge bytes that are sent to a token or, without tokens, to a ws_id. Call it on the writing thread.

        Args:
            key: the token's key, or the ws_id.
            cost: bytes; 0 only checks whether anything may be sent.

        Returns:
            0, or the seconds after which it can be charged: then nothing was.
        """


class Handshake:
    """What one handshake and its socket use of the quotas, until the block of this context manager ends.

    Then the handshake counts against the rates, unless its socket was open for `LASTING_SECONDS`.

    Args:
        quotas: counts it.
        number: unique within this gateway.
        address: the address that it counts for; None if it is not counted by address.
        now: a monotonic clock, in seconds.
    """

    __slots__ = ("_address", "_began", "_counts", "_now", "_number", "_quotas", "_token")

    def __init__(self, quotas: Quotas, number: int, address: Optional[str], now: Callable[[], float]) -> None:
        self._quotas = quotas
        self._number = number
        self._address = address
        self._token: Optional[str] = None
        self._now = now
        self._began = now()
        self._counts = True

    def __enter__(self) -> Handshake:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._quotas.leave(self._number)
        if self._counts and self._now() - self._began < LASTING_SECONDS:
            self._quotas.count(self._token, self._address)

    async def check_address(self) -> None:
        """Check the rate of handshakes from this address; see `Quotas.check_address`."""
        if self._address is not None:
            await self._within_rate(self._quotas.check_address(self._address))

    async def enter(self, claims: Claims, ws_id: Optional[str]) -> None:
        """Count the handshake and its socket; see `Quotas.enter`. Without tokens, nothing is counted by token."""
        await self._within_rate(self._quotas.enter(self._number, claims.key, ws_id))
        self._token = claims.key

    def spare(self) -> None:
        """Do not count the handshake against the rates, because it is the gateway that ends it."""
        self._counts = False

    def name(self, ws_id: str) -> None:
        """Note the connection that this handshake got."""
        self._quotas.name(self._number, ws_id)

    async def _within_rate(self, check: Awaitable[None]) -> None:
        try:
            await check
        except OverQuota as error:
            # A handshake over the rate is not counted: otherwise a client that keeps trying would never get in.
            self._counts = not isinstance(error, TooFast)
            raise
        except GatewayUnavailable:
            self._counts = False
            raise


class Account:
    """Pays for the bytes that agents send, counted once for each recipient. Use it only on the writing thread.

    Args:
        charge: `Quotas.charge`.
        key: of the token or, without tokens, the ws_id.
    """

    __slots__ = ("_charge", "_key")

    def __init__(self, charge: Callable[[str, int], float], key: str) -> None:
        self._charge = charge
        self._key = key

    def check(self) -> None:
        """Check that anything may be sent, before the recipients are read from the ledger.

        Raises:
            TooFast: nothing may be sent now.
        """
        self._pay(0)

    def spend(self, recipients: int, size: int) -> None:
        """Charge a message before it is written.

        Args:
            recipients: the number of recipients.
            size: bytes of the content.

        Raises:
            TooFast: the account does not hold enough.
        """
        # A broadcast without recipients is written to the ledger too.
        self._pay(max(1, recipients) * (size + ENVELOPE))

    def _pay(self, cost: int) -> None:
        seconds = self._charge(self._key, cost)
        if seconds:
            raise TooFast(
                f"over the bytes a second for all recipients: try again in {seconds:.1f} s",
                "--max-send-rate",
                seconds,
            )


def _is_this_machine(address: Union[ipaddress.IPv4Address, ipaddress.IPv6Address]) -> bool:
    """Return whether a peer is on this machine. Tests replace it, because all their peers are."""
    return address.is_loopback


def _network(text: str) -> Union[ipaddress.IPv4Network, ipaddress.IPv6Network]:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise InvalidInput(
            f"--proxy is not an address or a network: {text!r}", hint="such as 192.0.2.1 or 10.0.0.0/8"
        ) from None


def _plain(
    address: Union[ipaddress.IPv4Address, ipaddress.IPv6Address],
) -> Union[ipaddress.IPv4Address, ipaddress.IPv6Address]:
    """Return the IPv4 address in an IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2); otherwise the address."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
