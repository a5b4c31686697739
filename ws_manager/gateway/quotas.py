"""Limits what one token and one address may use: handshakes, sockets and bytes sent."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from types import TracebackType
from typing import Callable, Optional, Union

from ws_manager.errors import GatewayUnavailable, InvalidInput
from ws_manager.gateway.limits import Limits
from ws_manager.protocol.bucket import Bucket, Buckets
from ws_manager.tokens import Claims

LASTING_SECONDS = 60.0
"""The handshake of a socket that stays open for this many seconds is not counted."""

BURST_SECONDS = 10
"""The handshakes of this many seconds may come at once."""

ENVELOPE = 200
"""Bytes that a message takes besides its content, in the ledger and on the wire."""


class TooFast(GatewayUnavailable):
    """A caller exceeds a rate: HTTP 429 (RFC 6585 section 4).

    Attributes:
        seconds: after which the caller may try again.
    """

    code = "busy"

    def __init__(self, message: str, seconds: float, *, hint: Optional[str] = None) -> None:
        super().__init__(message, hint=hint)
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


class HandshakeQuota:
    """What one handshake and its socket use of the quotas. A context manager, made by `Quotas.handshake`.

    At its end the handshake is counted, unless the socket was open for `LASTING_SECONDS`.
    """

    __slots__ = ("_address", "_began", "_counted", "_quotas", "_token")

    def __init__(self, quotas: Quotas, address: Optional[str], began: float) -> None:
        self._quotas = quotas
        self._address = address
        self._token: Optional[str] = None
        self._began = began
        self._counted = True

    def __enter__(self) -> HandshakeQuota:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        quotas = self._quotas
        if self._token is not None:
            quotas.leave(self._token)
        if self._counted and quotas.now() - self._began < LASTING_SECONDS:
            quotas.count(self._token, self._address)

    def check_address(self) -> None:
        """Check the rate of handshakes from this address.

        Raises:
            TooFast: there are too many.
        """
        self._check_rate(self._address, "address")

    def check_token(self, claims: Claims) -> None:
        """Check the rate of handshakes with this token. Without tokens, there is no such rate.

        Raises:
            TooFast: there are too many.
        """
        self._check_rate(claims.key, "token")

    def enter(self, claims: Claims, *, takes_over: bool) -> None:
        """Count a socket of the token until the socket has closed. Without tokens, nothing is counted.

        Args:
            claims: the token's claims.
            takes_over: True if the socket replaces an open one.

        Raises:
            GatewayUnavailable: the token has the most sockets that it may have.
        """
        if claims.key is not None:
            self._quotas.enter(claims.key, takes_over=takes_over)
            self._token = claims.key

    def _check_rate(self, key: Optional[str], what: str) -> None:
        bucket = self._quotas.bucket(what, key)
        if bucket is None or not (seconds := bucket.wait(1, self._quotas.now())):
            return
        # A handshake over the rate is not counted: otherwise a client that keeps trying would never get in.
        self._counted = False
        raise TooFast(
            f"too many handshakes with this {what}: their sockets do not last",
            seconds,
            hint="come back more slowly",
        )


class Quotas:
    """What each token and each address uses at present.

    Only handshakes that were refused or whose socket closed early are counted, at their end. So the rate does not
    slow down many agents that reconnect together after a restart.

    Args:
        limits: what each token and address may use.
        now: a monotonic clock, in seconds.
    """

    def __init__(self, limits: Limits, now: Callable[[], float]) -> None:
        self.now = now
        self._per_token = limits.per_token
        self._sockets: dict[str, int] = {}
        rate = limits.handshakes_per_second
        self._rates = {what: Buckets(rate, rate * BURST_SECONDS) for what in ("token", "address")}

    def handshake(self, address: Optional[str]) -> HandshakeQuota:
        """Begin a handshake from an address. None: the address is not counted."""
        return HandshakeQuota(self, address, self.now())

    def bucket(self, what: str, key: Optional[str]) -> Optional[Bucket]:
        """Return the bucket of a `token` or an `address`; None if it has no limit."""
        return None if key is None else self._rates[what].of(key, self.now())

    def count(self, token: Optional[str], address: Optional[str]) -> None:
        """Count a handshake that was refused or whose socket closed early."""
        for bucket in (self.bucket("token", token), self.bucket("address", address)):
            if bucket is not None:
                bucket.charge(1, self.now())

    def enter(self, token: str, *, takes_over: bool) -> None:
        """Count a socket of a token.

        Raises:
            GatewayUnavailable: the token has the most sockets that it may have.
        """
        count = self._sockets.get(token, 0)
        if count >= self._per_token and not takes_over:
            raise GatewayUnavailable(
                f"this token has {count} sockets already",
                hint="give each agent a token of its own",
            )
        self._sockets[token] = count + 1

    def leave(self, token: str) -> None:
        """Stop counting a socket of a token, because it has closed."""
        left = self._sockets[token] - 1
        if left:
            self._sockets[token] = left
        else:
            del self._sockets[token]


class Spending:
    """Limits the bytes that agents send, counted once for each recipient. Use it only on the writing thread.

    Args:
        rate: bytes a second; unused bytes of one second are kept.
        now: a monotonic clock, in seconds.
    """

    def __init__(self, rate: int, now: Callable[[], float]) -> None:
        self._now = now
        self._buckets = Buckets(rate, rate)

    def account(self, key: str) -> Account:
        """Return the account of a token or, without tokens, of a ws_id."""
        return Account(self._buckets, key, self._now)


class Account:
    """The account of one token or one connection in `Spending`."""

    __slots__ = ("_buckets", "_key", "_now")

    def __init__(self, buckets: Buckets, key: str, now: Callable[[], float]) -> None:
        self._buckets = buckets
        self._key = key
        self._now = now

    def check(self) -> None:
        """Check that anything may be sent, before the recipients are read from the ledger.

        Raises:
            TooFast: nothing may be sent now.
        """
        now = self._now()
        if self._buckets.of(self._key, now).left(now) <= 0:
            raise self._refusal(0)

    def spend(self, recipients: int, size: int) -> None:
        """Charge a message before it is written.

        Args:
            recipients: the number of recipients.
            size: bytes of the content.

        Raises:
            TooFast: the account does not hold enough.
        """
        now = self._now()
        # A broadcast without recipients is written to the ledger too.
        cost = max(1, recipients) * (size + ENVELOPE)
        if not self._buckets.of(self._key, now).take(cost, now):
            raise self._refusal(cost)

    def _refusal(self, cost: int) -> TooFast:
        now = self._now()
        seconds = self._buckets.of(self._key, now).wait(max(cost, 1), now)
        return TooFast(f"over the bytes a second for all recipients: try again in {seconds:.1f} s", seconds)


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
