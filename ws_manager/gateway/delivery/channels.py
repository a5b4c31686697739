"""What a socket uses to reach the ledger, in one value."""

from __future__ import annotations

from typing import NamedTuple

from ws_manager.gateway.delivery.ledger_threads import LedgerThreads
from ws_manager.gateway.delivery.pump import Pump
from ws_manager.gateway.delivery.receipts import ReceiptWriter


class Channels(NamedTuple):
    """The ways from the sockets to the ledger and back.

    Attributes:
        threads: run calls on the ledger.
        pump: reads what was committed.
        receipts: writes what sockets report.
    """

    threads: LedgerThreads
    pump: Pump
    receipts: ReceiptWriter
