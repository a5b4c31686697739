"""The journal of the agents of a soak.

What an agent reads, and every receipt that it gives, is a line of fields with tabs between. Each begins with the time
of day. Then come a word, and for most words the ws_id and the number of the socket:

    begin               it is about to connect
    greeted             the first frame was read
    message SEQ ID KEY whole|broken
    receipt SEQ         it is about to confirm what it has read up to here, by Pong or by ack
    reject SEQ          it is about to reject one
    refused SEQ         it is about to close, as if it could not take this one
    deaf                it is about to read nothing for a while
    closed WHY          the socket has ended
    asks KEY            an agent is about to send a message: these two words have no ws_id and no socket
    sent KEY TO ID      the ledger has acknowledged it
    wrong WHAT          the gateway has done what it may not do
    clock               everything before this time is in the journal
"""

from __future__ import annotations

import time
from pathlib import Path


class Journal:
    """What happens, in the order in which it happens."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def note(self, at: float, word: str, *fields: object) -> None:
        self._file.write("\t".join((f"{at:.6f}", word, *map(str, fields))) + "\n")

    def clock(self) -> None:
        self.note(time.time(), "clock")
        self._file.flush()
