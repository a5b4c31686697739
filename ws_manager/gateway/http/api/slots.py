"""Bounds what lasts: streams, batches, and requests that wait, of one process and with one token."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from ws_manager.errors import GatewayUnavailable
from ws_manager.tokens import ANY_AGENT, Claims


class Slots:
    """Places for what lasts.

    Args:
        what: it is, for the error.
        most: at the same time.
        of_a_token: with one token.
    """

    def __init__(self, what: str, most: int, of_a_token: int) -> None:
        self._what = what
        self._most = most
        self._of_a_token = of_a_token
        self._taken: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many are taken."""
        return sum(self._taken.values())

    @contextlib.contextmanager
    def taken(self, claims: Claims) -> Iterator[None]:
        """Take a place while a block runs.

        Raises:
            GatewayUnavailable: all are taken, or the token has as many as it may.
        """
        key = claims.key or ANY_AGENT
        if len(self) >= self._most or self._taken[key] >= self._of_a_token:
            raise GatewayUnavailable(f"there are too many {self._what}", hint="come back later")
        self._taken[key] += 1
        try:
            yield
        finally:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]
