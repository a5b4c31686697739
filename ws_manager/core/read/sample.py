"""A few numbers of a whole ledger, for those who watch it. Nothing is counted over the messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ws_manager.models import seconds_between, utc_now
from ws_manager.repository.findings import Backlog

if TYPE_CHECKING:
    from ws_manager.repository.store import Store


class LedgerSample(NamedTuple):
    """A ledger at one moment.

    Attributes:
        active: active connections.
        disconnected: other connections.
        sent: messages that were ever sent.
        backlog: what has not arrived.
        oldest_seconds: the age of the oldest pending message; 0 if none is pending.
        size: bytes of the ledger.
        log_size: bytes of its write-ahead log.
    """

    active: int
    disconnected: int
    sent: int
    backlog: Backlog
    oldest_seconds: float
    size: int
    log_size: int


def sample(store: Store) -> LedgerSample:
    """Return the ledger as it is now."""
    size, log_size = store.sizes()
    with store.snapshot():
        active = store.connections.count_active()
        backlog = store.overview.whole_backlog()
        return LedgerSample(
            active,
            store.overview.count_connections() - active,
            store.overview.count_sent(),
            backlog,
            0.0
            if backlog.oldest_pending_at is None
            else seconds_between(backlog.oldest_pending_at, utc_now()),
            size,
            log_size,
        )
