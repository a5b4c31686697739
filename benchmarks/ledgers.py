"""The ledgers that are measured: made once a run, in a scratch folder, and copied where they are written to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from ws_manager.core.ledger import ledger_over
from ws_manager.models import utc_now
from ws_manager.repository.engines import connection_to
from ws_manager.repository.sqlite.database import Database

MESSAGE = {"event": "deploy", "version": "2.1.0", "services": ["gateway", "billing"]}

_ROWS_AT_ONCE = 500_000
_BYTES_AT_ONCE = 50_000_000


class Ledgers:
    """Ledgers of given sizes in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._copies = count(1)

    def of(self, connections: int, messages: int = 0) -> Path:
        """Return a ledger with so many active connections and messages; it is made at the first call.

        Broadcasts to all of them are what fills it.
        """
        path = self.folder / f"{connections}-{messages}.db"
        if not path.exists():
            unfinished = path.with_suffix(".part")
            db = connection_to(unfinished)
            _connect(db, connections)
            ledger = ledger_over(db)
            for _ in range(0, messages, connections):
                ledger.broadcast(MESSAGE)
                db.checkpoint()
            db.close()
            unfinished.rename(path)
        return path

    @contextmanager
    def copy(self, original: Path) -> Iterator[Database]:
        """Open a copy that may be written to; it is gone after the block."""
        path = self.folder / f"copy-{next(self._copies)}.db"
        # Nobody has the original open, so it is whole without a -wal file.
        shutil.copyfile(original, path)
        db = connection_to(path)
        try:
            yield db
        finally:
            db.close()
            path.unlink()


def add_pending(db: Database, agent: str, connections: int, messages: int, size: int) -> None:
    """Give so many connections of an agent, `<agent>-00000` and so on, so many pending messages each.

    They lie as broadcasts leave them: one for each connection, then the next. Each has `size` bytes.
    """
    content = '{"n":0,"text":"%s"}' % ("x" * (size - len('{"n":0,"text":""}')))
    now = utc_now()
    db.executemany(
        "INSERT OR IGNORE INTO connections (ws_id, agent, connected_at, last_heartbeat) VALUES (?, ?, ?, ?)",
        [(f"{agent}-{number:05d}", agent, now, now) for number in range(connections)],
    )
    at_once = max(1, min(_BYTES_AT_ONCE // size, _ROWS_AT_ONCE) // connections)
    for done in range(0, messages, at_once):
        db.execute(
            "WITH RECURSIVE round (number) AS (VALUES (1) UNION ALL SELECT number + 1 FROM round WHERE number < ?)"
            " INSERT INTO messages (msg_id, recipient_id, content, sent_at)"
            " SELECT printf('%032x', (SELECT coalesce(max(id), 0) FROM messages) + row_number() OVER ()),"
            " ws_id, ?, ? FROM round CROSS JOIN connections WHERE agent = ?",
            (min(at_once, messages - done), content, utc_now(), agent),
        )
        if messages > at_once:
            db.checkpoint()


def _connect(db: Database, connections: int) -> None:
    now = utc_now()
    with db.transaction():
        db.executemany(
            "INSERT INTO connections (ws_id, agent, metadata, connected_at, last_heartbeat) VALUES (?, ?, ?, ?, ?)",
            (
                (
                    f"ws-{n:07d}",
                    f"agent-{n % 100}",
                    f'{{"ip":"10.0.0.{n % 250}","region":"us-west"}}',
                    now,
                    now,
                )
                for n in range(connections)
            ),
        )
    db.checkpoint()
