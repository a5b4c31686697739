"""What a socket needs of the ledger, handed on together."""

from __future__ import annotations

from typing import NamedTuple

from ws_manager.gateway.delivery.ledger_threads import LedgerThreads
from ws_manager.gateway.delivery.pump import Pump
from ws_manager.gateway.delivery.receipts import ReceiptWriter


class Channels(NamedTuple):
    """The ways between the sockets and the ledger.

    Attributes:
        threads: answer questions to the ledger, and do what agents ask of it.
        pump: brings what was committed.
        receipts: writes what sockets report.
    """

    threads: LedgerThreads
    pump: Pump
    receipts: ReceiptWriter
