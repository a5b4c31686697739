"""Token buckets: rate limits with a burst. No IO: the time is passed in."""

from __future__ import annotations

from collections.abc import Hashable


class Bucket:
    """An allowance that grows with time up to a limit, and shrinks with use.

    Args:
        rate: growth per second, more than 0.
        burst: the most that it holds. It begins full.
        now: monotonic seconds.
    """

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = now

    def left(self, now: float) -> float:
        """Return what is left now; less than 0 if too much was used."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        return self._left

    def take(self, amount: float, now: float) -> bool:
        """Take `amount` if enough is left, or if the bucket is full; otherwise change nothing and return False.

        So even an amount over the burst is possible. It is paid for afterwards: on average the rate holds.
        """
        left = self.left(now)
        if left < amount and left < self._burst:
            return False
        self._left = left - amount
        return True

    def charge(self, amount: float, now: float) -> float:
        """Count a use that cannot be refused, and return the seconds until nothing is owed."""
        self._left = self.left(now) - amount
        return max(0.0, -self._left / self._rate)

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until `amount` may be taken."""
        return max(0.0, (min(amount, self._burst) - self.left(now)) / self._rate)


class Buckets:
    """A bucket for each of many keys, in bounded memory.

    Above `most`, the bucket that was not used for the longest time is dropped: it is the most likely to be full
    again, and a full bucket is the same as a new one.

    Args:
        rate: of each.
        burst: of each.
        most: how many buckets are kept.
    """

    def __init__(self, rate: float, burst: float, most: int = 10_000) -> None:
        self._rate = rate
        self._burst = burst
        self._most = most
        self._buckets: dict[Hashable, Bucket] = {}

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._buckets)

    def of(self, key: Hashable, now: float) -> Bucket:
        """Return the bucket of a key; a full one if it is not known."""
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            bucket = Bucket(self._rate, self._burst, now)
            if len(self._buckets) >= self._most:
                del self._buckets[next(iter(self._buckets))]
        self._buckets[key] = bucket
        return bucket
