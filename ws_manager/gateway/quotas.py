"""How much of the gateway one token and one address may use."""

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
"""A socket that has been open for this long does not count against the rate of handshakes."""

BURST_SECONDS = 10
"""How many seconds' worth of handshakes may come at once."""

ENVELOPE = 200
"""Bytes that a message costs beside its content, in the ledger and on the wire."""


class TooFast(GatewayUnavailable):
    """Somebody does more than their rate allows: HTTP 429 (RFC 6585 section 4).

    Attributes:
        seconds: after which they may try again.
    """

    code = "busy"

    def __init__(self, message: str, seconds: float, *, hint: Optional[str] = None) -> None:
        super().__init__(message, hint=hint)
        self.seconds = seconds


class Addresses:
    """Tells whose connection it is, by its address.

    Args:
        proxies: addresses and networks of proxies. Everybody behind one has its address, so it is not counted.

    Raises:
        InvalidInput: a proxy is not an address or a network.
    """

    def __init__(self, proxies: Iterable[str] = ()) -> None:
        self._proxies = [_network(proxy) for proxy in proxies]

    def key(self, peer: object) -> Optional[str]:
        """Return what a peer counts as.

        Args:
            peer: as `getpeername` returns it.

        Returns:
            Its IPv4 address, or the first 64 bits of its IPv6 address, which are one customer's as a rule (RFC 6177).
            None for this machine, where agents and proxies are, for a proxy, and for a peer without an address.
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
    """One handshake, from its beginning to the end of its socket: a context manager, made by `Quotas.handshake`.

    Unless its socket lasts, it is counted when it has ended.
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
        """Go on, unless this address makes too many handshakes.

        Raises:
            TooFast: it does.
        """
        self._check_rate(self._address, "address")

    def check_token(self, claims: Claims) -> None:
        """Go on, unless too many handshakes are made with this token. Where no tokens are asked for, go on.

        Raises:
            TooFast: there are too many.
        """
        self._check_rate(claims.key, "token")

    def enter(self, claims: Claims, *, takes_over: bool) -> None:
        """Take one of the token's places, until the handshake has ended.

        Where no tokens are asked for, there are no places to take.

        Args:
            claims: of the token.
            takes_over: the socket takes the place of one that is open.

        Raises:
            GatewayUnavailable: it has as many sockets as it may have.
        """
        if claims.key is not None:
            self._quotas.enter(claims.key, takes_over=takes_over)
            self._token = claims.key

    def _check_rate(self, key: Optional[str], what: str) -> None:
        bucket = self._quotas.bucket(what, key)
        if bucket is None or not (seconds := bucket.wait(1, self._quotas.now())):
            return
        # What is refused because of the rate costs nothing, and is not counted: otherwise it would never end.
        self._counted = False
        raise TooFast(
            f"too many handshakes with this {what}: their sockets do not last",
            seconds,
            hint="come back more slowly",
        )


class Quotas:
    """What each token and each address uses.

    Handshakes are counted when they have ended, and only those that were refused, or whose socket did not last: many
    agents that come back together after a pause, as they should, are not slowed down.

    Args:
        limits: what each may use.
        now: a monotonic clock.
    """

    def __init__(self, limits: Limits, now: Callable[[], float]) -> None:
        self.now = now
        self._per_token = limits.per_token
        self._sockets: dict[str, int] = {}
        rate = limits.handshakes_per_second
        self._rates = {what: Buckets(rate, rate * BURST_SECONDS) for what in ("token", "address")}

    def handshake(self, address: Optional[str]) -> HandshakeQuota:
        """Begin a handshake that came from an address; None for one that is not counted."""
        return HandshakeQuota(self, address, self.now())

    def bucket(self, what: str, key: Optional[str]) -> Optional[Bucket]:
        """Return the rate of a `token` or an `address`; None where it is not limited."""
        return None if key is None else self._rates[what].of(key, self.now())

    def count(self, token: Optional[str], address: Optional[str]) -> None:
        """Count a handshake that led to nothing that lasts."""
        for bucket in (self.bucket("token", token), self.bucket("address", address)):
            if bucket is not None:
                bucket.charge(1, self.now())

    def enter(self, token: str, *, takes_over: bool) -> None:
        """Count a socket of a token.

        Raises:
            GatewayUnavailable: it has as many as it may have.
        """
        count = self._sockets.get(token, 0)
        if count >= self._per_token and not takes_over:
            raise GatewayUnavailable(
                f"this token has {count} sockets already",
                hint="give each agent a token of its own",
            )
        self._sockets[token] = count + 1

    def leave(self, token: str) -> None:
        """Count a socket of a token that is gone."""
        left = self._sockets[token] - 1
        if left:
            self._sockets[token] = left
        else:
            del self._sockets[token]


class Spending:
    """What each agent sends to others: bytes, once for each recipient. Used on the writing thread alone.

    Args:
        rate: bytes a second; as many may be saved up.
        now: a monotonic clock.
    """

    def __init__(self, rate: int, now: Callable[[], float]) -> None:
        self._now = now
        self._buckets = Buckets(rate, rate)

    def account(self, key: str) -> Account:
        """Return the account of a token, or of a connection without one."""
        return Account(self._buckets, key, self._now)


class Account:
    """One agent's share of `Spending`."""

    __slots__ = ("_buckets", "_key", "_now")

    def __init__(self, buckets: Buckets, key: str, now: Callable[[], float]) -> None:
        self._buckets = buckets
        self._key = key
        self._now = now

    def check(self) -> None:
        """Go on if anything at all may be sent: that costs less than to look for recipients.

        Raises:
            TooFast: nothing may.
        """
        now = self._now()
        if self._buckets.of(self._key, now).left(now) <= 0:
            raise self._refusal(0)

    def spend(self, recipients: int, size: int) -> None:
        """Pay for a message before it is written.

        Raises:
            TooFast: there is not enough for it.
        """
        now = self._now()
        # Without recipients it still is a broadcast in the ledger.
        cost = max(1, recipients) * (size + ENVELOPE)
        if not self._buckets.of(self._key, now).take(cost, now):
            raise self._refusal(cost)

    def _refusal(self, cost: int) -> TooFast:
        now = self._now()
        seconds = self._buckets.of(self._key, now).wait(max(cost, 1), now)
        return TooFast(f"over the bytes a second for all recipients: try again in {seconds:.1f} s", seconds)


def _is_this_machine(address: Union[ipaddress.IPv4Address, ipaddress.IPv6Address]) -> bool:
    """Say whether a peer is on this machine. The tests, whose peers all are, replace it."""
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
    """Return the IPv4 address that an IPv6 one stands for (RFC 4291 section 2.5.5.2), otherwise the address."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
