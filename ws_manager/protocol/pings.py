"""The Pings of one socket, and what each of them asks for. No IO."""

from __future__ import annotations

from typing import Optional

NONCE_BYTES = 8
_COUNT_BYTES = 4
_COUNTS = 256**_COUNT_BYTES
_MOST_KEPT = 16


class Pings:
    """Makes the payloads of Pings, and tells which of them a Pong answers.

    A payload is the nonce and a count, 12 bytes: a Pong with the payload of another socket, or of no Ping, answers
    nothing.

    Args:
        nonce: `NONCE_BYTES` random bytes that are unique to this socket.

    Attributes:
        seq: the highest seq that was written before the last Ping; 0 before the first.
    """

    __slots__ = ("_count", "_nonce", "_sent", "seq")

    def __init__(self, nonce: bytes) -> None:
        self.seq = 0
        self._nonce = nonce
        self._count = 0
        # By payload: the highest seq that was written before, and when the Ping was sent.
        self._sent: dict[bytes, tuple[int, float]] = {}

    def __len__(self) -> int:
        """Return how many are not answered."""
        return len(self._sent)

    def new(self, written: int, now: float) -> bytes:
        """Return the payload of a Ping that is sent now, in monotonic seconds, after a seq was written."""
        self._count = (self._count + 1) % _COUNTS
        self.seq = written
        payload = self._nonce + self._count.to_bytes(_COUNT_BYTES, "big")
        self._sent[payload] = (written, now)
        if len(self._sent) > _MOST_KEPT:
            del self._sent[next(iter(self._sent))]
        return payload

    def answered(self, payload: bytes) -> Optional[tuple[int, float]]:
        """Take a Pong. Return the seq that was written before its Ping and when that was sent; None without one.

        It answers the earlier Pings too: a peer may answer only the last (RFC 6455 section 5.5.3).
        """
        found = self._sent.get(payload)
        if found is not None:
            for earlier in list(self._sent):
                del self._sent[earlier]
                if earlier == payload:
                    break
        return found
