"""Token buckets: how much somebody may do in a second, on average and at once. No IO: the time is passed in."""

from __future__ import annotations

from collections.abc import Hashable


class Bucket:
    """An allowance that grows with time up to a limit, and shrinks with what is done.

    Args:
        rate: what it grows by in a second, more than 0.
        burst: what it holds at most, and at the beginning.
        now: monotonic seconds.
    """

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = now

    def left(self, now: float) -> float:
        """Return what may be done now; less than 0 where too much was done."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        return self._left

    def take(self, amount: float, now: float) -> bool:
        """Do something if there is enough left, or if the bucket is full; otherwise change nothing and return False.

        What is larger than the whole bucket is so possible, and is paid for afterwards: on average the rate holds.
        """
        left = self.left(now)
        if left < amount and left < self._burst:
            return False
        self._left = left - amount
        return True

    def charge(self, amount: float, now: float) -> float:
        """Count what was done anyway, and return the seconds until nothing is owed; 0 where nothing is."""
        self._left = self.left(now) - amount
        return max(0.0, -self._left / self._rate)

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until `amount` may be taken."""
        return max(0.0, (min(amount, self._burst) - self.left(now)) / self._rate)


class Buckets:
    """A bucket for each of many keys, in bounded memory.

    Of too many, the one that was not used for the longest time is forgotten: it is the likeliest to be full again,
    and a full one says as much as none.

    Args:
        rate: of each.
        burst: of each.
        most: how many are kept.
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
