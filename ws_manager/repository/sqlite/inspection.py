"""Looking at a database file without changing it: nothing is created, migrated, or waited for.

For `doctor`, which has to work on any file, and for completion, which must never be in the way.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple, Optional

from ws_manager.models import Gateway
from ws_manager.repository.copied import Seal
from ws_manager.repository.findings import Backlog
from ws_manager.repository.sqlite.files import look
from ws_manager.repository.sqlite.gateways import LATEST
from ws_manager.repository.sqlite.judgement import Judgement
from ws_manager.repository.sqlite.opening import judge_open
from ws_manager.repository.sqlite.overview import whole_backlog
from ws_manager.repository.sqlite.reading import look_into
from ws_manager.repository.sqlite.schema import VERSION
from ws_manager.repository.sqlite.seals import seal_of

WAIT_SECONDS = 0.2
"""Seconds to wait for another process's lock."""


class Inspection(NamedTuple):
    """What a file says about itself.

    Attributes:
        judgement: what its tables and columns make it.
        quick_check: what `PRAGMA quick_check` has found, at most ten lines; empty for nothing.
        gateway: the gateway that started last, where one is recorded.
        backlog: what has not arrived, where the schema is the current one.
        seal: why nothing can be written, if the ledger is sealed.
    """

    judgement: Judgement
    quick_check: list[str]
    gateway: Optional[Gateway]
    backlog: Optional[Backlog] = None
    seal: Optional[Seal] = None


def inspect(path: Path) -> Inspection:
    """Read what a file says about itself.

    Raises:
        sqlite3.Error: it is not a database, cannot be opened, or is damaged beyond reading.
        LedgerError: it is too small to be one, or was written during every look.
    """
    look(path)
    return look_into(path, _inspect, WAIT_SECONDS)


def _inspect(db: sqlite3.Connection) -> Inspection:
    judgement = judge_open(db)
    found = [str(row[0]) for row in db.execute("PRAGMA quick_check(10)") if row[0] != "ok"]
    gateway = None
    if judgement.version and not found:
        row = db.execute(LATEST).fetchone()
        gateway = None if row is None else Gateway(*row)
    backlog = whole_backlog(db) if judgement.version == VERSION and not found else None
    seal = seal_of(db) if judgement.version and not found else None
    return Inspection(judgement, found, gateway, backlog, seal)
