"""Counts what each token, each address and all of them together use, in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable
from typing import Callable, Optional

from ws_manager.gateway.limits import Limits
from ws_manager.gateway.quotas import OverQuota, TooFast
from ws_manager.protocol.bucket import Buckets

BURST_SECONDS = 10
"""The handshakes of this many seconds may come at once."""


class OwnQuotas:
    """Counts here; see `Quotas`.

    Only handshakes that were refused or whose socket closed early count against the rates, at their end. So the rate
    does not slow down many agents that reconnect together after a restart.

    Args:
        limits: what each token, each address and all of them together may use.
        now: a monotonic clock, in seconds.
    """

    def __init__(self, limits: Limits, now: Callable[[], float]) -> None:
        self._now = now
        self._limits = limits
        self._connections: Counter[str] = Counter()
        self._per_token: Counter[str] = Counter()
        self._per_ws_id: Counter[str] = Counter()
        # The token and the ws_id of each handshake that has entered.
        self._entered: dict[Hashable, tuple[Optional[str], Optional[str]]] = {}
        rate = limits.handshakes_per_second
        self._rates = {what: Buckets(rate, rate * BURST_SECONDS) for what in ("token", "address")}
        self._requests = Buckets(limits.requests_per_second, limits.requests_per_second)
        # Only the writing thread uses it.
        self._spending = Buckets(limits.send_bytes_per_second, limits.send_bytes_per_second)

    def arrive(self, address: str) -> asyncio.Future[bool]:
        self._connections[address] += 1
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        answer.set_result(self._connections[address] <= self._limits.per_address)
        return answer

    def depart(self, address: str) -> None:
        subtract(self._connections, address)

    async def check_address(self, address: str) -> None:
        self.check_rate("address", address)

    async def enter(self, number: Hashable, token: Optional[str], ws_id: Optional[str]) -> None:
        self.admit(number, token, ws_id)

    def admit(self, number: Hashable, token: Optional[str], ws_id: Optional[str]) -> None:
        """Do what `enter` does, at once."""
        takes_over = ws_id in self._per_ws_id
        if len(self._entered) >= self._limits.connections and not takes_over:
            raise OverQuota("the gateway is full", "--max-connections", hint="try again later")
        if token is not None:
            self.check_rate("token", token)
            count = self._per_token[token]
            if count >= self._limits.per_token and not takes_over:
                raise OverQuota(
                    f"this token has {count} sockets already",
                    "--max-per-token",
                    hint="give each agent a token of its own",
                )
            self._per_token[token] += 1
        self._entered[number] = token, None
        if ws_id is not None:
            self.name(number, ws_id)

    def name(self, number: Hashable, ws_id: str) -> None:
        token, named = self._entered[number]
        if named is None:
            self._entered[number] = token, ws_id
            self._per_ws_id[ws_id] += 1

    def leave(self, number: Hashable) -> None:
        token, ws_id = self._entered.pop(number, (None, None))
        if token is not None:
            subtract(self._per_token, token)
        if ws_id is not None:
            subtract(self._per_ws_id, ws_id)

    def count(self, token: Optional[str], address: Optional[str]) -> None:
        for what, key in (("token", token), ("address", address)):
            if key is not None:
                self._rates[what].of(key, self._now()).charge(1, self._now())

    async def request(self, key: str) -> int:
        return self.take_request(key)

    def take_request(self, key: str) -> int:
        """Do what `request` does, at once."""
        now = self._now()
        bucket = self._requests.of(key, now)
        if bucket.left(now) < 1:
            raise TooFast(
                "too many requests with this token",
                "--max-request-rate",
                bucket.wait(1, now),
                hint="come back more slowly",
            )
        bucket.take(1, now)
        return int(bucket.left(now))

    def charge(self, key: str, cost: int) -> float:
        now = self._now()
        bucket = self._spending.of(key, now)
        if bucket.take(cost, now) if cost else bucket.left(now) > 0:
            return 0.0
        return bucket.wait(max(cost, 1), now)

    def check_rate(self, what: str, key: str) -> None:
        """Check the rate of handshakes with a `token` or from an `address`.

        Raises:
            TooFast: there are too many.
        """
        seconds = self._rates[what].of(key, self._now()).wait(1, self._now())
        if seconds:
            raise TooFast(
                f"too many handshakes with this {what}: their sockets do not last",
                "--max-handshake-rate",
                seconds,
                hint="come back more slowly",
            )


def subtract(counts: Counter[str], key: str) -> None:
    """Count one less, and keep no zeros."""
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
