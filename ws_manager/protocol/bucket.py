"""Token buckets: limits of a rate, on average and at once. No IO: the caller passes the time in."""

from __future__ import annotations

from collections.abc import Hashable


class Bucket:
    """An allowance that grows with time up to a limit, and shrinks with use.

    Args:
        rate: growth in a second, above 0.
        burst: the limit; the bucket starts full.
        now: monotonic seconds.
    """

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = now

    def left(self, now: float) -> float:
        """Return the allowance now; below 0 if too much was charged."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        return self._left

    def take(self, amount: float, now: float) -> bool:
        """Take an amount if the bucket holds it or is full; otherwise change nothing and return False.

        So an amount above `burst` is possible, and leaves a debt: the rate holds on average.
        """
        left = self.left(now)
        if left < amount and left < self._burst:
            return False
        self._left = left - amount
        return True

    def charge(self, amount: float, now: float) -> float:
        """Take an amount in any case, and return the seconds until the debt is paid; 0 if there is none."""
        self._left = self.left(now) - amount
        return max(0.0, -self._left / self._rate)

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until `amount` may be taken."""
        return max(0.0, (min(amount, self._burst) - self.left(now)) / self._rate)


class Buckets:
    """A bucket for each of many keys, in bounded memory.

    If there are too many, the least recently used one is removed. It is probably full again, like a new one.

    Args:
        rate: each bucket's rate.
        burst: each bucket's burst.
        most: the largest number of buckets.
    """

    def __init__(self, rate: float, burst: float, most: int = 10_000) -> None:
        self._rate = rate
        self._burst = burst
        self._most = most
        self._buckets: dict[Hashable, Bucket] = {}

    def __len__(self) -> int:
        """Return the number of buckets."""
        return len(self._buckets)

    def of(self, key: Hashable, now: float) -> Bucket:
        """Return the bucket of a key; a new, full one if there is none."""
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            bucket = Bucket(self._rate, self._burst, now)
            if len(self._buckets) >= self._most:
                del self._buckets[next(iter(self._buckets))]
        self._buckets[key] = bucket
        return bucket
